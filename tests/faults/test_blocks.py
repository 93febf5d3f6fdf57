"""What a block-wise job survives: the same bytes in the end, or an error that says what to do."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import cloudpickle
import numpy as np
import pytest

from incasem.blockwise import Grid, Job, run_job
from incasem.errors import DataError, FailedBlocksError
from incasem.geometry import Coordinate, Roi
from tests.blockwise.filled import result, undisturbed

cloudpickle.register_pickle_by_value(sys.modules[__name__])

ROI = Roi((2, 0, -3), (8, 6, 7))
GRID = Grid(ROI, Coordinate((4, 3, 4)), Coordinate((1, 1, 1)))  # 2 × 2 × 2 blocks


@dataclass(frozen=True)
class Work:
    """Writes a pattern into a raw file; one block has a fault, as often as a file says."""

    folder: Path
    fault: str = ""
    faulty: int = 5
    times: int = 1
    seconds: float = 0.0

    def __call__(self):
        output = np.memmap(self.folder / "out.raw", np.uint8, "r+", shape=tuple(ROI.shape))

        def work(block):
            with (self.folder / "attempts").open("a") as file:
                file.write(f"{block.index}\n")
            time.sleep(self.seconds)
            places = (block.write_roi - ROI.begin).to_slices()
            self.strike(block, "before")
            values = np.full(block.write_roi.shape, 10 + block.index, np.uint8)
            half = values.shape[0] // 2
            output[places][:half] = values[:half]
            self.strike(block, "during")
            output[places] = values
            output.flush()
            self.strike(block, "after")

        return work

    def strike(self, block, moment):
        kind, _, when = self.fault.partition(" ")
        if when != moment or (self.faulty >= 0 and block.index != self.faulty):
            return
        if self.attempts().count(block.index) > self.times:
            return
        if kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "hang":
            time.sleep(60)
        if kind == "raise":
            raise ValueError(f"block {block.index} is bad")

    def attempts(self):
        path = self.folder / "attempts"
        return [int(line) for line in path.read_text().split()] if path.exists() else []


@pytest.fixture
def folder(tmp_path):
    np.zeros(ROI.shape, np.uint8).tofile(tmp_path / "out.raw")
    return tmp_path


def make_job(folder, identity=None, **work):
    identity = {"setting": 1} if identity is None else identity
    timeout = 1.0 if "hang" in work.get("fault", "") else 60.0
    return Job("fill", GRID, Work(folder, **work), identity, folder / "state", block_timeout_s=timeout)


@pytest.mark.parametrize("moment", ["before", "during", "after"])
def test_a_killed_worker_costs_one_attempt(folder, moment):
    job = make_job(folder, fault=f"kill {moment}")
    report = run_job(job, num_workers=2, progress=False)
    assert report.blocks_done == 8
    np.testing.assert_array_equal(result(folder, GRID), undisturbed(GRID))
    assert job.start_worker.attempts().count(5) == 2


def test_a_hanging_block_is_stopped_and_done_again(folder):
    job = make_job(folder, fault="hang during")
    run_job(job, num_workers=2, progress=False)
    np.testing.assert_array_equal(result(folder, GRID), undisturbed(GRID))


def test_a_block_that_always_hangs_is_reported(folder):
    with pytest.raises(FailedBlocksError, match="1 of 8 blocks failed") as info:
        run_job(make_job(folder, fault="hang before", times=9), num_workers=2, progress=False)
    assert "ran into the block timeout of 1 s" in str(info.value)


def test_a_block_that_raises_twice_is_tried_a_third_time_by_the_same_worker(folder):
    job = make_job(folder, fault="raise during", times=2)
    run_job(job, num_workers=1, progress=False)
    np.testing.assert_array_equal(result(folder, GRID), undisturbed(GRID))
    assert job.start_worker.attempts().count(5) == 3


def test_a_block_that_always_raises_is_named_and_the_others_are_kept(folder):
    job = make_job(folder, fault="raise before", times=99)
    with pytest.raises(FailedBlocksError) as info:
        run_job(job, num_workers=2, progress=False)
    message = str(info.value)
    assert "fill: 1 of 8 blocks failed, 7 done" in message
    assert "block 5: [6:10, 0:3, 1:4] voxels" in message
    assert "ValueError: block 5 is bad" in message
    assert str(folder / "state" / "logs") in message
    assert "same command again" in message
    assert info.value.exit_code != 0
    assert "block 5 is bad" in "".join(p.read_text() for p in (folder / "state/logs").rglob("*.err"))

    report = run_job(make_job(folder), num_workers=2, progress=False)
    assert (report.blocks_done, report.blocks_resumed) == (1, 7)
    np.testing.assert_array_equal(result(folder, GRID), undisturbed(GRID))


def test_when_all_blocks_raise_all_are_counted_and_twenty_listed(folder):
    grid = Grid(Roi((0, 0, 0), (30, 4, 4)), Coordinate((1, 4, 4)), Coordinate((0, 0, 0)))
    job = replace(make_job(folder, fault="raise before", faulty=-1, times=999), grid=grid)
    with pytest.raises(FailedBlocksError) as info:
        run_job(job, num_workers=1, progress=False)
    lines = str(info.value).splitlines()
    assert "of 30 blocks" in lines[0]
    assert ", 0 done" in lines[0]
    assert sum(line.startswith("  block ") for line in lines) == 20
    assert "is bad" in str(info.value)


def test_a_block_that_always_kills_its_worker_is_named_and_the_others_are_kept(folder):
    with pytest.raises(FailedBlocksError, match="1 of 8 blocks failed, 7 done") as info:
        run_job(make_job(folder, fault="kill during", times=99), num_workers=1, progress=False)
    assert "block 5: [6:10, 0:3, 1:4] voxels" in str(info.value)
    # The end of the last worker may reach the scheduler after the block has been given up.
    assert re.search(r"\b[23] workers died \(killed, or out of memory", str(info.value))
    assert run_job(make_job(folder), num_workers=1, progress=False).blocks_resumed == 7
    np.testing.assert_array_equal(result(folder, GRID), undisturbed(GRID))


@pytest.mark.slow
def test_a_job_whose_workers_always_die_ends(folder):
    grid = Grid(Roi((0, 0, 0), (90, 4, 4)), Coordinate((1, 4, 4)), Coordinate((0, 0, 0)))
    job = replace(make_job(folder, fault="kill before", faulty=-1, times=99), grid=grid)
    with pytest.raises(FailedBlocksError, match="blocks not finished"):
        run_job(job, num_workers=1, progress=False)


MASTER = """
import sys
import cloudpickle
from incasem.blockwise import run_job
job = cloudpickle.load(open(sys.argv[1], "rb"))
print(run_job(job, num_workers=2, progress=False).blocks_resumed)
"""


def start_master(folder, job):
    (folder / "job.pickle").write_bytes(cloudpickle.dumps(job))
    master = subprocess.Popen([sys.executable, "-c", MASTER, folder / "job.pickle"], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 30
    while len(job.start_worker.attempts()) < 4 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(job.start_worker.attempts()) >= 4, "the master's workers did not start"
    return master


def open_files(pid):
    try:
        return [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:
        return []


def processes_of(folder):
    """Processes, other than this one, that hold a file of the job open."""
    pids = {int(entry.name) for entry in Path("/proc").glob("[0-9]*")} - {os.getpid()}
    return [pid for pid in pids if any(name.startswith(str(folder)) for name in open_files(pid))]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="finds processes through Linux's /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_master_leaves_no_process_and_its_job_goes_on(folder, how):
    job = make_job(folder, seconds=0.3)
    master = start_master(folder, job)
    assert processes_of(folder)
    master.send_signal(how)
    _, errors = master.communicate(timeout=10)
    assert master.returncode != 0
    if how == signal.SIGINT:
        assert b"KeyboardInterrupt" in errors
    deadline = time.monotonic() + 5
    while processes_of(folder) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert processes_of(folder) == []
    report = run_job(make_job(folder), num_workers=2, progress=False)
    assert report.blocks_resumed >= 1
    assert report.blocks_resumed + report.blocks_done == 8
    np.testing.assert_array_equal(result(folder, GRID), undisturbed(GRID))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="finds processes through Linux's /proc")
def test_a_killed_scheduler_is_reported_and_its_workers_end(folder):
    job = make_job(folder, seconds=0.3)
    master = start_master(folder, job)
    lock = str(folder / "state/lock")
    (scheduler,) = [p for p in processes_of(folder) if p != master.pid and lock in open_files(p)]
    os.kill(scheduler, signal.SIGKILL)
    _, errors = master.communicate(timeout=10)
    assert master.returncode != 0
    assert b"The scheduler ended before its work was done; it said nothing, as one that was killed" in errors
    assert processes_of(folder) == []
    assert run_job(make_job(folder), num_workers=2, progress=False).blocks_resumed >= 1
    np.testing.assert_array_equal(result(folder, GRID), undisturbed(GRID))


def test_two_jobs_on_one_output_are_refused(folder, monkeypatch):
    monkeypatch.setattr("incasem.blockwise.state._LOCK_PATIENCE_S", 0.2)
    master = start_master(folder, make_job(folder, seconds=0.3))
    with pytest.raises(DataError, match=f"another job works on this output .pid {master.pid} on .*since 2"):
        run_job(make_job(folder), num_workers=1, progress=False)
    master.communicate(timeout=20)
    assert master.returncode == 0
    np.testing.assert_array_equal(result(folder, GRID), undisturbed(GRID))


@pytest.fixture(scope="module")
def half_done_once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("half_done")
    np.zeros(ROI.shape, np.uint8).tofile(folder / "out.raw")
    with pytest.raises(FailedBlocksError):
        run_job(make_job(folder, fault="raise before", times=99), num_workers=2, progress=False)
    return folder


@pytest.fixture
def half_done(half_done_once, tmp_path):
    """A job that was left with 7 of its 8 blocks done."""
    return shutil.copytree(half_done_once, tmp_path / "half_done")


def test_a_changed_setting_between_start_and_resume_is_refused(half_done):
    before = result(half_done, GRID)
    with pytest.raises(DataError, match="setting: was 1, is now 2") as info:
        run_job(make_job(half_done, {"setting": 2}), num_workers=2, progress=False)
    assert "Choose another output name" in str(info.value)
    assert str(half_done) in str(info.value)
    np.testing.assert_array_equal(result(half_done, GRID), before)


def test_other_blocks_on_resume_do_everything_again(half_done, caplog):
    grid = Grid(ROI, Coordinate((4, 6, 7)), Coordinate((1, 1, 1)))
    report = run_job(replace(make_job(half_done), grid=grid), num_workers=2, progress=False)
    assert (report.blocks_done, report.blocks_resumed) == (2, 0)
    assert "cut differently" in caplog.text
    assert set(np.unique(result(half_done, GRID))) == {10, 11}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("done/c/0/0/0", b"\x01\x01"),  # torn
        ("done/c/0/0/0", b"\x07" * 8),  # overwritten: daisy would take it for "all done"
        ("zarr.json", b"{"),
        ("done/zarr.json", b""),
        ("failures/zarr.json", None),
    ],
)
def test_damaged_marks_are_not_believed(half_done, name, content, caplog):
    (marks,) = (half_done / "state/marks").iterdir()
    if content is None:
        (marks / name).unlink()
    else:
        (marks / name).write_bytes(content)
    report = run_job(make_job(half_done), num_workers=2, progress=False)
    assert (report.blocks_done, report.blocks_resumed) == (8, 0)
    assert "damaged" in caplog.text
    np.testing.assert_array_equal(result(half_done, GRID), undisturbed(GRID))


def test_a_lost_file_of_marks_does_everything_again(half_done):
    next((half_done / "state/marks").rglob("done/c/0/0/0")).unlink()
    report = run_job(make_job(half_done), num_workers=2, progress=False)
    assert (report.blocks_done, report.blocks_resumed) == (8, 0)
    np.testing.assert_array_equal(result(half_done, GRID), undisturbed(GRID))


@pytest.mark.parametrize("text", ["{", "[]", json.dumps({"job": "fill"})])
def test_a_damaged_record_of_the_job_is_refused(half_done, text):
    (half_done / "state/job.json").write_text(text)
    with pytest.raises(DataError, match=r"job\.json is damaged(.|\n)*Delete"):
        run_job(make_job(half_done), num_workers=2, progress=False)


def test_a_full_disk_is_named(folder, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(FailedBlocksError, match=r"The disk of .* is full \(0\.0 MiB free\): make room"):
        run_job(make_job(folder, fault="raise before", times=99), num_workers=2, progress=False)


def test_a_state_folder_that_cannot_be_written_or_locked_is_named(folder, monkeypatch):
    def no_space(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", no_space)
    with pytest.raises(DataError, match=r"job\.json cannot be written \(No space left on device\)"):
        run_job(make_job(folder), num_workers=1, progress=False)
    monkeypatch.setattr("fcntl.flock", no_space)
    with pytest.raises(DataError, match="lock cannot be locked"):
        run_job(make_job(folder), num_workers=1, progress=False)
