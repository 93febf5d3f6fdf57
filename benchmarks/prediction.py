"""Prediction with the published U-Net (random weights), Zarr to Zarr on the processor, against its old way.

``python -m benchmarks.prediction --size 256`` predicts a cube of that side by the job that `incasem predict`
runs. The baseline is gunpowder's Scan over 204³ → 110³ tiles in float32, with the same network on a corner of
the same data; it is counted by the voxels that it emits, so its empty shell does not count against it.
"""

import argparse
import importlib.util
import json
import resource
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
import torch

from benchmarks.table import Row, as_markdown

if TYPE_CHECKING:
    from incasem.prediction import EntryPrediction
    from incasem.prediction.plan import PredictionPlan

ORIGIN = 1
"""The volume begins one voxel from the origin: the first published tile (context 47) then lies on the stride
grid, and the two results can be compared there."""
SCAN = "gunpowder Scan, float32"
TILES_OF_OLD = "204³ → 110³"
PUBLISHED_FMAPS = 32
LARGE = 1024
"""Edge of the cube that is only planned, voxels."""
WAYS = {
    "best arithmetic of this machine": {},
    "float32": {"precision": "fp32"},
    "OpenVINO": {"backend": "openvino"},
}


def main(
    size: int = 256,
    tiles: int = 1,
    threads: int | None = None,
    num_fmaps: int = PUBLISHED_FMAPS,
    turns: int = 5,
) -> list[Row]:
    """Measure the baseline and ours, and check that they agree where they can.

    Args:
        size: side of our cube, voxels, at least 204.
        tiles: tiles of the baseline.
        threads: of torch in the baseline; None: all cores, which is what our worker uses.
        num_fmaps: feature maps of the network; 32 as published, fewer to try the benchmark itself.
        turns: of the worker and the bare network, which are compared.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    ways = dict(WAYS)
    if importlib.util.find_spec("openvino") is None:
        del ways["OpenVINO"]
        print(
            "OpenVINO is not installed, and so not measured: pip install 'incasem[openvino]'", file=sys.stderr
        )
    with tempfile.TemporaryDirectory() as directory:
        cell = _Cell(Path(directory), size, tiles, num_fmaps)
        rows = []
        for name, settings in ways.items():
            rows += cell.rows_of_way(name, settings)
        return [*rows, cell.row_of_worker(turns), *cell.rows_of_plan(), cell.row_of_outputs()]


class _Watch:
    """Wall and CPU seconds of a `with` block, those of ended child processes included."""

    def __enter__(self) -> "_Watch":
        self._wall, self._cpu = time.perf_counter(), _cpu_seconds()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._wall
        self.cpu_seconds = _cpu_seconds() - self._cpu


def _cpu_seconds() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


@dataclass
class _Cell:
    """Data, network and what was predicted of them."""

    directory: Path
    size: int
    tiles: int
    num_fmaps: int

    def __post_init__(self) -> None:
        from benchmarks.published_scan import OUTPUT
        from incasem.networks import Unet, save_checkpoint
        from incasem.volumes import create_volume

        self.plans: list[PredictionPlan] = []
        least = (204, 204, 204 + (self.tiles - 1) * OUTPUT)
        extent = tuple(max(self.size, edge) for edge in least)
        self.file, self.emitted = self.directory / "cell.zarr", self.tiles * OUTPUT**3
        self.raw = create_volume(
            self.file / "volumes/raw", shape=extent, dtype=np.uint8, voxel_size=(5, 5, 5),
            offset_nm=(5 * ORIGIN,) * 3,
        )  # fmt: skip
        rng = np.random.default_rng(0)
        self.raw.write_voxels(self.raw.roi_voxels, rng.integers(0, 256, extent, dtype=np.uint8))
        torch.manual_seed(0)
        self.network = Unet(num_fmaps=self.num_fmaps)
        self.checkpoint = self.directory / "model_checkpoint_1"
        save_checkpoint(self.checkpoint, self.network, None, {})

    @cached_property
    def scan(self) -> _Watch:
        """Time of the baseline."""
        from benchmarks.published_scan import scan

        with _Watch() as watch:
            scan(self.raw, self.network, self.tiles, self.directory / "published.zarr")
        return watch

    def predict(self, name: str, settings: dict[str, str]) -> tuple["EntryPrediction", _Watch]:
        """Predict the cube as `incasem predict` does; probabilities in float32, to be compared."""
        from incasem.config import DataEntry, load_prediction_config
        from incasem.prediction import predict_entries

        entry = DataEntry(
            "cell", self.file, (5.0, 5.0, 5.0), (ORIGIN,) * 3, (self.size,) * 3, "volumes/raw",
            file_as_given=self.file.name,
        )  # fmt: skip
        settings = {"torch.device": "cpu", "output_dtype": "float32", **settings}
        overrides = [f"prediction.{key}={json.dumps(value)}" for key, value in settings.items()]
        config = load_prediction_config(
            None, [*overrides, f"directories.data={self.directory}", f"model.num_fmaps={self.num_fmaps}"]
        )
        with _Watch() as watch:
            (result,) = predict_entries(
                config,
                [entry],
                checkpoint=self.checkpoint,
                output_group=name.replace(" ", "_"),
                progress=False,
            )
        self.plans.append(result.plan)
        return result, watch

    def rows_of_way(self, name: str, settings: dict[str, str]) -> list[Row]:
        """Return speed by both clocks, and the largest difference of a probability from the baseline."""
        from benchmarks.published_scan import OUTPUT
        from incasem.geometry import Roi
        from incasem.volumes import open_volume

        scan, (result, ours) = self.scan, self.predict(name, settings)
        first = Roi((ORIGIN + 47,) * 3, (OUTPUT,) * 3)
        stored = open_volume(result.others[1]).read_voxels(first)
        published = open_volume(self.directory / "published.zarr/prob_maps/class_1").read_voxels(first)
        difference = float(np.abs(stored - published).max())
        assert difference < 0.02, f"the two predictions disagree by {difference}"
        voxels, emitted = self.size**3 / 1e6, self.emitted / 1e6
        network = (
            "published U-Net" if self.num_fmaps == PUBLISHED_FMAPS else f"U-Net of {self.num_fmaps} maps"
        )
        what = f"{network}, {self.size}³, {name}"
        return [
            Row(
                f"{what}, Zarr to Zarr, start-up included",
                voxels / ours.seconds, "Mvoxel/s", emitted / scan.seconds, SCAN,
            ),
            Row(
                f"{what}, by CPU time",
                voxels / ours.cpu_seconds, "Mvoxel/CPU-s", emitted / scan.cpu_seconds, SCAN,
            ),
            Row(f"{what}, largest difference of a probability", difference, ""),
        ]  # fmt: skip

    def row_of_worker(self, turns: int) -> Row:
        """Return what a block costs in a worker, against the network alone on data in memory.

        The two take turns, and the first of each does not count: it makes the kernels.
        """
        from incasem.blockwise import Grid
        from incasem.geometry import Roi
        from incasem.prediction import Predictor
        from incasem.prediction.outputs import OutputSet
        from incasem.prediction.tiling import AlignedTiling
        from incasem.prediction.worker import PredictionWorker
        from incasem.tasks.semantic import Semantic

        plan = self.plans[0]
        block = Roi((ORIGIN,) * 3, [min(b, self.size) for b in plan.block_shape])
        outputs = OutputSet(self.directory / "again.zarr", block, (5.0, 5.0, 5.0), Semantic(2), "uint8")
        worker = PredictionWorker(
            model={"num_fmaps": self.num_fmaps}, checkpoint=self.checkpoint, devices=["cpu"],
            precision="auto",
            tile_shape=plan.tile_shape, published=None, raw=self.raw, mask=None,
            outputs=outputs.open(), task=outputs.task, output_dtype="uint8",
        )  # fmt: skip
        predict_block = worker()
        tiling = AlignedTiling(self.network, plan.tile_shape)
        predictor = Predictor(self.network, "cpu", tiling=tiling)
        rng = np.random.default_rng(0)
        inputs = [tile.input_roi.shape for tile in tiling.tiles(block)]
        values = [rng.random((1, 1, *shape), np.float32) * 2 - 1 for shape in inputs]
        in_worker, bare = [], []
        for _ in range(1 + turns):
            with _Watch() as watch:
                predict_block(Grid(block, block.shape).block(0))
            in_worker.append(watch.cpu_seconds)
            with _Watch() as watch:
                for value in values:
                    predictor.network(value)
            bare.append(watch.cpu_seconds)
        return Row(
            f"one block of {'×'.join(map(str, block.shape))} in a worker, CPU time, median of {turns}",
            median(in_worker[1:]), "s", median(bare[1:]), "the network alone, in memory", True,
        )  # fmt: skip

    def rows_of_plan(self) -> list[Row]:
        """Return what the plans for this cube and for a large one add to the least work."""
        from benchmarks.published_scan import INPUT, OUTPUT
        from incasem.prediction.cost import NetworkCost

        cost = NetworkCost(self.network)
        rows = []
        for size, plan in ((self.size, self.plans[0]), (LARGE, self._plan_of_large())):
            least = cost.flops_per_voxel() * size**3
            tile = cost.call((INPUT,) * 3).flops / (cost.flops_per_voxel() * OUTPUT**3)
            rows += [
                Row(
                    f"operations planned for {size}³, over those of the published network in one pass",
                    plan.flops / least, "×", tile, TILES_OF_OLD, True,
                ),
                Row(
                    f"voxels read for {size}³, over those written",
                    plan.read_overhead, "×", (INPUT / OUTPUT) ** 3, TILES_OF_OLD, True,
                ),
            ]  # fmt: skip
        return rows

    def _plan_of_large(self) -> "PredictionPlan":
        from incasem.geometry import Coordinate, Roi
        from incasem.networks import choose_precision
        from incasem.prediction.plan import Device, Planner

        cpu = torch.device("cpu")
        device = Device.of(cpu, choose_precision("auto", cpu))
        return Planner(self.network, device, Roi((0, 0, 0), (LARGE,) * 3), Coordinate((64,) * 3)).plan()

    def row_of_outputs(self) -> Row:
        """Return what the default outputs take before compression."""
        from incasem.geometry import Roi
        from incasem.prediction.outputs import OutputSet
        from incasem.tasks.semantic import Semantic

        roi = Roi((0, 0, 0), (self.size,) * 3)
        outputs = OutputSet(self.directory / "sizes.zarr", roi, (5.0, 5.0, 5.0), Semantic(2), "uint8")
        stored = sum(volume.dtype.itemsize for volume in outputs.open().values())
        published = "uint32 classes, float32 probabilities"
        return Row("outputs of two classes, not compressed", stored, "bytes/voxel", 12, published, True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=256, help="side of our cube, voxels (default 256)")
    parser.add_argument("--tiles", type=int, default=1, help="tiles of the baseline (default 1)")
    parser.add_argument("--num_fmaps", type=int, default=32, help="feature maps of the network (default 32)")
    parser.add_argument("--turns", type=int, default=5, help="of worker and network, compared (default 5)")
    options = parser.parse_args()
    print(as_markdown(main(options.size, options.tiles, num_fmaps=options.num_fmaps, turns=options.turns)))
