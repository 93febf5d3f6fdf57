"""Too little memory for a tile: smaller tiles, the same result, and a warning that the user sees."""

import logging
import math
import resource
import sys
from dataclasses import dataclass

import cloudpickle
import numpy as np
import pytest
import torch

from incasem.blockwise import Grid, Job, run_job
from incasem.geometry import Coordinate, Roi
from incasem.networks import InferenceNetwork, save_checkpoint
from incasem.prediction import AlignedTiling, Predictor, PublishedTiling
from incasem.prediction.memory import is_lost_device, is_out_of_memory
from incasem.prediction.outputs import OutputSet
from incasem.prediction.worker import PredictionWorker
from incasem.tasks.semantic import Semantic
from incasem.volumes import create_volume, open_volume

cloudpickle.register_pickle_by_value(sys.modules[__name__])

ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: you …"),
    MemoryError(),
]


@pytest.fixture
def limited(monkeypatch):
    """Lets the network fail for inputs above a number of voxels; records the sizes that it took."""

    def limit(voxels, error):
        taken, call = [], InferenceNetwork.__call__

        def __call__(self, raw):
            if math.prod(raw.shape) > voxels:
                raise error
            taken.append(tuple(raw.shape[2:]))
            return call(self, raw)

        monkeypatch.setattr(InferenceNetwork, "__call__", __call__)
        return taken

    return limit


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_tiles_are_halved_until_they_fit_and_stay_so(network, memory_raw, reference, limited, error, caplog):
    raw = memory_raw(np.random.default_rng(0).integers(0, 256, (40, 44, 50), dtype=np.uint8))
    roi = Roi((3, 1, 2), (30, 40, 47))
    expected = reference(network, raw, roi)
    predictor = Predictor(network, "cpu", "fp32", tiling=AlignedTiling(network))
    smallest = math.prod(network.smallest_input)
    taken = limited(3 * smallest, error)

    with caplog.at_level(logging.WARNING):
        found = predictor.probabilities(raw, roi)

    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    assert len(taken) > 1
    assert "out of memory on cpu: tiles of 30×40×47 voxels are halved" in caplog.text
    caplog.clear()
    predictor.probabilities(raw, roi)
    assert not caplog.records, "the smaller tiles are kept"


def test_where_not_even_the_smallest_tile_fits_the_error_comes_through(network, memory_raw, limited):
    limited(math.prod(network.smallest_input) - 1, ERRORS[0])
    predictor = Predictor(network, "cpu", "fp32")
    with pytest.raises(torch.OutOfMemoryError):
        predictor.logits(memory_raw(np.zeros((30, 30, 30), np.uint8)), Roi((0, 0, 0), (30, 30, 30)))


def test_other_errors_are_not_taken_for_a_lack_of_memory(network, memory_raw, limited):
    limited(0, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="mat1"):
        Predictor(network, "cpu", "fp32").logits(
            memory_raw(np.zeros((9, 9, 9), np.uint8)), Roi((0, 0, 0), (9, 9, 9))
        )


def test_the_published_tiling_cannot_be_halved(network, memory_raw, limited):
    size = (40, 60, 60)
    tiling = PublishedTiling(network, Roi((0, 0, 0), size), size, network.output_shape(size))
    limited(0, ERRORS[0])
    with pytest.raises(torch.OutOfMemoryError):
        Predictor(network, "cpu", "fp32", tiling=tiling).logits(
            memory_raw(np.zeros(size, np.uint8)), Roi((0, 0, 0), size)
        )


def test_halving_always_comes_to_the_smallest_tile(network, make_network):
    for net in (network, make_network(num_fmaps=1, downsample_factors=((2, 2, 2),) * 3)):
        tiling, roi = AlignedTiling(net), Roi((5, -3, 2), (70, 41, 55))
        for _ in range(60):
            tile = max(tiling.tiles(roi), key=lambda tile: math.prod(tile.input_roi.shape))
            if tiling.is_smallest(tile):
                break
            smaller = tiling.halved(tile)
            largest = max(math.prod(t.input_roi.shape) for t in smaller.tiles(tile.keep_roi))
            assert largest < math.prod(tile.input_roi.shape)
            tiling = smaller
        assert tiling.is_smallest(tile)


def test_what_is_an_error_of_memory_and_what_of_the_device():
    assert all(is_out_of_memory(error) for error in ERRORS)
    assert not any(is_lost_device(error) for error in ERRORS)
    gone = RuntimeError("CUDA error: unspecified launch failure")
    assert is_lost_device(gone)
    assert not is_out_of_memory(gone)
    assert not is_lost_device(ValueError("CUDA error"))


@dataclass(frozen=True)
class WithLessMemory:
    """A worker whose process may not take more than some bytes beyond what it has after its start."""

    worker: PredictionWorker
    more_bytes: int

    def __call__(self):
        torch.set_num_threads(1)
        function = self.worker()
        small = Grid(Roi((0, 0, 0), (4, 4, 4)), Coordinate(4, 4, 4)).block(0)
        function.compute(small, function.read(small))  # starts the threads, whose stacks take memory as well
        with open("/proc/self/statm") as file:
            now = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + self.more_bytes,) * 2)
        return function


@pytest.fixture
def job(tmp_path, make_network, small_model):
    """A worker for one block of 128³; its one tile takes 650 MB."""
    shape = (128, 128, 128)
    raw = create_volume(
        tmp_path / "cell.zarr/raw", shape=shape, dtype=np.uint8, voxel_size=(5, 5, 5), chunk_shape=shape
    )
    raw.write_voxels(raw.roi_voxels, np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    save_checkpoint(tmp_path / "checkpoint", make_network(num_fmaps=16), None, {})
    outputs = OutputSet(
        tmp_path / "cell.zarr/prediction", raw.roi_voxels, (5.0, 5.0, 5.0), Semantic(2), "uint8"
    )

    def make(more_bytes):
        worker = PredictionWorker(
            model=small_model | {"num_fmaps": 16}, checkpoint=tmp_path / "checkpoint", devices=["cpu"],
            precision="fp32", tile_shape=Coordinate(128, 128, 128), published=None, raw=raw, mask=None,
            outputs=outputs.open(), task=outputs.task, output_dtype="uint8",
        )  # fmt: skip
        grid = Grid(raw.roi_voxels, Coordinate(128, 128, 128))
        return Job("predict", grid, WithLessMemory(worker, more_bytes), {}, tmp_path / "state")

    return make


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the size of the process from Linux's /proc")
def test_a_process_that_may_have_no_more_memory_goes_on_with_smaller_tiles(
    job, tmp_path, make_network, memory_raw, reference, caplog
):
    with caplog.at_level(logging.WARNING):
        report = run_job(job(550_000_000), num_workers=1, progress=False)

    assert report.blocks_done == 1
    assert "out of memory on cpu: tiles of 128×128×128 voxels are halved" in caplog.text
    raw = open_volume(tmp_path / "cell.zarr/raw")
    network = make_network(num_fmaps=16)
    expected = reference(network, memory_raw(raw.read_voxels(raw.roi_voxels)), raw.roi_voxels)
    stored = open_volume(tmp_path / "cell.zarr/prediction/prob_maps/class_1")
    values = stored.read_voxels(stored.roi_voxels)
    np.testing.assert_allclose(values, expected[1] * 255, rtol=0, atol=0.5 + 1e-3)
