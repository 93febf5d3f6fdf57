"""gunpowder nodes that change a sample: geometry, intensity, range of the raw data."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from incasem.config.augmentation import Augmentation, Intensity
from incasem.geometry import Coordinate, Roi
from incasem.tasks.grey_values import full_scale
from incasem.training import intensity, occlusion, resampling_torch, section_defects
from incasem.training._gunpowder import gp
from incasem.training.deformation import Deformation, draw_deformation
from incasem.training.resampling import PositionField, nearest_voxels, resample_linear, scale_and_clip

# Numbers of the nodes' generators: 0 location, 1 geometry, 2 intensity, then the optional kinds.
FIRST_OPTIONAL_NODE = 3


def node_generator(request: "gp.BatchRequest", node: int) -> np.random.Generator:
    """Return a generator of a node's own, which depends on nothing but the request's seed and ``node``."""
    return np.random.default_rng((request.random_seed, node))


class ResampleAugment(gp.BatchFilter):
    """Flips, transposes, elastic deformation, rotation, scaling, shifted and misaligned sections in one pass.

    See `deformation`.

    Raw data (``interpolatable`` in the spec) come out as float32 in [0, 1], trilinear; every other array
    keeps its type and takes the nearest voxel. ``block`` stands for the place of the undeformed output: it
    is only flipped and transposed.

    Upstream is asked for the bounding box of the voxels needed.

    Args:
        settings: `training.augmentation`.
        block: the array that stands for the place.
        voxel_size: nm; for `rotation`.
        device: where torch resamples; None: `resampling` does, on the processor.
    """

    def __init__(
        self,
        settings: Augmentation,
        block: "gp.ArrayKey",
        voxel_size: Sequence[float] = (1.0, 1.0, 1.0),
        device: torch.device | None = None,
    ) -> None:
        self._linear, self._nearest = resample_linear, nearest_voxels
        if device is not None:
            self._linear = partial(resampling_torch.resample_linear, device=device)
            self._nearest = partial(resampling_torch.nearest_voxels, device=device)
        self._settings = settings
        self._voxel_size = voxel_size
        self._block = block
        self._total = Roi((0, 0, 0), (1, 1, 1))
        self._deformation: Deformation | None = None

    def prepare(self, request: "gp.BatchRequest") -> None:
        """Draw the geometry and turn the request into that of the source."""
        self._total = request.get_total_roi()
        rng = node_generator(request, 1)
        deformation = draw_deformation(Coordinate(self._total.shape), self._settings, rng, self._voxel_size)
        for key, spec in request.items():
            if spec.roi is None:
                continue
            region = spec.roi - self._total.begin
            if key == self._block:
                spec.roi = deformation.orientation.region(region, deformation.shape) + self._total.begin
            else:
                spec.roi = deformation.source_roi(region) + self._total.begin
        self._deformation = deformation

    def process(self, batch: "gp.Batch", request: "gp.BatchRequest") -> None:
        """Resample each array into the requested place."""
        deformation = self._deformation
        assert deformation is not None
        arrays = {key: array for key, array in batch.arrays.items() if array.spec.roi is not None}
        sampled = [array.spec.roi for key, array in arrays.items() if key != self._block]
        frame = Coordinate(min(roi.begin[axis] for roi in sampled) for axis in range(3))
        origin = frame - self._total.begin
        nearest: dict[
            tuple[Coordinate, Coordinate], NDArray[np.intp]
        ] = {}  # labels and masks share their place
        for key, array in arrays.items():
            source, wanted = array.spec.roi, request[key].roi
            pieces = list(deformation.pieces(wanted - self._total.begin, origin))
            if key == self._block:
                array.data = np.broadcast_to(array.data.flat[0], tuple(wanted.shape))
            elif self.spec[key].interpolatable:
                factor = 1 / full_scale(array.data.dtype)
                array.data = _in_pieces(pieces, partial(self._linear, array.data), source.begin - frame)
                scale_and_clip(array.data, factor, 0.0, 0.0, 1.0)
            else:
                at = (wanted.begin, wanted.shape)
                if at not in nearest:
                    sample = partial(self._nearest, source.shape)
                    nearest[at] = _in_pieces(pieces, sample, source.begin - frame)
                array.data = array.data.take(nearest[at])
            array.spec.roi = wanted
            array.spec.dtype = array.data.dtype


def _in_pieces(
    pieces: Sequence[tuple[Roi, PositionField]], sample: Callable[..., NDArray[Any]], origin: Coordinate
) -> NDArray[Any]:
    """Return what ``sample(field, origin, begin, shape)`` gives for the pieces of a region, put together."""
    sampled = [sample(field, origin, part.begin, part.shape) for part, field in pieces]
    if len(sampled) == 1:
        return sampled[0]
    first, second = pieces[0][0], pieces[1][0]
    axis = next(axis for axis in range(3) if first.begin[axis] != second.begin[axis])
    return np.concatenate(sampled, axis)


class IntensityAugment(gp.BatchFilter):
    """Contrast about the mean and brightness, clipped: ``mean + (raw - mean) * U[1±scale] + U[±shift]``."""

    def __init__(self, raw: "gp.ArrayKey", settings: Intensity) -> None:
        self._raw = raw
        self._settings = settings

    def process(self, batch: "gp.Batch", request: "gp.BatchRequest") -> None:
        """Change the raw data (float32 in [0, 1]) in place."""
        rng = node_generator(request, 2)
        data = batch.arrays[self._raw].data
        scale = rng.uniform(1 - self._settings.scale, 1 + self._settings.scale)
        shift = rng.uniform(-self._settings.shift, self._settings.shift)
        scale_and_clip(data, scale, float(data.mean()) * (1 - scale) + shift, 0.0, 1.0)


class RawAugment(gp.BatchFilter):
    """Changes raw data (float32 in [0, 1]) by a function ``change(raw_ZYX, rng=…)``, in place.

    The request goes upstream as it came. gunpowder's own filters hand on copies, each with another seed; that
    way a sample would lie elsewhere and be deformed otherwise as soon as an optional node is in the pipeline.
    """

    def __init__(self, raw: "gp.ArrayKey", change: Callable[..., None], node: int) -> None:
        self._raw = raw
        self._change = change
        self._node = node

    def request_batch(self, request: "gp.BatchRequest") -> "gp.Batch":
        """Return the batch from upstream with its raw data changed."""
        batch = self.get_upstream_provider().request_batch(request)
        self._change(batch.arrays[self._raw].data, rng=node_generator(request, self._node))
        return batch


def optional_nodes(raw: "gp.ArrayKey", settings: Augmentation) -> list[RawAugment]:
    """Return a node for each optional kind that changes grey values and is on, as images come about.

    First what specimen and detector do (gamma, contrast, faint sections), then focus, then noise, then what
    is lost. Labels are never touched.
    """
    s = settings
    noisy = s.noise.probability + s.shot_noise.probability
    # Numbered by kind, not by place: what one draws does not depend on which others are on, or came to be.
    kinds: list[tuple[int, float, Callable[..., None]]] = [
        (0, s.gamma.probability, partial(intensity.bend, settings=s.gamma)),
        (1, s.contrast.probability, partial(intensity.stretch, settings=s.contrast)),
        (
            2,
            s.low_contrast_sections.probability,
            partial(section_defects.fade, settings=s.low_contrast_sections),
        ),
        (3, s.blur.probability, partial(intensity.blur, settings=s.blur)),
        (7, s.motion_blur.probability, partial(section_defects.smear, settings=s.motion_blur)),
        (4, noisy, partial(intensity.add_noise, gaussian=s.noise, shot=s.shot_noise)),
        (5, s.missing_sections.probability, partial(section_defects.lose, settings=s.missing_sections)),
        (6, s.cutout.probability, partial(occlusion.cut_out, settings=s.cutout)),
    ]
    return [
        RawAugment(raw, change, FIRST_OPTIONAL_NODE + number)
        for number, probability, change in kinds
        if probability > 0
    ]


class ToNetworkRange(gp.BatchFilter):
    """Raw data from [0, 1] to [-1, 1]."""

    def __init__(self, raw: "gp.ArrayKey") -> None:
        self._raw = raw

    def process(self, batch: "gp.Batch", request: "gp.BatchRequest") -> None:
        """Change the raw data in place."""
        scale_and_clip(batch.arrays[self._raw].data, 2.0, -1.0, -1.0, 1.0)
