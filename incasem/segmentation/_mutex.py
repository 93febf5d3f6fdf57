"""The mutex watershed, in one piece of a volume.

Wolf et al. 2018, "The mutex watershed: efficient, parameter-free image partitioning"; the work is done by
``mwatershed``.
"""

import numpy as np
from numpy.typing import NDArray

from incasem.segmentation.affinity_map import NEAREST, Offset
from incasem.segmentation.extra import import_neurons
from incasem.segmentation.fragment_settings import STEPS, FragmentSettings

__all__ = ["mutex_labels"]


def mutex_labels(
    affinities: NDArray[np.uint8],
    inside: NDArray[np.bool_] | None,
    offsets: tuple[Offset, ...],
    settings: FragmentSettings,
) -> NDArray[np.uint32]:
    """Return the fragments; uint32, z, y, x; 0 is background: voxels that nothing attracts.

    Args:
        affinities: in 255 steps; channels, z, y, x.
        inside: what is not background, z, y, x; None for everything.
        offsets: the other end of each channel's edge.
        settings: `FragmentSettings` of the method ``mutex``.

    Raises:
        ConfigError: the extra ``neurons`` is not installed.
    """
    mwatershed = import_neurons("mwatershed")
    near = [offset in NEAREST or tuple(-o for o in offset) in NEAREST for offset in offsets]
    weights = np.empty(affinities.shape, np.float64)
    for weight, channel, offset, is_near in zip(weights, affinities, offsets, near, strict=True):
        bias = settings.mutex_bias if is_near else settings.long_range_bias
        np.subtract(channel / STEPS, bias, out=weight)
        if inside is not None:  # neither attracts nor repels
            weight *= inside
            weight *= _shifted(inside, offset)
    strides = [(1, 1, 1) if is_near else settings.long_range_stride for is_near in near]
    labels = mwatershed.agglom(weights, list(offsets), strides=strides)
    if inside is not None:
        labels[~inside] = 0
    found, numbers = np.unique(labels, return_inverse=True)
    first = 0 if found[0] == 0 else 1
    return (numbers + first).astype(np.uint32).reshape(labels.shape)


def _shifted(array: NDArray[np.bool_], offset: Offset) -> NDArray[np.bool_]:
    """Return, at each voxel, the value at ``offset`` from it; False beyond the array."""
    result = np.zeros_like(array)
    to, of = [], []
    for step, size in zip(offset, array.shape, strict=True):
        to.append(slice(max(0, -step), max(0, min(size, size - step))))
        of.append(slice(max(0, step), max(0, min(size, size + step))))
    result[tuple(to)] = array[tuple(of)]
    return result
