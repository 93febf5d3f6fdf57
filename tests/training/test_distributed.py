"""Two processes that train one network: the same as one with twice the batch, or none at all."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from incasem.config import load_data_config
from incasem.training.distributed import Processes
from incasem.training.feed import SampleFeed
from tests.training.conftest import config, request, run
from tests.training.test_run import losses, weights

ROOT = Path(__file__).parents[2]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]

# What `incasem train` does, but for a feed that fails in the second process after two batches.
FAILING = """
import itertools, os, sys
from incasem.cli import main
from incasem.errors import DataError
from incasem.training.feed import SampleFeed

batches = SampleFeed.batches

def failing(feed, size=1):
    yield from itertools.islice(batches(feed, size), 2)
    raise DataError("no more samples here")

if __name__ == "__main__":
    if os.environ["RANK"] == "1":
        SampleFeed.batches = failing
    sys.exit(main())
"""


def torchrun(project, program, *settings, runs="runs"):
    words = [
        *program,
        "train",
        "--name",
        "several",
        "with",
        *request(project, *settings, runs=runs).overrides,
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*TORCHRUN, *words], capture_output=True, text=True, timeout=200, env=environment, cwd=project
    )


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [1, 2])
def test_the_processes_share_one_sequence_of_samples(world, batch_size):
    parts = [list(Processes(rank, world).sample_numbers(3, 7, batch_size)) for rank in range(world)]
    assert sorted(sum(parts, [])) == list(range(3 * world * batch_size, 7 * world * batch_size))  # noqa: RUF017
    for batch in range(4):
        of_batch = [part[batch * batch_size : (batch + 1) * batch_size] for part in parts]
        first = (3 + batch) * world * batch_size
        assert [number for part in of_batch for number in part] == list(
            range(first, first + world * batch_size)
        )


def test_a_feed_makes_the_samples_it_is_asked_for(project):
    entries = load_data_config(project / "train.json", project)
    sizes = (28, 28, 28), (10, 10, 10)
    with SampleFeed(entries, config(project), *sizes, seed=7, num_samples=6) as feed:
        every = list(feed)
    numbers = Processes(1, 2).sample_numbers(0, 3, 1)
    with SampleFeed(entries, config(project), *sizes, seed=7, num_samples=3, numbers=numbers) as feed:
        some = list(feed)
    assert [sample.number for sample in some] == [1, 3, 5]
    for sample in some:
        assert np.array_equal(sample.raw, every[sample.number].raw)


def test_one_process_is_alone():
    alone = Processes()
    assert alone.leads
    assert alone.total([1.5, 2]) == [1.5, 2]
    assert alone.from_leader("settings") == "settings"
    assert alone.texts("sample 3") == ["sample 3"]
    alone.wait()


def test_two_processes_are_one_with_twice_the_batch(project):
    settings = ["loss.dice_weight=0.5", "loss.bce_weight=0.5", "seed=none"]
    done = torchrun(project, ["-m", "incasem"], *settings, "training.accumulate=2", runs="two")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("2 processes") == 1, "the first process alone speaks"
    assert done.stdout.count("is done") == 1
    assert "warning" not in done.stderr
    assert [p.name for p in (project / "two/models").iterdir()] == ["0001"]
    one = {"seed": json.loads((project / "two/sacred/incasem_trainings/1/config.json").read_text())["seed"]}
    run(project, *settings[:2], "training.batch_size=4", f"seed={one['seed']}", runs="one")
    expected = losses(project, 1, "one")
    assert losses(project, 1, "two") == pytest.approx(expected, rel=1e-5)
    assert len(set(expected.values())) == len(expected)
    for name, value in weights(project, 1, 2, "one").items():
        np.testing.assert_allclose(weights(project, 1, 2, "two")[name], value, atol=1e-3)


def test_an_error_in_one_process_ends_all(project):
    (project / "failing.py").write_text(FAILING)
    begin = time.monotonic()
    done = torchrun(project, [str(project / "failing.py")], "training.iterations=1000")
    assert time.monotonic() - begin < 100
    assert done.returncode != 0
    assert "no more samples here" in done.stderr
    assert (project / "runs/models/0001/model_checkpoint_0").exists()
    assert not (project / "runs/models/0001/model_checkpoint_1000").exists()


@pytest.mark.slow
def test_a_loss_that_is_not_finite_in_any_process_is_told_by_the_first(project):
    done = torchrun(project, ["-m", "incasem"], "training.optimizer.lr=1e30", "training.iterations=30")
    assert done.returncode != 0
    assert "the loss is nan for the sample 2 (of 'train', output at voxel" in done.stderr
    assert "; 3 (of 'train'" in done.stderr


@pytest.mark.slow
def test_the_older_launcher_of_torch_starts_them_too(project):
    """That of published commands; it passes `--local-rank` before everything else."""
    launcher = [sys.executable, "-m", "torch.distributed.launch", "--standalone", "--nproc_per_node=2"]
    settings = request(project, "training.iterations=1", runs="launched").overrides
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launcher, "-m", "incasem", "train", "--name", "several", "with", *settings],
        capture_output=True, text=True, timeout=200, env=environment, cwd=project,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "run 1 is done" in done.stdout
