"""The watershed of a boundary map from seeds, in one piece of a volume.

The classical way of over-segmenting a map of boundaries: seeds are the points that lie deepest inside, and
the boundary map is flooded from them (as in Funke et al. 2018, "Large scale image segmentation with
structured loss based deep learning for connectome reconstruction").
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from incasem.segmentation.extra import import_neurons
from incasem.segmentation.fragment_settings import STEPS, FragmentSettings

__all__ = ["seeded_labels"]


def seeded_labels(
    edges: NDArray[np.uint8], settings: FragmentSettings, voxel_size: Sequence[float]
) -> NDArray[np.uint32]:
    """Return the fragments; uint32, z, y, x; 0 is background.

    Args:
        edges: to the voxel before in z, y, x; shape (3, z, y, x), one voxel larger than the result at the end
            of each axis; 0 for edges that do not exist.
        settings: `FragmentSettings` of the method ``seeded``.
        voxel_size: z, y, x; any unit.

    Raises:
        ConfigError: the extra ``neurons`` is not installed.
    """
    axes = (1, 2) if settings.per_section else (0, 1, 2)
    depth = _mean_edge(edges, axes)
    if not settings.per_section:
        return _flood(depth, settings, voxel_size)[0]
    labels = np.zeros(depth.shape, np.uint32)
    count = 0
    for section, out in zip(depth, labels, strict=True):
        found, more = _flood(section, settings, voxel_size[1:])
        out[...] = np.where(found, found + np.uint32(count), np.uint32(0))
        count += more
    return labels


def _mean_edge(edges: NDArray[np.uint8], axes: Sequence[int]) -> NDArray[np.uint8]:
    """Return the mean of the edges that each voxel has, in 255 steps; 0 only where it has none."""
    shape = [s - 1 for s in edges.shape[1:]]
    total, number = np.zeros(shape, np.uint16), np.zeros(shape, np.uint8)
    for axis in axes:
        for begin in (0, 1):
            index = tuple(slice(begin, begin + s) if a == axis else slice(0, s) for a, s in enumerate(shape))
            total += edges[axis][index]
            number += edges[axis][index] > 0
    return (-(-total.astype(np.int32) // np.maximum(number, 1))).astype(np.uint8)


def _flood(
    depth: NDArray[np.uint8], settings: FragmentSettings, voxel_size: Sequence[float]
) -> tuple[NDArray[np.uint32], int]:
    """Return the fragments of one section or volume, and how many seeds they come from."""
    from scipy import ndimage
    from skimage.segmentation import watershed

    edt = import_neurons("edt")
    unit = min(voxel_size)
    scale = [size / unit for size in voxel_size]
    inner = depth >= settings.boundary_threshold * STEPS
    distance = edt.edt(inner, anisotropy=tuple(scale))
    if settings.seed_blur:
        distance = ndimage.gaussian_filter(distance, [settings.seed_blur / s for s in scale])
    window = [2 * int(settings.seed_distance / s) + 1 for s in scale]
    highest = ndimage.maximum_filter(distance, size=window)
    everywhere = np.ones((3,) * depth.ndim, bool)
    seeds, count = ndimage.label(inner & (distance == highest), everywhere)
    if count == 0:
        return np.zeros(depth.shape, np.uint32), 0
    labels = watershed(np.uint8(STEPS) - depth, seeds, mask=depth > 0)
    return labels.astype(np.uint32), count
