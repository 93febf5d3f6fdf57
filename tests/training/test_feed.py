"""The feed: the same samples for any number of workers, clean ends, and faults that end with an error."""

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import asdict

import numpy as np
import pytest
import torch

from incasem.errors import ConfigError, DataError
from incasem.geometry import Coordinate
from incasem.tasks.semantic import Semantic
from incasem.training import feed as feed_module
from incasem.training.feed import Sample, SampleFeed, _samples_ahead
from incasem.training.pipeline import SampleShape
from tests.training.cells import cell, small_config

INPUT, OUTPUT = (28, 28, 28), (10, 10, 10)


@pytest.fixture
def entry(tmp_path):
    return cell(tmp_path)


def make(entries, count, *overrides, **options):
    with SampleFeed(
        entries, small_config(*overrides), INPUT, OUTPUT, seed=5, num_samples=count, **options
    ) as feed:
        return list(feed)


def assert_same(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        for name, value in vars(one).items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(value, getattr(other, name)), name
            else:
                assert value == getattr(other, name), name


def children():
    return multiprocessing.active_children()


def test_a_sample_is_as_documented(entry):
    (sample,) = make([entry], 1)
    assert isinstance(sample, Sample)
    assert sample.raw.shape == (1, *INPUT)
    assert sample.raw.dtype == torch.float32
    assert sample.labels.dtype == torch.int64
    assert sample.loss_scale.dtype == torch.float32
    assert sample.mask.dtype == sample.metric_mask.dtype == torch.uint8
    for name in ("labels", "loss_scale", "mask", "metric_mask"):
        assert getattr(sample, name).shape == OUTPUT
    assert sample.nickname == "cell"
    assert sample.voxel_size == (5.0, 5.0, 5.0)
    assert all(8 <= place <= 30 for place in sample.position)
    assert (sample.number, sample.entry) == (0, 0)


def test_any_number_of_workers_gives_the_same_samples(tmp_path, monkeypatch):
    monkeypatch.setattr(feed_module, "_cpus", lambda: 8)
    entries = [cell(tmp_path, nickname=name, seed=seed) for seed, name in enumerate(("one", "two"))]
    alone = make(entries, 7, num_workers=0)
    assert_same(alone, make(entries, 7, num_workers=2))
    assert not children()
    assert {sample.nickname for sample in alone} == {"one", "two"}
    assert not torch.equal(alone[0].raw, alone[1].raw)


def test_optional_augmentation_is_the_same_in_any_process(entry):
    kinds = (
        "rotation", "scaling", "shifted_sections", "misalignment", "blur", "motion_blur", "noise",
        "missing_sections", "cutout",
    )  # fmt: skip
    chosen = [f"training.augmentation.{kind}.probability=0.5" for kind in kinds]
    alone = make([entry], 5, *chosen, num_workers=0)
    assert_same(alone, make([entry], 5, *chosen, num_workers=1))
    assert not any(
        torch.equal(one.raw, other.raw) for one, other in zip(alone, make([entry], 5), strict=True)
    )


def test_a_feed_continues_where_another_stopped(entry):
    assert_same(make([entry], 6)[4:], make([entry], 2, start_index=4))
    assert_same(make([entry], 3), make([entry], 3))


def test_the_processs_own_generators_are_left_alone(entry):
    random.seed(1)
    np.random.seed(1)
    expected = random.random(), np.random.random()
    random.seed(1)
    np.random.seed(1)
    make([entry], 2)
    assert (random.random(), np.random.random()) == expected


def test_batches_stack_samples_in_order(entry):
    samples = make([entry], 5)
    with SampleFeed([entry], small_config(), INPUT, OUTPUT, seed=5, num_samples=5) as feed:
        batches = list(feed.batches(2))
    assert [batch.number for batch in batches] == [[0, 1], [2, 3], [4]]
    assert batches[0].raw.shape == (2, 1, *INPUT)
    assert batches[2].labels.shape == (1, *OUTPUT)
    assert torch.equal(batches[1].loss_scale[1], samples[3].loss_scale)
    assert (
        batches[0].describe().startswith(f"0 (of 'cell', output at voxel {list(samples[0].position)}); 1 (of")
    )


def test_a_worker_that_is_killed_ends_the_training_within_seconds(entry):
    killed = []

    def train():
        config = small_config("training.precache.cache_size=2")
        with SampleFeed([entry], config, INPUT, OUTPUT, seed=5, num_workers=1) as feed:
            for sample in feed:
                if sample.number == 1:
                    (worker,) = children()
                    os.kill(worker.pid, signal.SIGKILL)
                    killed.append(time.monotonic())

    with pytest.raises(DataError, match=r"a process that makes training samples ended.*num_workers is 1"):
        train()
    assert time.monotonic() - killed[0] < 15
    assert not children()


def test_a_worker_killed_while_the_trainer_is_elsewhere_is_the_same_error(entry):
    """torch raises in the main thread, wherever that is; the feed turns it into our error on the way out."""

    def train():
        with SampleFeed([entry], small_config(), INPUT, OUTPUT, seed=5):
            raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")

    with pytest.raises(DataError, match=r"ended \(DataLoader worker \(pid 7\) is killed by signal"):
        train()


def test_a_volume_that_cannot_be_read_ends_the_training(entry):
    damaged = 0
    for chunk in (entry.file / "volumes/raw").rglob("*"):
        if chunk.is_file() and not chunk.name.startswith("."):
            chunk.write_bytes(b"torn")
            damaged += 1
    assert damaged > 0
    with pytest.raises(DataError, match=r"training sample 0: .*volumes/raw") as caught:
        make([entry], 3, num_workers=1)
    assert "Traceback" not in str(caught.value)
    assert not children()


def test_a_defect_in_a_node_reaches_the_trainer_with_its_traceback(entry, monkeypatch):
    def fails(*_):
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr("incasem.training.augmentation.draw_deformation", fails)
    with pytest.raises(
        RuntimeError, match=r"(?s)sample 0 could not be made: a defect\n.*in fails.*ZeroDivisionError"
    ):
        make([entry], 1)


def test_little_shared_memory_goes_through_pipes(entry, monkeypatch):
    shape = SampleShape(Coordinate(INPUT), Coordinate(OUTPUT))
    usage = type(feed_module.shutil.disk_usage("/"))
    monkeypatch.setattr(feed_module, "SHARED_MEMORY", entry.file)  # a folder that exists
    monkeypatch.setattr(feed_module.shutil, "disk_usage", lambda _: usage(10**6, 0, 10**6))
    assert _samples_ahead(20, 1, shape, Semantic(2)) == (3, True)
    assert _samples_ahead(20, 2, shape, Semantic(2)) == (2, False)
    monkeypatch.setattr(feed_module.shutil, "disk_usage", lambda _: usage(1, 1, 0))
    assert _samples_ahead(20, 1, shape, Semantic(2)) == (2, False)
    assert_same(make([entry], 3, num_workers=1), make([entry], 3))


def test_samples_ahead_are_those_of_the_settings():
    shape = SampleShape(Coordinate(INPUT), Coordinate(OUTPUT))
    if feed_module.SHARED_MEMORY.is_dir() and feed_module.shutil.disk_usage("/dev/shm").free < 10**8:
        pytest.skip("too little shared memory")
    assert _samples_ahead(20, 8, shape, Semantic(2)) == (3, True)
    assert _samples_ahead(1, 8, shape, Semantic(2)) == (1, True)


def test_no_more_workers_than_cpus_or_samples(entry, monkeypatch):
    monkeypatch.setattr(feed_module, "_cpus", lambda: 3)
    config = small_config("training.precache.num_workers=8")
    for count, expected in ((None, 3), (2, 2), (0, 0)):
        with SampleFeed([entry], config, INPUT, OUTPUT, seed=5, num_samples=count) as feed:
            assert feed.num_workers == expected


def test_what_cannot_be_fed_is_said_before_anything_starts(entry):
    config = small_config()
    with pytest.raises(ConfigError, match=r"training\.data has no entries"):
        SampleFeed([], config, INPUT, OUTPUT, seed=5)
    with pytest.raises(ConfigError, match="differ by an even number"):
        SampleFeed([entry], config, INPUT, (10, 10, 11), seed=5)
    with pytest.raises(DataError, match="no sample can be drawn from 'bare'"):
        SampleFeed(
            [cell(entry.file.parent, nickname="bare", labels={})],
            small_config("training.reject.reject_probability=1"), INPUT, OUTPUT, seed=5,
        )  # fmt: skip


SCRIPT = """
import json, sys, warnings
from pathlib import Path
from tests.training.cells import small_config
from incasem.config import DataEntry
from incasem.training.feed import SampleFeed

if __name__ == "__main__":
    values = json.loads(sys.argv[1])
    entry = DataEntry(**{**values, "file": Path(values["file"])})
    feed = SampleFeed([entry], small_config(), (28, 28, 28), (10, 10, 10), seed=5, num_workers=1)
    samples = iter(feed)
    next(samples)
    if sys.argv[2] == "close":
        feed.close()
    print("done", flush=True)
"""


@pytest.mark.parametrize("how", ["close", pytest.param("leave", marks=pytest.mark.slow)])
def test_the_end_is_silent_and_leaves_no_process(entry, tmp_path, how):
    """Closed properly, or the interpreter just left in mid-feed."""
    (tmp_path / "script.py").write_text(SCRIPT)
    values = json.dumps(asdict(entry), default=str)
    ended = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", tmp_path / "script.py", values, how],
        capture_output=True, text=True, timeout=120, check=False,
        env=os.environ | {"PYTHONPATH": os.getcwd()},
    )  # fmt: skip
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "done\n", "")
