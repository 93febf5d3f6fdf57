"""Training samples with the published augmentation, against gunpowder's own nodes in the published order.

``python -m benchmarks.feed --samples 10`` makes samples of 204³ → 110³ from a stored volume of smooth tissue,
in this process, and counts CPU seconds. Both pipelines read by the same source and location nodes.

The share of time that a trainer waits is measured with the small network for CPUs (12 feature maps,
172³ → 78³) on one thread and one process that makes samples; the baseline is the same trainer fed by
gunpowder's nodes behind its `PreCache` with one process. The first sample, which starts everything, does not
count.
"""

import argparse
import tempfile
import time
import warnings
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from benchmarks.table import Row, as_markdown
from incasem.config import DataEntry, TrainingConfig
from incasem.geometry import Coordinate, Roi
from incasem.networks import build_network
from incasem.tasks.semantic_loss import Terms, loss
from incasem.training._gunpowder import gp
from incasem.training.augmentation import ResampleAugment
from incasem.training.feed import SampleFeed
from incasem.training.locations import Locations, RandomLocation, index_entry
from incasem.training.pipeline import SampleShape, build_pipeline, sample_request
from incasem.training.sources import EVERYWHERE, VOXEL, EntrySource, Keys, VolumeSource, open_entry
from incasem.volumes import create_volume

ARRAYS = (Keys.RAW, Keys.LABELS, Keys.MASK, Keys.METRIC_MASK)
SAMPLED = (*ARRAYS, Keys.LOSS_SCALE)
OURS = (Keys.RAW, Keys.TARGET, Keys.MASK, Keys.METRIC_MASK, Keys.LOSS_SCALE, Keys.BLOCK, Keys.PLACE)
CONTEXT = 47
"""Of the network on each side, voxels."""
SMALL_NETWORK = {"num_fmaps": 12}


def main(
    samples: int = 8,
    size: int = 320,
    workers: int = 2,
    steps: int = 12,
    output: int = 110,
    small_output: int = 78,
) -> list[Row]:
    """Measure whole samples, the geometric pass alone, the feed with workers, and a trainer that waits.

    Args:
        samples: how many of each kind; a first one, which compiles and fills caches, is not counted.
        size: side of the stored volume (voxels).
        workers: processes of the feed.
        steps: of the small network, each about two CPU seconds.
        output: side of a sample's output (voxels); its input is 94 voxels longer.
        small_output: the same of the small network's samples.
    """
    config = TrainingConfig()
    shape, small_shape = _shape(output), _shape(small_output)
    with tempfile.TemporaryDirectory() as folder:
        entry = _entry(Path(folder), size)
        source = open_entry(entry, cache_bytes=2**29)
        index = index_entry(source)
        few = max(samples // 4, 2)
        ours = _cpu_seconds(build_pipeline([source], [index], config), samples, OURS, shape)
        locations = Locations(source, index, config.training.reject, config.training.sampling)
        published = _cpu_seconds(
            _published(VolumeSource(source) + RandomLocation(locations, 0) + _Block(), config),
            few, SAMPLED, shape,
        )  # fmt: skip
        memory, augmentation = _Memory(source, shape), config.training.augmentation
        our_pass = _cpu_seconds(memory + ResampleAugment(augmentation, Keys.BLOCK), samples, ARRAYS, shape)
        their_pass = _cpu_seconds(_published_geometry(_Memory(source, shape), config), few, ARRAYS, shape)
        rate = _samples_a_second(entry, config, workers, samples, shape)
        waits, step = _share_waited(_our_batches(entry, config, small_shape), steps)
        their_waits, _ = _share_waited(_their_batches(source, config, small_shape), steps)
    nodes = "gunpowder's nodes"
    alone = "… its flips, transposes and elastic pass alone"
    feed = f"feed, {workers} workers, wall"
    return [
        Row(
            f"sample {_words(shape)}, volume to tensors", ours, "CPU-s", published, nodes, less_is_better=True
        ),
        Row(alone, our_pass, "CPU-s", their_pass, nodes, less_is_better=True),
        Row(feed, rate, "samples/s", workers / published, f"{nodes}, {workers} ideal cores"),
        Row(
            f"share of time that the trainer waits, {SMALL_NETWORK['num_fmaps']} feature maps, "
            f"{_words(small_shape)}, {step:.1f} s a step",
            100 * waits,
            "%",
            100 * their_waits,
            f"{nodes}, PreCache, 1 process",
            less_is_better=True,
        ),
    ]


def _shape(output: int) -> SampleShape:
    return SampleShape(Coordinate((output + 2 * CONTEXT,) * 3), Coordinate((output,) * 3))


def _words(shape: SampleShape) -> str:
    return f"{shape.input[0]}³ → {shape.output[0]}³"


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

    def __init__(self, source: EntrySource, shape: SampleShape) -> None:
        self._begin = Coordinate((-200,) * 3)
        roi = Roi(source.roi.center - shape.input // 2 - 200, shape.input + 400)
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


def _cpu_seconds(
    pipeline: "gp.Pipeline", samples: int, keys: Collection["gp.ArrayKey"], shape: SampleShape
) -> float:
    with gp.build(pipeline):
        pipeline.request_batch(_request(keys, 0, shape))
        began = time.process_time()
        for number in range(1, samples + 1):
            batch = pipeline.request_batch(_request(keys, number, shape))
        seconds = (time.process_time() - began) / samples
    assert batch[Keys.RAW].data.shape == shape.input
    assert batch[Keys.TARGET if Keys.TARGET in keys else Keys.LABELS].data.any()
    return seconds


def _request(keys: Collection["gp.ArrayKey"], number: int | None, shape: SampleShape) -> "gp.BatchRequest":
    """Return the request of a sample; of any sample, where no number is given."""
    request = sample_request(shape, 0, number or 0)
    request[Keys.LABELS] = request[Keys.TARGET].copy()  # what gunpowder's own nodes make the target of
    if number is None:
        request._random_seed = None
    for key in list(request.array_specs):
        if key not in keys:
            del request[key]
    return request


def _samples_a_second(
    entry: DataEntry, config: TrainingConfig, workers: int, samples: int, shape: SampleShape
) -> float:
    """Return what the feed delivers once its workers are up."""
    with SampleFeed([entry], config, shape.input, shape.output, seed=0, num_workers=workers) as feed:
        made = iter(feed)
        # What was made ahead while the workers came up does not count.
        for _ in range(config.training.precache.cache_size + 2 * workers):
            next(made)
        began = time.perf_counter()
        for _ in range(3 * samples):
            next(made)
        return 3 * samples / (time.perf_counter() - began)


Arrays = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def _our_batches(entry: DataEntry, config: TrainingConfig, shape: SampleShape) -> Iterator[Arrays]:
    """Yield raw data, labels and loss scale of the feed with one process."""
    with SampleFeed([entry], config, shape.input, shape.output, seed=0, num_workers=1) as feed:
        for batch in feed.batches():
            yield batch.raw, batch.labels, batch.loss_scale


def _their_batches(source: EntrySource, config: TrainingConfig, shape: SampleShape) -> Iterator[Arrays]:
    """Yield the same of gunpowder's own nodes; from memory, since its processes are forked."""
    pipeline = _published(_Memory(source, shape), config) + gp.PreCache(
        cache_size=config.training.precache.cache_size, num_workers=1
    )
    with gp.build(pipeline):
        while True:
            batch = pipeline.request_batch(_request(SAMPLED, None, shape))
            raw, labels, scale = (
                torch.from_numpy(batch[key].data)[None] for key in (Keys.RAW, Keys.LABELS, Keys.LOSS_SCALE)
            )
            yield raw[None], labels.long(), scale


def _share_waited(batches: Iterator[Arrays], steps: int) -> tuple[float, float]:
    """Return which part of the time a training waits for its batches, and the seconds of one step."""
    settings = TrainingConfig.model_validate({"model": SMALL_NETWORK})
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    network = build_network(settings.model.model_dump()).to(memory_format=torch.channels_last_3d).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=settings.training.optimizer.lr)
    waited = total = 0.0
    try:
        batch = next(batches)
        for _ in range(steps):
            began = time.perf_counter()
            raw, labels, scale = batch
            optimizer.zero_grad(set_to_none=True)
            logits = network(raw.to(memory_format=torch.channels_last_3d))
            loss(logits, labels, scale, settings.loss.weight, Terms.of(settings.loss)).backward()
            optimizer.step()
            asked = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - asked
            total += time.perf_counter() - began
    finally:
        torch.set_num_threads(threads)
        batches.close()  # type: ignore[attr-defined]  # a generator: ends its processes
    return waited / total, (total - waited) / steps


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--output", type=int, default=110)
    parser.add_argument("--small_output", type=int, default=78)
    print(as_markdown(main(**vars(parser.parse_args()))))
