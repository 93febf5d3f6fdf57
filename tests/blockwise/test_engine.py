import os
import sys
import threading
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from incasem.blockwise import Grid, Job, finish, run_in_process, run_job
from incasem.errors import ConfigError, DataError, FailedBlocksError
from incasem.geometry import Coordinate, Roi

cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Fill:
    """Writes a pattern of the absolute coordinates into a raw file; counts its blocks."""

    def __init__(self, path: Path, roi: Roi) -> None:
        self.path, self.roi = path, roi
        if not path.exists():
            np.zeros(roi.shape, np.uint8).tofile(path)

    def __call__(self):
        output = np.memmap(self.path, np.uint8, "r+", shape=tuple(self.roi.shape))

        def fill(block):
            places = (block.write_roi - self.roi.begin).to_slices()
            output[places] = pattern(block.write_roi)
            output.flush()
            with self.path.with_suffix(".blocks").open("a") as file:
                file.write(f"{block.index} {os.getpid()}\n")

        return fill

    def result(self):
        return np.fromfile(self.path, np.uint8).reshape(self.roi.shape)

    def blocks(self):
        path = self.path.with_suffix(".blocks")
        return [int(line.split()[0]) for line in path.read_text().splitlines()] if path.exists() else []


def pattern(roi):
    z, y, x = np.ogrid[tuple(slice(b, e) for b, e in zip(roi.begin, roi.end, strict=True))]
    return ((7 * z + 3 * y + x) % 251 + 1).astype(np.uint8)


def make_job(folder, roi=None, block_shape=(4, 5, 6), **more):
    roi = roi or Roi((3, -5, 10), (10, 12, 14))
    grid = Grid(roi, Coordinate(block_shape), Coordinate((1, 1, 1)))
    work = Fill(folder / "out.raw", roi)
    return Job(
        name="fill", grid=grid, start_worker=work, identity={"a": 1}, state_dir=folder / "state", **more
    )


@pytest.mark.parametrize("num_workers", [1, 2])
def test_all_blocks_are_done_once(tmp_path, num_workers):
    job = make_job(tmp_path)
    report = run_job(job, num_workers=num_workers, progress=False)
    np.testing.assert_array_equal(job.start_worker.result(), pattern(job.grid.total_roi))
    assert sorted(job.start_worker.blocks()) == list(range(27))
    assert (report.blocks_done, report.blocks_resumed, report.blocks_skipped) == (27, 0, 0)
    assert report.voxels == 10 * 12 * 14
    assert report.voxels_per_second == pytest.approx(report.voxels / report.seconds)
    assert "27 blocks" in report.summary()


@settings(max_examples=5, deadline=None)
@given(st.tuples(*[st.integers(1, 9)] * 3), st.tuples(*[st.integers(1, 9)] * 3), st.integers(1, 3))
def test_the_result_does_not_depend_on_blocks_or_workers(tmp_path_factory, shape, block_shape, workers):
    roi = Roi((-4, 0, 100), shape)
    job = make_job(tmp_path_factory.mktemp("job"), roi, block_shape)
    run_job(job, num_workers=workers, progress=False)
    np.testing.assert_array_equal(job.start_worker.result(), pattern(roi))


def test_a_second_run_finds_everything_done(tmp_path):
    job = make_job(tmp_path)
    run_job(job, num_workers=1, progress=False)
    report = run_job(job, num_workers=2, progress=False)
    assert (report.blocks_done, report.blocks_resumed) == (0, 27)
    assert report.already_complete
    assert "already complete" in report.summary()
    assert len(job.start_worker.blocks()) == 27
    finish(job)
    assert not job.state_dir.exists()
    assert run_job(job, num_workers=2, progress=False).blocks_done == 27


def test_the_same_blocks_run_in_this_process(tmp_path):
    job = make_job(tmp_path)
    report = run_in_process(job)
    np.testing.assert_array_equal(job.start_worker.result(), pattern(job.grid.total_roi))
    assert job.start_worker.blocks() == list(range(27))
    assert report.blocks_done == 27
    assert not job.state_dir.exists()


def test_skipped_blocks_never_start(tmp_path):
    skip = np.zeros((3, 3, 3), bool)
    skip[1] = True
    job = make_job(tmp_path, skip=skip)
    report = run_job(job, num_workers=2, progress=False)
    assert sorted(job.start_worker.blocks()) == [*range(9), *range(18, 27)]
    assert (report.blocks_done, report.blocks_skipped, report.voxels) == (18, 9, 6 * 12 * 14)
    assert not job.start_worker.result()[4:8].any()
    # Skipped blocks are not marked as done: without the mask they are done now, and only they.
    report = run_job(make_job(tmp_path), num_workers=2, progress=False)
    assert (report.blocks_done, report.blocks_resumed) == (9, 18)
    np.testing.assert_array_equal(job.start_worker.result(), pattern(job.grid.total_roi))
    assert run_in_process(make_job(tmp_path, skip=~skip)).blocks_done == 9


def test_a_job_whose_blocks_are_all_skipped_does_nothing(tmp_path):
    job = make_job(tmp_path, skip=np.ones((3, 3, 3), bool))
    report = run_job(job, num_workers=2, progress=False)
    assert (report.blocks_done, report.blocks_skipped) == (0, 27)
    assert job.start_worker.blocks() == []


def test_there_are_never_more_workers_than_blocks(tmp_path):
    started = tmp_path / "started"

    def start_worker():
        with started.open("a") as file:
            file.write("x")
        return lambda block: None

    grid = Grid(Roi((0, 0, 0), (4, 4, 4)), Coordinate((4, 4, 4)), Coordinate((0, 0, 0)))
    run_job(Job("one", grid, start_worker, {}, tmp_path / "state"), num_workers=8, progress=False)
    assert started.read_text() == "x"


def test_each_worker_starts_once_and_gets_its_share_of_threads(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.endswith("_NUM_THREADS")]:
        monkeypatch.delenv(name)
    seen = tmp_path / "seen"

    def start_worker():
        with seen.open("a") as file:
            file.write(os.environ["OMP_NUM_THREADS"] + os.environ["OPENBLAS_NUM_THREADS"] + " ")
        return lambda block: None

    grid = Grid(Roi((0, 0, 0), (40, 4, 4)), Coordinate((1, 4, 4)), Coordinate((0, 0, 0)))

    def threads(**more):
        seen.unlink(missing_ok=True)
        job = Job("threads", grid, start_worker, {}, tmp_path / "state", **more)
        run_job(job, num_workers=1, progress=False)
        finish(job)
        return seen.read_text()

    cores = str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    assert threads() == cores * 2 + " "
    assert threads(threads_per_worker=3) == "33 "
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert threads() == "55 "
    assert threads(threads_per_worker=1) == "11 "
    assert os.environ["OMP_NUM_THREADS"] == "5"
    assert "OPENBLAS_NUM_THREADS" not in os.environ


def test_a_job_runs_in_a_thread_and_leaves_the_process_as_it_was(tmp_path, capfd):
    streams, environment = (sys.stdout, sys.stderr), dict(os.environ)
    reports = []
    job = make_job(tmp_path)
    thread = threading.Thread(target=lambda: reports.append(run_job(job, num_workers=1, progress=False)))
    thread.start()
    thread.join()
    assert reports[0].blocks_done == 27
    assert (sys.stdout, sys.stderr) == streams
    assert dict(os.environ) == environment
    assert not (tmp_path / "daisy_logs").exists()
    assert capfd.readouterr() == ("", "")


def test_what_workers_print_goes_to_the_logs(tmp_path, capfd):
    def start_worker():
        print("opened the model")
        return lambda block: None

    grid = Grid(Roi((0, 0, 0), (4, 4, 4)), Coordinate((4, 4, 4)), Coordinate((0, 0, 0)))
    report = run_job(Job("p", grid, start_worker, {}, tmp_path / "s"), num_workers=1, progress=False)
    assert capfd.readouterr() == ("", "")
    assert "opened the model" in "".join(p.read_text() for p in report.log_dir.rglob("*.out"))


@pytest.mark.parametrize("num_workers", [0, -1])
def test_a_senseless_number_of_workers_is_refused(tmp_path, num_workers):
    with pytest.raises(ConfigError, match=f"is {num_workers}; allowed: 1 or more"):
        run_job(make_job(tmp_path), num_workers=num_workers)


@pytest.mark.parametrize(
    "more",
    [{"skip": np.zeros((2, 2, 2), bool)}, {"block_timeout_s": 0.0}, {"threads_per_worker": 0}],
)
def test_senseless_settings_of_a_job_are_refused(tmp_path, more):
    with pytest.raises(ConfigError, match="allowed"):
        make_job(tmp_path, **more)


def test_a_worker_that_cannot_start_says_why_at_once(tmp_path):
    def start_worker():
        raise DataError("raw.zarr has no dataset 'raw'")

    grid = Grid(Roi((0, 0, 0), (40, 4, 4)), Coordinate((4, 4, 4)), Coordinate((0, 0, 0)))
    with pytest.raises(FailedBlocksError, match=r"could not start(.|\n)*raw.zarr has no dataset 'raw'"):
        run_job(Job("p", grid, start_worker, {}, tmp_path / "s"), num_workers=2, progress=False)


def test_odd_names_and_paths_work(tmp_path):
    folder = tmp_path / "a=b:c d, ümläut"
    folder.mkdir()
    grid = Grid(Roi((0, 0, 0), (4, 4, 4)), Coordinate((4, 4, 4)), Coordinate((0, 0, 0)))
    job = Job("../odd: name=1", grid, lambda: lambda block: None, {}, folder / "state")
    assert run_job(job, num_workers=1, progress=False).blocks_done == 1
    assert {p.name for p in folder.iterdir()} == {"state"}
