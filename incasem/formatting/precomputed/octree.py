"""Where the parts of a mesh lie: nodes of an octree, which all levels of detail share.

A level of detail is the surface of a scale, so its triangles lie in cells between the centres of that scale's
voxels, and a node is a box of whole cells. Cells of different scales begin at different places (half a voxel
before the volume, of each scale's own voxels), which the format allows for by an offset for each level
(`vertex_offsets`).

Format: google/neuroglancer, ``src/datasource/precomputed/meshes.md``, `neuroglancer_multilod_draco`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from incasem.formatting._downscale import Factor
from incasem.formatting.precomputed.layout import Scale
from incasem.geometry import Coordinate, Roi

QUANTIZATION_BITS = 16
NODE = 128
"""Edge of a node of the finest level, voxels along the shortest edge of a voxel; fewer along longer ones."""
_SMALLEST_NODE = 16
_MOST_LEVELS = 8


@dataclass(frozen=True)
class Level:
    """A level of detail.

    Attributes:
        lod: 0 is the finest.
        scale: whose voxels it is made of.
        node: cells of a node; z, y, x.
        cells: the cells of the whole volume, each named by the voxel of the scale at its lowest corner; nodes
            begin at its begin.
    """

    lod: int
    scale: Scale
    node: Coordinate
    cells: Roi


@dataclass(frozen=True)
class Octree:
    """All levels of detail; lengths in nm, x, y, z.

    Attributes:
        levels: the finest first.
        grid_origin: corner of the first node of the finest level.
        node_nm: edges of a node of the finest level.
        vertex_offsets: of each level, by how much its nodes begin later.
    """

    levels: tuple[Level, ...]
    grid_origin: tuple[float, ...]
    node_nm: tuple[float, ...]
    vertex_offsets: tuple[tuple[float, ...], ...]

    @property
    def detail_nm(self) -> list[float]:
        """Size of what each level shows, nm."""
        return [float(max(level.scale.voxel_size)) for level in self.levels]


def make_octree(scales: Sequence[Scale]) -> Octree:
    """Return the octree of the meshes of some scales, the first of which is the finest to be meshed."""
    finest = scales[0]
    factors = [_relative(scale.factor, finest.factor) for scale in scales[:_MOST_LEVELS]]
    node0 = _node(finest.voxel_size)
    # Nodes of all levels begin at one voxel of the coarsest.
    coarsest = factors[-1]
    anchor = [math.floor(b / f) * f for b, f in zip(finest.roi.begin, coarsest, strict=True)]
    levels = []
    for lod, (scale, factor) in enumerate(zip(scales, factors, strict=False)):
        begin = Coordinate(a // f - 1 for a, f in zip(anchor, factor, strict=True))
        node = Coordinate(n * 2**lod // f for n, f in zip(node0, factor, strict=True))
        levels.append(Level(lod, scale, node, Roi(begin, scale.roi.end - begin)))
    size = np.array(finest.voxel_size)
    origin = (np.array(anchor) - 0.5) * size
    offsets = [(0.5 - 0.5 * np.array(factor)) * size for factor in factors]
    return Octree(
        tuple(levels),
        tuple(map(float, origin[::-1])),
        tuple(map(float, (np.array(node0) * size)[::-1])),
        tuple(tuple(map(float, offset[::-1])) for offset in offsets),
    )


def _relative(factor: Factor, finest: Factor) -> Factor:
    z, y, x = (a // b for a, b in zip(factor, finest, strict=True))
    return (z, y, x)


def _node(voxel_size: Sequence[float]) -> tuple[int, ...]:
    """Return the edges of a finest node, powers of 2: about a cube."""
    shortest = min(voxel_size)
    return tuple(max(_SMALLEST_NODE, 2 ** round(math.log2(NODE * shortest / v))) for v in voxel_size)


def quantized(steps: NDArray[np.int64], node: Coordinate, steps_a_voxel: int) -> NDArray[np.uint32]:
    """Return places in a node as the format has them: 0 at its begin, all bits set at its end.

    Args:
        steps: places x, y, z from the node's begin.
        node: its edges, voxels; z, y, x.
        steps_a_voxel: unit of ``steps``.
    """
    edge = np.array(node[::-1], np.int64) * steps_a_voxel
    return ((steps * (2**QUANTIZATION_BITS - 1) + edge // 2) // edge).astype(np.uint32)


def z_order(positions_XYZ: NDArray[np.integer]) -> NDArray[np.uint64]:
    """Return the place of nodes (n, 3) on the Z-curve: 21 bits of x, y, z in turns, those of x lowest."""
    code = np.zeros(len(positions_XYZ), np.uint64)
    for bit in range(21):
        for axis in range(3):
            value = (positions_XYZ[:, axis].astype(np.uint64) >> np.uint64(bit)) & np.uint64(1)
            code |= value << np.uint64(3 * bit + axis)
    return code
