"""Training samples with the published augmentation, against gunpowder's own nodes in the published order.

``python -m benchmarks.feed --samples 10`` makes samples of 204³ → 110³ from a stored volume of smooth tissue,
in this process, and counts CPU seconds. Both pipelines read by the same source and location nodes.
"""

import argparse
import tempfile
import time
import warnings
from collections.abc import Collection
from pathlib import Path

import numpy as np
from scipy import ndimage

from benchmarks.table import Row, as_markdown
from incasem.config import DataEntry, TrainingConfig
from incasem.geometry import Coordinate, Roi
from incasem.training._gunpowder import gp
from incasem.training.augmentation import ResampleAugment
from incasem.training.feed import SampleFeed
from incasem.training.locations import Locations, RandomLocation, index_entry
from incasem.training.pipeline import SampleShape, build_pipeline, sample_request
from incasem.training.sources import EVERYWHERE, VOXEL, EntrySource, Keys, VolumeSource, open_entry
from incasem.volumes import create_volume

ARRAYS = (Keys.RAW, Keys.LABELS, Keys.MASK, Keys.METRIC_MASK)
SAMPLED = (*ARRAYS, Keys.LOSS_SCALE)
SHAPE = SampleShape(Coordinate(204, 204, 204), Coordinate(110, 110, 110))


def main(samples: int = 8, size: int = 320, workers: int = 2) -> list[Row]:
    """Measure whole samples, the geometric pass alone, and the feed with workers.

    Args:
        samples: how many of each kind; a first one, which compiles and fills caches, is not counted.
        size: side of the stored volume (voxels).
        workers: processes of the feed.
    """
    config = TrainingConfig()
    with tempfile.TemporaryDirectory() as folder:
        entry = _entry(Path(folder), size)
        source = open_entry(entry, cache_bytes=2**29)
        index = index_entry(source)
        few = max(samples // 4, 2)
        ours = _cpu_seconds(
            build_pipeline([source], [index], config), samples, (*SAMPLED, Keys.BLOCK, Keys.PLACE)
        )
        locations = Locations(source, index, config.training.reject, config.training.sampling)
        published = _cpu_seconds(
            _published(VolumeSource(source) + RandomLocation(locations, 0) + _Block(), config), few, SAMPLED
        )
        memory, augmentation = _Memory(source), config.training.augmentation
        our_pass = _cpu_seconds(memory + ResampleAugment(augmentation, Keys.BLOCK), samples, ARRAYS)
        their_pass = _cpu_seconds(_published_geometry(_Memory(source), config), few, ARRAYS)
        rate = _samples_a_second(entry, config, workers, samples)
    nodes = "gunpowder's nodes"
    alone = "… its flips, transposes and elastic pass alone"
    feed = f"feed, {workers} workers, wall"
    return [
        Row("sample 204³ → 110³, volume to tensors", ours, "CPU-s", published, nodes, less_is_better=True),
        Row(alone, our_pass, "CPU-s", their_pass, nodes, less_is_better=True),
        Row(feed, rate, "samples/s", workers / published, f"{nodes}, {workers} ideal cores"),
    ]


def _entry(folder: Path, size: int) -> DataEntry:
    """Store smooth tissue with noise in the published layout, and labels in its middle; return the entry."""
    rng = np.random.default_rng(0)
    coarse = rng.random((size // 16 + 1,) * 3, np.float32)
    tissue = ndimage.zoom(coarse, 16, order=1)[:size, :size, :size]
    raw = np.clip(tissue * 200 + rng.normal(20, 10, tissue.shape), 0, 255).astype(np.uint8)
    middle = slice(size // 8, size - size // 8)
    labels = (tissue[middle, middle, middle] > 0.6).astype(np.uint32)
    for name, array, begin in (("raw", raw, 0), ("labels", labels, size // 8)):
        volume = create_volume(
            folder / "cell.zarr" / name, shape=array.shape, dtype=array.dtype, voxel_size=(5, 5, 5),
            offset_nm=(begin * 5,) * 3,
        )  # fmt: skip
        volume.write_voxels(volume.roi_voxels, array)
    return DataEntry(
        "cell", folder / "cell.zarr", (5.0, 5.0, 5.0), (size // 8,) * 3, labels.shape, "raw", {"labels": 1}
    )  # fmt: skip


def _published_geometry(pipeline: "gp.Pipeline", config: TrainingConfig) -> "gp.Pipeline":
    augmentation = config.training.augmentation
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        elastic = gp.ElasticAugment(
            augmentation.elastic.control_point_spacing, augmentation.elastic.jitter_sigma, [0, np.pi / 2],
            prob_shift=0.05, max_misalign=2, subsample=augmentation.elastic.subsample,
        )  # fmt: skip
    return (
        pipeline
        + gp.Normalize(Keys.RAW)
        + gp.SimpleAugment(transpose_only=[0, 1, 2])
        + elastic
        + gp.SimpleAugment(transpose_only=[0, 1, 2])
    )


def _published(pipeline: "gp.Pipeline", config: TrainingConfig) -> "gp.Pipeline":
    intensity = config.training.augmentation.intensity
    low, high = 1 - intensity.scale, 1 + intensity.scale
    return (
        _published_geometry(pipeline, config)
        + gp.IntensityAugment(Keys.RAW, low, high, -intensity.shift, intensity.shift)
        + gp.BalanceLabels(Keys.LABELS, Keys.LOSS_SCALE, Keys.MASK, clipmin=0.01, clipmax=0.99)
        + gp.IntensityScaleShift(Keys.RAW, 2, -1)
        + _Contiguous()
    )


class _Block(gp.BatchFilter):
    """Tells the location node which block is meant: what was asked for, as published."""

    def prepare(self, request: "gp.BatchRequest") -> None:
        request[Keys.BLOCK] = gp.ArraySpec(roi=request[Keys.LABELS].roi)

    def process(self, batch: "gp.Batch", request: "gp.BatchRequest") -> None:
        pass


class _Contiguous(gp.BatchFilter):
    """Flipped and transposed arrays are views; a network wants them in order."""

    def process(self, batch: "gp.Batch", request: "gp.BatchRequest") -> None:
        for array in batch.arrays.values():
            array.data = np.ascontiguousarray(array.data)


class _Memory(gp.BatchProvider):
    """The arrays around the middle of an entry from memory, so that reading does not count."""

    def __init__(self, source: EntrySource) -> None:
        self._begin = Coordinate((-200,) * 3)
        roi = Roi(source.roi.center - SHAPE.input // 2 - 200, SHAPE.input + 400)
        self._data = {
            Keys.RAW: source.raw.read_voxels(roi, beyond="reflect"),
            Keys.LABELS: source.truth.classes(roi),
            Keys.MASK: source.truth.mask(roi).view(np.uint8),
            Keys.METRIC_MASK: source.truth.metric_mask(roi).view(np.uint8),
        }

    def setup(self) -> None:
        for key in self._data:
            raw = key == Keys.RAW
            self.provides(key, gp.ArraySpec(roi=EVERYWHERE, voxel_size=VOXEL, interpolatable=raw))

    def provide(self, request: "gp.BatchRequest") -> "gp.Batch":
        batch = gp.Batch()
        for key, spec in request.array_specs.items():
            part = self._data[key][(spec.roi - self._begin).to_slices()]
            given = self.spec[key].copy()
            given.roi = spec.roi
            batch[key] = gp.Array(part, given)
        return batch


def _cpu_seconds(pipeline: "gp.Pipeline", samples: int, keys: Collection["gp.ArrayKey"]) -> float:
    with gp.build(pipeline):
        pipeline.request_batch(_request(keys, 0))
        began = time.process_time()
        for number in range(1, samples + 1):
            batch = pipeline.request_batch(_request(keys, number))
        seconds = (time.process_time() - began) / samples
    assert batch[Keys.RAW].data.shape == SHAPE.input
    assert batch[Keys.LABELS].data.any()
    return seconds


def _request(keys: Collection["gp.ArrayKey"], number: int) -> "gp.BatchRequest":
    request = sample_request(SHAPE, 0, number)
    for key in list(request.array_specs):
        if key not in keys:
            del request[key]
    return request


def _samples_a_second(entry: DataEntry, config: TrainingConfig, workers: int, samples: int) -> float:
    """Return what the feed delivers once its workers are up."""
    with SampleFeed([entry], config, SHAPE.input, SHAPE.output, seed=0, num_workers=workers) as feed:
        made = iter(feed)
        # What was made ahead while the workers came up does not count.
        for _ in range(config.training.precache.cache_size + 2 * workers):
            next(made)
        began = time.perf_counter()
        for _ in range(3 * samples):
            next(made)
        return 3 * samples / (time.perf_counter() - began)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--workers", type=int, default=2)
    print(as_markdown(main(**vars(parser.parse_args()))))
