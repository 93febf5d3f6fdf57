"""What a worker reads, and how it takes the loss of its device."""

import math
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from incasem.blockwise import Grid, Job, run_in_process, run_job, worker_slot
from incasem.errors import DataError, FailedBlocksError
from incasem.geometry import Coordinate, Roi
from incasem.networks import InferenceNetwork, save_checkpoint
from incasem.prediction import Device, Planner
from incasem.prediction.outputs import OutputSet
from incasem.prediction.worker import PredictionWorker
from incasem.tasks.semantic import Semantic
from incasem.volumes import create_volume, open_volume

cloudpickle.register_pickle_by_value(sys.modules[__name__])

SHAPE = (70, 66, 90)
ROI = Roi((3, 0, 5), (66, 64, 80))
"""Off the stride grid; two blocks of 64 along z and x."""


class CountingRaw:
    """Counts what is read of a volume."""

    def __init__(self, volume):
        self._volume = volume
        self.reads = []

    def read_voxels(self, roi, **options):
        self.reads.append(roi)
        return self._volume.read_voxels(roi, **options)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, network, small_model):
    """A volume, a checkpoint, and a worker without outputs."""
    folder = tmp_path_factory.mktemp("worker")
    raw = create_volume(
        folder / "cell.zarr/raw", shape=SHAPE, dtype=np.uint8, voxel_size=(5, 5, 5), chunk_shape=(32, 32, 32)
    )
    raw.write_voxels(raw.roi_voxels, np.random.default_rng(0).integers(0, 256, SHAPE, dtype=np.uint8))
    save_checkpoint(folder / "checkpoint", network, None, {})
    return PredictionWorker(
        model=small_model, checkpoint=folder / "checkpoint", devices=["cpu"], precision="fp32",
        tile_shape=Coordinate(80, 80, 80), published=None, raw=raw, mask=None, outputs={},
        task=Semantic(2), output_dtype="float32",
    )  # fmt: skip


def with_outputs(worker, folder, roi=ROI):
    outputs = OutputSet(folder / "out.zarr/prediction", roi, (5.0, 5.0, 5.0), Semantic(2), "float32")
    return replace(worker, outputs=outputs.open())


def job_of(worker, folder, roi=ROI, block=(64, 64, 64)):
    grid = Grid(roi, Coordinate(block))
    return Job("predict", grid, worker, {}, folder / "state")


def stored(folder, name="prob_maps/class_1"):
    volume = open_volume(folder / "out.zarr/prediction" / name)
    return volume.read_voxels(volume.roi_voxels)


@pytest.fixture(scope="module")
def probabilities(prepared, network, memory_raw, reference):
    raw = prepared.raw.read_voxels(prepared.raw.roi_voxels)
    return reference(network, memory_raw(raw), ROI)


def matches(folder, probabilities):
    np.testing.assert_allclose(stored(folder), probabilities[1], rtol=0, atol=1e-6)
    return True


@settings(deadline=None, max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(units=st.tuples(*[st.integers(1, 2)] * 3), tile=st.tuples(*[st.integers(20, 90)] * 3))
def test_exactly_the_voxels_of_the_plan_are_read(units, tile, prepared, network, tmp_path_factory):
    folder = tmp_path_factory.mktemp("count")
    block = Coordinate(64 * unit for unit in units)
    planner = Planner(network, Device("cpu", 4, 64 << 30), ROI, (64, 64, 64))
    plan = planner._evaluate(Coordinate(min(b, 128) for b in block), 1, Coordinate(tile))[1]
    raw = CountingRaw(prepared.raw)
    worker = replace(with_outputs(prepared, folder), raw=raw, tile_shape=Coordinate(tile))
    run_in_process(job_of(worker, folder, block=block))

    assert sum(math.prod(roi.shape) for roi in raw.reads) == plan.voxels_read
    assert len(raw.reads) == plan.num_blocks, "each block reads once, whatever its tiles"


def test_blocks_overlap_in_a_worker_and_give_one_pass(prepared, tmp_path, probabilities):
    run_job(job_of(with_outputs(prepared, tmp_path), tmp_path), num_workers=1, progress=False)
    assert matches(tmp_path, probabilities)


@dataclass(frozen=True)
class Recorded:
    """A worker that writes down slot and device."""

    worker: PredictionWorker
    folder: Path

    def __call__(self):
        function = self.worker()
        with (self.folder / "devices").open("a") as file:
            file.write(f"{worker_slot()} {function._device}\n")
        return function


def test_each_of_several_workers_takes_a_device_of_its_own(prepared, tmp_path, probabilities):
    worker = replace(with_outputs(prepared, tmp_path), devices=["cpu", "cpu:0"])
    job = job_of(Recorded(worker, tmp_path), tmp_path)
    run_job(job, num_workers=2, progress=False)

    assert sorted((tmp_path / "devices").read_text().splitlines()) == ["0 cpu", "1 cpu:0"]
    assert matches(tmp_path, probabilities)


@dataclass(frozen=True)
class LosesDevice:
    """A worker whose network raises as CUDA does when a device is gone: for good, or once."""

    worker: PredictionWorker
    folder: Path
    times: int

    def __call__(self):
        with (self.folder / "starts").open("a") as file:
            file.write("x")
        function, call = self.worker(), InferenceNetwork.__call__
        calls = []

        def __call__(network, raw):
            calls.append(None)
            if len(calls) == 2 and len((self.folder / "starts").read_text()) <= self.times:
                raise RuntimeError("CUDA error: unspecified launch failure")
            return call(network, raw)

        InferenceNetwork.__call__ = __call__
        return function


def test_a_device_that_comes_back_costs_a_new_worker(prepared, tmp_path, probabilities):
    worker = LosesDevice(with_outputs(prepared, tmp_path), tmp_path, times=1)
    report = run_job(job_of(worker, tmp_path), num_workers=1, progress=False)

    assert report.blocks_done == 4
    assert (tmp_path / "starts").read_text() == "xx"
    assert matches(tmp_path, probabilities)


@pytest.mark.slow
def test_a_device_that_is_gone_for_good_is_named(prepared, tmp_path, probabilities):
    # One block a worker's life: some blocks are done, but each that comes second is lost three times.
    worker = LosesDevice(with_outputs(prepared, tmp_path), tmp_path, times=99)
    with pytest.raises(FailedBlocksError, match="the device cpu was lost: CUDA error") as info:
        run_job(job_of(worker, tmp_path), num_workers=1, progress=False)
    assert "same command again" in str(info.value)

    run_job(job_of(with_outputs(prepared, tmp_path), tmp_path), num_workers=1, progress=False)
    assert matches(tmp_path, probabilities)


def test_a_chunk_that_cannot_be_read_is_named_and_the_next_run_completes(prepared, tmp_path, probabilities):
    source = prepared.raw.read_voxels(prepared.raw.roi_voxels)
    raw = create_volume(
        tmp_path / "cell.zarr/raw", shape=SHAPE, dtype=np.uint8, voxel_size=(5, 5, 5), chunk_shape=(32,) * 3
    )
    raw.write_voxels(raw.roi_voxels, source)
    chunk = tmp_path / "cell.zarr/raw/2/2/2"
    whole = chunk.read_bytes()
    chunk.write_bytes(whole[: len(whole) // 2])
    worker = replace(with_outputs(prepared, tmp_path), raw=open_volume(tmp_path / "cell.zarr/raw"))
    with pytest.raises(FailedBlocksError, match=r"of 4 blocks failed(.|\n)*chunk file .*raw/2/2/2"):
        run_job(job_of(worker, tmp_path), num_workers=1, progress=False)

    chunk.write_bytes(whole)
    run_job(job_of(worker, tmp_path), num_workers=1, progress=False)
    assert matches(tmp_path, probabilities)


@dataclass(frozen=True)
class FullDisk:
    """A worker whose process can write no file larger than some bytes, as on a disk with no room left."""

    worker: PredictionWorker
    most_bytes: int

    def __call__(self):
        import resource
        import signal

        function = self.worker()
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then writing fails with EFBIG
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.most_bytes,) * 2)
        return function


def test_a_full_disk_is_named_and_the_next_run_completes(prepared, tmp_path, probabilities):
    worker = with_outputs(prepared, tmp_path)
    with pytest.raises(FailedBlocksError, match=r"blocks failed(.|\n)*cannot be written(.|\n)*free space"):
        run_job(job_of(FullDisk(worker, 20_000), tmp_path), num_workers=1, progress=False)

    run_job(job_of(worker, tmp_path), num_workers=1, progress=False)
    assert matches(tmp_path, probabilities)


def test_the_mask_saves_reading_where_it_is_empty(prepared, tmp_path):
    mask = create_volume(
        tmp_path / "cell.zarr/mask", shape=SHAPE, dtype=np.uint8, voxel_size=(5, 5, 5), chunk_shape=(32,) * 3
    )
    inside = np.zeros(SHAPE, np.uint8)
    inside[:60, :60, :60] = 1
    mask.write_voxels(mask.roi_voxels, inside)
    raw = CountingRaw(prepared.raw)
    run_in_process(job_of(replace(with_outputs(prepared, tmp_path), raw=raw, mask=mask), tmp_path))

    assert len(raw.reads) == 1
    assert not stored(tmp_path)[inside[ROI.to_slices()] == 0].any()


def test_raw_data_of_a_wrong_range_fail_where_they_are_read(prepared, tmp_path):
    values = np.full(SHAPE, 3.0, np.float32)
    raw = create_volume(tmp_path / "cell.zarr/raw", shape=SHAPE, dtype=np.float32, voxel_size=(5, 5, 5))
    raw.write_voxels(raw.roi_voxels, values)
    with pytest.raises(DataError, match="allowed: 0 to 1"):
        run_in_process(job_of(replace(with_outputs(prepared, tmp_path), raw=raw), tmp_path))
