"""Prediction with the published U-Net (random weights), Zarr to Zarr on the processor, against its old way.

``python -m benchmarks.prediction --size 256`` predicts a cube of that side by the job that `incasem predict`
runs. The baseline is gunpowder's Scan over 204³ → 110³ tiles in float32, with the same network on a corner of
the same data; it is counted by the voxels that it emits, so its empty shell does not count against it.
"""

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.table import Row, as_markdown

ORIGIN = 1
"""The volume begins one voxel from the origin: the first published tile (context 47) then lies on the stride
grid, and the two results can be compared there."""


def main(size: int = 256, tiles: int = 1, precision: str = "auto", threads: int | None = None) -> list[Row]:
    """Measure both and check that they agree where they can.

    Args:
        size: side of our cube, voxels, at least 204.
        tiles: tiles of the baseline.
        precision: setting of ours.
        threads: of torch in the baseline; None: all cores, which is what our worker uses.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as directory:
        return _measure(Path(directory), size, tiles, precision)


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


def _measure(directory: Path, size: int, tiles: int, precision: str) -> list[Row]:
    from benchmarks.published_scan import OUTPUT, scan
    from incasem.blockwise import Block
    from incasem.config import DataEntry, load_prediction_config
    from incasem.geometry import Roi
    from incasem.networks import Unet, save_checkpoint
    from incasem.prediction import Predictor, predict_entries
    from incasem.prediction.outputs import OutputSet
    from incasem.prediction.tiling import AlignedTiling
    from incasem.prediction.worker import PredictionWorker
    from incasem.volumes import create_volume, open_volume

    file = directory / "cell.zarr"
    extent = (max(size, 204), max(size, 204), max(size, 204 + (tiles - 1) * OUTPUT))
    raw = create_volume(
        file / "volumes/raw", shape=extent, dtype=np.uint8, voxel_size=(5, 5, 5), offset_nm=(5 * ORIGIN,) * 3
    )
    rng = np.random.default_rng(0)
    raw.write_voxels(raw.roi_voxels, rng.integers(0, 256, extent, dtype=np.uint8))
    torch.manual_seed(0)
    network = Unet()
    save_checkpoint(directory / "model_checkpoint_1", network, None, {})

    with _Watch() as plain:
        scan(raw, network, tiles, directory / "published.zarr")

    entry = DataEntry(
        "cell", file, (5.0, 5.0, 5.0), (ORIGIN,) * 3, (size,) * 3, "volumes/raw", file_as_given=file.name
    )
    settings = {"torch.device": "cpu", "precision": precision, "output_dtype": "float32"}
    overrides = [f"prediction.{key}={json.dumps(value)}" for key, value in settings.items()]
    config = load_prediction_config(None, [*overrides, f"directories.data={directory}"])
    with _Watch() as ours:
        (result,) = predict_entries(
            config, [entry], checkpoint=directory / "model_checkpoint_1", output_group="prediction",
            progress=False,
        )  # fmt: skip

    first = Roi((ORIGIN + 47,) * 3, (OUTPUT,) * 3)
    stored = open_volume(result.prob_maps[1]).read_voxels(first)
    published = open_volume(directory / "published.zarr/prob_maps/class_1").read_voxels(first)
    difference = float(np.abs(stored - published).max())
    assert difference < 0.02, f"the two predictions disagree by {difference}"

    plan = result.plan
    block = Roi((ORIGIN,) * 3, [min(b, size) for b in plan.block_shape])
    outputs = OutputSet(directory / "again.zarr", block, (5.0, 5.0, 5.0), 2, "float32")
    worker = PredictionWorker(
        model={}, checkpoint=directory / "model_checkpoint_1", devices=["cpu"], precision=precision,
        tile_shape=plan.tile_shape, published=None, raw=open_volume(file / "volumes/raw"), mask=None,
        outputs=outputs.open(), output_dtype="float32",
    )  # fmt: skip
    predict_block = worker()
    with _Watch() as in_worker:
        predict_block(Block(0, block, block))
    predictor = Predictor(network, "cpu", precision, tiling=AlignedTiling(network, plan.tile_shape))
    inputs = [tile.input_roi.shape for tile in predictor.tiling.tiles(block)]
    values = [rng.random((1, 1, *shape), np.float32) * 2 - 1 for shape in inputs]
    with _Watch() as bare:
        for value in values:
            predictor.network(value)

    arithmetic = str(predictor.network.precision).removeprefix("torch.")
    name = f"published U-Net, {size}³, {arithmetic}"
    emitted = tiles * OUTPUT**3 / 1e6
    tiles_of_old = "204³ → 110³"
    return [
        Row(
            f"{name}, Zarr to Zarr, start-up included",
            size**3 / 1e6 / ours.seconds, "Mvoxel/s", emitted / plain.seconds, "gunpowder Scan, float32",
        ),
        Row(
            f"{name}, the same by CPU time",
            size**3 / 1e6 / ours.cpu_seconds, "Mvoxel/CPU-s", emitted / plain.cpu_seconds,
            "gunpowder Scan, float32",
        ),
        Row(
            f"one block of {'×'.join(map(str, block.shape))} in a worker, CPU time",
            in_worker.cpu_seconds, "s", bare.cpu_seconds, "the network alone, in memory", True,
        ),
        Row("largest difference of a probability from float32", difference, ""),
        Row("FLOP overhead of the planned blocks", plan.flop_overhead, "×", 2.28, tiles_of_old, True),
        Row("read overhead of the planned blocks", plan.read_overhead, "×", 6.38, tiles_of_old, True),
    ]  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=256, help="side of our cube, voxels (default 256)")
    parser.add_argument("--tiles", type=int, default=1, help="tiles of the baseline (default 1)")
    parser.add_argument("--precision", default="auto", help="of ours: auto, fp32, bf16 (default auto)")
    options = parser.parse_args()
    print(as_markdown(main(options.size, options.tiles, options.precision)))
