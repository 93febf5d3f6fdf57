"""The gunpowder pipeline of the training data, and the request of one sample."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from incasem.config import TrainingConfig
from incasem.geometry import Coordinate, Roi
from incasem.tasks.chosen import task_of
from incasem.training._gunpowder import gp
from incasem.training.augmentation import (
    IntensityAugment,
    ResampleAugment,
    ToNetworkRange,
    optional_nodes,
)
from incasem.training.locations import Locations, RandomLocation, SampleIndex
from incasem.training.sources import EntrySource, Keys, VolumeSource
from incasem.training.target_node import MakeTarget


@dataclass(frozen=True)
class SampleShape:
    """Voxels (z, y, x) that the network reads and keeps; the output lies in the middle of the input."""

    input: Coordinate
    output: Coordinate

    @property
    def context(self) -> Coordinate:
        """Voxels of the input before the output."""
        return (self.input - self.output) // 2


def build_pipeline(
    sources: Sequence[EntrySource],
    indices: Sequence[SampleIndex],
    config: TrainingConfig,
    device: torch.device | None = None,
) -> "gp.Pipeline":
    """Return the pipeline from volumes to samples, in the published order.

    An entry: its volumes → a random location. All entries: one of them, with a probability proportional to
    the volume of its ROI → flips, transposes, elastic deformation and rotation in one pass → intensity →
    optional kinds of augmentation → target and balance → raw data from [0, 1] to [-1, 1].

    The pass runs on ``device``, a GPU, or on the processor where that is None.
    """
    settings = config.training
    entries = tuple(
        VolumeSource(source)
        + RandomLocation(Locations(source, index, settings.reject, settings.sampling), source.index)
        for source, index in zip(sources, indices, strict=True)
    )
    pipeline = entries + gp.RandomProvider(probabilities=[float(source.roi.size) for source in sources])
    pipeline += ResampleAugment(settings.augmentation, Keys.BLOCK, config.data.voxel_size, device)
    if settings.augmentation.intensity:
        pipeline += IntensityAugment(Keys.RAW, settings.augmentation.intensity)
    for node in optional_nodes(Keys.RAW, settings.augmentation):
        pipeline += node
    pipeline += MakeTarget(Keys.LABELS, Keys.MASK, Keys.TARGET, Keys.LOSS_SCALE, task_of(config))
    pipeline += ToNetworkRange(Keys.RAW)
    return pipeline


def sample_request(shape: SampleShape, seed: int, index: int) -> "gp.BatchRequest":
    """Return the request of sample ``index`` of a training with ``seed``; equal numbers, equal samples."""
    random_seed = int(np.random.SeedSequence((seed, index)).generate_state(1)[0])
    request = gp.BatchRequest(random_seed=random_seed)
    output = Roi(shape.context, shape.output)
    request[Keys.RAW] = gp.ArraySpec(roi=Roi((0, 0, 0), shape.input))
    for key in (Keys.TARGET, Keys.MASK, Keys.METRIC_MASK, Keys.LOSS_SCALE, Keys.BLOCK):
        request[key] = gp.ArraySpec(roi=output)
    request[Keys.PLACE] = gp.ArraySpec(nonspatial=True)
    return request
