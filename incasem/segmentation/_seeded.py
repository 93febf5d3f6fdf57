"""The watershed of a boundary map from seeds, in one piece of a volume.

The classical way of over-segmenting a map of boundaries: seeds are the points that lie deepest inside, and
the boundary map, one minus the mean of a voxel's edges, is flooded from them (as in Funke et al. 2018, "Large
scale image segmentation with structured loss based deep learning for connectome reconstruction").
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from incasem.segmentation.extra import import_neurons
from incasem.segmentation.fragment_settings import STEPS, FragmentSettings

__all__ = ["seeded_labels"]


def seeded_labels(
    edges: NDArray[np.uint8],
    settings: FragmentSettings,
    voxel_size: Sequence[float],
    at_border: Sequence[tuple[bool, bool]] = ((True, True),) * 3,
) -> NDArray[np.uint32]:
    """Return the fragments; uint32, z, y, x; 0 is background.

    Args:
        edges: to the voxel before in z, y, x; shape (3, z, y, x), one voxel larger than the result at the end
            of each axis; 0 for edges that do not exist.
        settings: `FragmentSettings` of the method ``seeded``.
        voxel_size: z, y, x; any unit.
        at_border: whether the volume ends there, so that there is no edge; begin and end of z, y, x.

    Raises:
        ConfigError: the extra ``neurons`` is not installed.
    """
    axes = (1, 2) if settings.per_section else (0, 1, 2)
    mean, weakest = _mean_and_weakest(edges, axes, at_border)
    if not settings.per_section:
        return _flood(mean, weakest, settings, voxel_size)[0]
    labels = np.zeros(mean.shape, np.uint32)
    count = 0
    for z, out in enumerate(labels):
        found, more = _flood(mean[z], weakest[z], settings, voxel_size[1:])
        out[...] = np.where(found, found + np.uint32(count), np.uint32(0))
        count += more
    return labels


def _mean_and_weakest(
    edges: NDArray[np.uint8], axes: Sequence[int], at_border: Sequence[tuple[bool, bool]]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return each voxel's mean edge, rounded up to 255 steps (0 only where all are 0), and its weakest."""
    shape = [s - 1 for s in edges.shape[1:]]
    total, number = np.zeros(shape, np.uint16), np.zeros(shape, np.uint8)
    weakest = np.full(shape, STEPS, np.uint8)
    for axis in axes:
        for side in (0, 1):
            begin = [side if a == axis else 0 for a in range(3)]
            end = [b + s for b, s in zip(begin, shape, strict=True)]
            if at_border[axis][side]:  # the outermost voxels have no such edge
                begin[axis], end[axis] = (
                    (begin[axis], end[axis] - 1) if side else (begin[axis] + 1, end[axis])
                )
            channel = edges[axis][tuple(slice(b, e) for b, e in zip(begin, end, strict=True))]
            begin[axis], end[axis] = begin[axis] - side, end[axis] - side
            voxels = tuple(slice(b, e) for b, e in zip(begin, end, strict=True))
            total[voxels] += channel
            number[voxels] += np.uint8(1)
            np.minimum(weakest[voxels], channel, out=weakest[voxels])
    return (-(-total.astype(np.int32) // np.maximum(number, 1))).astype(np.uint8), weakest


def _flood(
    mean: NDArray[np.uint8],
    weakest: NDArray[np.uint8],
    settings: FragmentSettings,
    voxel_size: Sequence[float],
) -> tuple[NDArray[np.uint32], int]:
    """Return the fragments of one section or volume, and how many seeds they come from."""
    from scipy import ndimage
    from skimage.segmentation import watershed

    edt = import_neurons("edt")
    unit = min(voxel_size)
    scale = [size / unit for size in voxel_size]
    inner = weakest >= settings.boundary_threshold * STEPS
    distance = edt.edt(inner, anisotropy=tuple(scale))
    if settings.seed_blur:
        distance = ndimage.gaussian_filter(distance, [settings.seed_blur / s for s in scale])
    window = [2 * int(settings.seed_distance / s) + 1 for s in scale]
    highest = ndimage.maximum_filter(distance, size=window)
    everywhere = np.ones((3,) * mean.ndim, bool)
    seeds, count = ndimage.label(inner & (distance == highest), everywhere)
    if count == 0:
        return np.zeros(mean.shape, np.uint32), 0
    labels = watershed(np.uint8(STEPS) - mean, seeds, mask=mean > 0)
    return labels.astype(np.uint32), count
