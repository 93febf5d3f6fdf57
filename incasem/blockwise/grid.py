"""How a region is cut into blocks.

A grid is anchored at the begin of the region, because that is where the output array and with it the
output's chunks begin. With a block shape that is a multiple of the output's write shape (its chunk, or
its shard), every chunk belongs to exactly one block: writers need no locks, and nothing is read back in
order to be written.

All regions here are voxels on the absolute grid of the output volume.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from incasem.errors import DataError, explain
from incasem.geometry import Coordinate, Roi, format_roi

__all__ = ["Block", "Grid", "default_block_shape"]

_NO_CONTEXT = Coordinate(0, 0, 0)


@dataclass(frozen=True)
class Block:
    """One unit of work.

    Its regions are worked out when they are asked for: that costs more than handing out a block.

    Attributes:
        index: position in the grid, counted in C order (the last axis runs fastest).
        grid: where it belongs.
    """

    index: int
    grid: "Grid"

    @cached_property
    def write_roi(self) -> Roi:
        """What the block produces, clipped to the grid's total ROI (voxels)."""
        return self.grid.write_roi(self.index)

    @cached_property
    def read_roi(self) -> Roi:
        """`write_roi` grown by the grid's context on every side (voxels).

        It is *not* clipped: it may reach beyond the volume, and the stage decides what stands there.
        """
        context = self.grid.context
        return self.write_roi.grow(context, context) if any(context) else self.write_roi


@dataclass(frozen=True)
class Grid:
    """A region cut into blocks, each voxel in exactly one of them.

    Attributes:
        total_roi: the region (voxels on the absolute grid).
        block_shape: extent of a block (voxels); the last blocks of an axis are clipped to the region.
        context: how far a block reads beyond what it writes, on each side (voxels).

    Raises:
        DataError: the region is empty, a block has no extent, a context is negative, or the three have
            different numbers of axes.
    """

    total_roi: Roi
    block_shape: Coordinate
    context: Coordinate = _NO_CONTEXT

    def __post_init__(self) -> None:
        """Check the shapes, and turn plain sequences into coordinates."""
        object.__setattr__(self, "block_shape", Coordinate(self.block_shape))
        object.__setattr__(self, "context", Coordinate(self.context))
        axes = len(self.total_roi.shape)
        for name, value in (("block shape", self.block_shape), ("context", self.context)):
            if len(value) != axes:
                allowed = f"{axes} numbers, one for each axis of {format_roi(self.total_roi)}"
                raise DataError(explain(name, tuple(value), allowed, "Give one number an axis"))
        if min(self.total_roi.shape) < 1:
            region = format_roi(self.total_roi)
            raise DataError(explain("region", region, "at least one voxel in each axis", "Correct the ROI"))
        if min(self.block_shape) < 1:
            shape = tuple(self.block_shape)
            raise DataError(explain("block shape", shape, "at least one voxel in each axis", "Enlarge it"))
        if min(self.context) < 0:
            raise DataError(explain("context", tuple(self.context), "0 or more voxels", "Correct it"))

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Blocks along each axis."""
        pairs = zip(self.total_roi.shape, self.block_shape, strict=True)
        return tuple(int(-(-total // block)) for total, block in pairs)

    def __len__(self) -> int:
        """Number of blocks."""
        return self._blocks

    def blocks(self) -> Iterator[Block]:
        """Yield every block in the order of the indices."""
        for index in range(len(self)):
            yield self.block(index)

    def block(self, index: int) -> Block:
        """Return the block with this index.

        Raises:
            IndexError: the grid has no such block.
        """
        if not 0 <= index < self._blocks:
            raise IndexError(f"block {index} of a grid of {self._blocks} blocks")
        return Block(index, self)

    def write_roi(self, index: int) -> Roi:
        """Return what the block with this index produces, clipped to the grid's total ROI (voxels)."""
        begin, shape, rest = [], [], index
        for blocks, first, total, size in self._axes_backwards:
            rest, position = divmod(rest, blocks)
            begin.append(first + position * size)
            shape.append(min(size, total - position * size))
        return Roi(begin[::-1], shape[::-1])

    @cached_property
    def _blocks(self) -> int:
        return math.prod(self.shape)

    @cached_property
    def _axes_backwards(self) -> list[tuple[int, int, int, int]]:
        """Blocks, begin, extent and block extent of each axis, as plain numbers."""
        roi = self.total_roi
        axes = zip(self.shape, roi.begin, roi.shape, self.block_shape, strict=True)
        return [(int(a), int(b), int(c), int(d)) for a, b, c, d in axes][::-1]

    def index_at(self, begin: Sequence[int]) -> int:
        """Return the index of the block that holds the voxel ``begin``."""
        index = 0
        for axis, blocks in enumerate(self.shape):
            index = index * blocks + int(begin[axis] - self.total_roi.begin[axis]) // self.block_shape[axis]
        return index

    def voxels(self) -> np.ndarray:
        """Return how many voxels each block writes: int64, ``shape``."""
        counts = np.ones((), np.int64)
        for total, size, blocks in zip(self.total_roi.shape, self.block_shape, self.shape, strict=True):
            extent = np.full(blocks, size, np.int64)
            extent[-1] = total - size * (blocks - 1)
            counts = np.multiply.outer(counts, extent)
        return counts


def default_block_shape(
    write_shape: Sequence[int],
    target_voxels: int = 256**3,
    *,
    volume_shape: Sequence[int] | None = None,
) -> Coordinate:
    """Return a block shape of about ``target_voxels`` that owns whole chunks of the output.

    Args:
        write_shape: what one writer must own (voxels): the output's chunk, or its shard.
        target_voxels: upper bound of the block's size; one write unit is returned where that is larger.
        volume_shape: extent of the region (voxels). No axis gets more write units than this needs.

    Returns:
        A multiple of ``write_shape`` in every axis, as near to a cube as that allows.
    """
    unit = Coordinate(write_shape)
    most = [math.inf] * len(unit)
    if volume_shape is not None:
        most = [max(1, -(-total // size)) for total, size in zip(volume_shape, unit, strict=True)]
    units = [1] * len(unit)
    while True:
        extents = [count * size for count, size in zip(units, unit, strict=True)]
        fitting = [
            axis
            for axis, size in enumerate(unit)
            if units[axis] < most[axis]
            and math.prod(extents) // extents[axis] * (extents[axis] + size) <= target_voxels
        ]
        if not fitting:
            return Coordinate(extents)
        units[min(fitting, key=extents.__getitem__)] += 1
