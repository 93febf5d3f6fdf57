"""Trainings that are killed, or meet numbers that are none, in the real command."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from incasem.networks import latest_checkpoint, load_checkpoint
from incasem.tracking import TRAININGS, open_store
from tests.training.conftest import project, request, run
from tests.training.test_run import losses, weights

__all__ = ["project"]  # a fixture

ROOT = Path(__file__).parents[2]
EVERYTHING = [  # that has a state, or depends on the iteration
    "training.accumulate=2", "training.precision=fp16", "training.swa_start=4",
    "training.optimizer.schedule=poly", "training.weight_standardization=true", "loss.dice_weight=0.5",
    "training.checkpoints.keep=2", "training.save_every=3", "training.iterations=18", "validation.data=none",
    "training.snapshot.every=100",
]  # fmt: skip


def start(project, *settings):
    words = ["-m", "incasem", "train", "--name", "test", "with", *request(project, *settings).overrides]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=project,
    )


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGKILL, -9), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_a_killed_training_goes_on_as_if_nothing_had_happened(project, number, code):
    process = start(project, *EVERYTHING)
    folder = project / "runs/models/0001"
    deadline = time.monotonic() + 120
    while not (folder / "model_checkpoint_6").exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(number)
    process.communicate()
    assert process.returncode == code
    last, _ = latest_checkpoint(folder)
    assert last < 18, "it was killed too late to prove anything"
    second, _ = run(project, *EVERYTHING, continue_run=1)
    whole, _ = run(project, *EVERYTHING, runs="whole")
    expected = losses(project, whole, "whole")
    assert losses(project, second) == {step: expected[step] for step in range(last + 1, 19)}
    for name, value in weights(project, whole, 18, "whole").items():
        assert torch.equal(value, weights(project, 1, 18)[name])
    files = sorted(p.name for p in folder.iterdir())
    assert files == [f"model_checkpoint_{i}{suffix}" for i in (15, 18) for suffix in ("", ".json")]


def test_a_loss_that_is_no_number_ends_the_command_with_the_sample(project):
    process = start(project, "training.optimizer.lr=1e30", "validation.data=none", "training.save_every=1")
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 3
    assert "Traceback" not in stderr
    message = stderr.strip().splitlines()[-1]
    assert re.search(r"the loss is nan for the sample \d+ \(of 'train', output at voxel \[", message)
    with open_store(None, project / "runs", TRAININGS, {}) as store:
        assert store.info(1).status == "FAILED"
    iteration, path = latest_checkpoint(project / "runs/models/0001")
    assert f"the sample {iteration + 1} (" in message, "the last good checkpoint is of the step before"
    assert all(torch.isfinite(value).all() for value in load_checkpoint(path).model_state.values())
