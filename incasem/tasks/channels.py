"""What the channels of a network mean under the symmetries of the voxel grid.

Classes look the same in a mirror. Edges do not: seen in a mirror, an edge to the voxel before is one to the
voxel after. Nor do the components of vectors. Whoever averages over symmetries (`prediction.symmetries`)
needs to know.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Edge:
    """A channel that tells of the edge between a voxel and the one at ``offset`` (z, y, x, voxels) from it.

    An edge has no direction: that of v with an offset is that of ``v + offset`` with the opposite offset.
    """

    offset: tuple[int, int, int]


@dataclass(frozen=True)
class Component:
    """A channel that holds the component of a tensor along ``axes`` (0 z, 1 y, 2 x), one axis a rank.

    () is a scalar; (1,) is the y component of a vector, which changes its sign in a mirror across y; (0, 2)
    is a covariance of z and x, which does so in a mirror across one of the two. Axes are in ascending order.
    """

    axes: tuple[int, ...] = ()


Channel = Edge | Component

DESCRIPTOR_COMPONENTS: tuple[Channel, ...] = (
    *(Component((axis,)) for axis in range(3)),
    *(Component((axis, axis)) for axis in range(3)),
    Component((0, 1)),
    Component((0, 2)),
    Component((1, 2)),
    Component(),
)
"""Of `descriptors.local_shape_descriptors`: mean offset, variances, correlations, size."""


def edge_channels(offsets: Sequence[Sequence[int]]) -> tuple[Channel, ...]:
    """Return the channels of `affinity_targets` with these offsets."""
    return tuple(Edge((int(z), int(y), int(x))) for z, y, x in offsets)


def nearest_affinities(affinities_C: NDArray[Any], offsets: Sequence[Sequence[int]]) -> NDArray[Any]:
    """Return the affinities to a nearest voxel along z, y and x, (3, …) of the same type.

    Along an axis with offsets to both sides it is the voxel before, as published; along one without any, it
    is as if nothing was cut there.

    Args:
        affinities_C: 0 to 1, or uint8; (C, …).
        offsets: of each channel, voxels, z, y, x.
    """
    nearest = np.empty((3, *affinities_C.shape[1:]), affinities_C.dtype)
    given = [tuple(offset) for offset in offsets]
    for axis in range(3):
        steps = [tuple(step * (a == axis) for a in range(3)) for step in (-1, 1)]
        channel = next((given.index(step) for step in steps if step in given), None)
        uncut = 255 if affinities_C.dtype == np.uint8 else 1
        nearest[axis] = uncut if channel is None else affinities_C[channel]
    return nearest
