"""Where the network's tiles lie, for any region that somebody wants predicted.

A tile is one call of the network. Both tilings are separable: each axis has its own tiles, and those of a
region are all combinations. What a voxel's value is must not depend on the region that was asked for:

- `AlignedTiling` starts tiles on multiples of the network's stride on the absolute voxel grid, so that the
  pooling phase is the same everywhere and any cut of the volume gives the same values;
- `PublishedTiling` is the grid of the published incasem, fixed to the ROI's corner. Its stride of 110 voxels
  changes the pooling phase from tile to tile, so it shows seams; it is there to reproduce old outputs;
- `FixedTiling` is for networks whose result at a voxel depends on the whole tile
  (`ValidNetwork.depends_on_tile`): tiles of one size on one grid, computed whole even where a part is wanted.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

from incasem.errors import ConfigError, DataError, explain
from incasem.geometry import Coordinate, Roi, ceil_to_multiple
from incasem.networks import ValidNetwork

PUBLISHED_OUTPUT = (110, 110, 110)
_UNLIMITED = 2**40


Margin = tuple[Coordinate, Coordinate]
NO_MARGIN = (Coordinate(0, 0, 0), Coordinate(0, 0, 0))


class AxisTile(NamedTuple):
    """One tile along one axis, absolute voxels: what is kept of its output, and what it reads."""

    keep_begin: int
    keep_end: int
    input_begin: int
    input_size: int


@dataclass(frozen=True)
class Tile:
    """One call of the network, absolute voxels.

    ``input_roi`` is read (it may reach beyond the volume), the network emits it less the context, and
    ``keep_roi`` of that is wanted.
    """

    keep_roi: Roi
    input_roi: Roi
    output_begin: Coordinate

    @property
    def crop(self) -> tuple[slice, ...]:
        """Slices (z, y, x) that cut ``keep_roi`` out of the network's output."""
        return tuple(
            slice(k - o, k - o + s)
            for k, o, s in zip(self.keep_roi.begin, self.output_begin, self.keep_roi.shape, strict=True)
        )


class Tiling(ABC):
    """Tiles of a network for any region. ``context`` (z, y, x, voxels) is the network's, per side."""

    context: Coordinate

    @abstractmethod
    def with_margin(self, margin: Margin) -> "Tiling":
        """Return the tiling whose tiles emit at least ``margin`` voxels (before, after) beyond what is kept.

        Raises:
            ConfigError: this tiling cannot.
        """

    @abstractmethod
    def axis_tiles(self, axis: int, begin: int, end: int) -> list[AxisTile]:
        """Return the tiles of ``axis`` (0 = z) that give voxels ``begin`` … ``end`` - 1, in order."""

    def tiles(self, roi_voxels: Roi) -> list[Tile]:
        """Return the tiles that give ``roi_voxels`` (absolute voxels); what they keep never overlaps."""
        per_axis = [
            self.axis_tiles(axis, begin, end)
            for axis, (begin, end) in enumerate(zip(roi_voxels.begin, roi_voxels.end, strict=True))
        ]
        return [self._tile(combination) for combination in product(*per_axis)]

    def _tile(self, axes: Sequence[AxisTile]) -> Tile:
        input_begin = Coordinate(axis.input_begin for axis in axes)
        return Tile(
            keep_roi=Roi(
                [axis.keep_begin for axis in axes], [axis.keep_end - axis.keep_begin for axis in axes]
            ),
            input_roi=Roi(input_begin, [axis.input_size for axis in axes]),
            output_begin=input_begin + self.context,
        )


class AlignedTiling(Tiling):
    """Tiles that start on multiples of the network's stride on the absolute voxel grid.

    Args:
        network: gives stride, context and legal sizes.
        tile_shape: most voxels (z, y, x) that one tile may be asked for; rounded down to the stride, but at
            least one stride. None: any region is one tile.
        margin: voxels (before, after) that each tile emits at least beyond what is kept of it, and beyond
            ``tile_shape``; see `symmetries`.

    Attributes:
        tile_shape: as asked for, in whole strides.
    """

    def __init__(
        self, network: ValidNetwork, tile_shape: Sequence[int] | None = None, margin: Margin = NO_MARGIN
    ) -> None:
        self._network, self._margin = network, margin
        self.context = network.context_voxels
        self.tile_shape: Coordinate | None = None
        if tile_shape is not None:
            self.tile_shape = Coordinate(
                max(t // s, 1) * s for t, s in zip(tile_shape, network.stride, strict=True)
            )

    def axis_tiles(self, axis: int, begin: int, end: int) -> list[AxisTile]:
        """Return the fewest tiles of about equal size; see `Tiling.axis_tiles`."""
        stride = self._network.stride[axis]
        before, after = (voxels[axis] for voxels in self._margin)
        first = (begin - before) // stride * stride
        span = end - before - first
        step = span if self.tile_shape is None else self.tile_shape[axis]
        # Networks emit a few voxels more than a multiple of the stride; the last tile makes use of them.
        spare = self._emitted(axis, step + before + after) - step - before - after
        count = max(1, -(-(span - spare) // step))
        if count > 1:
            step = min(step, -(-span // (count * stride)) * stride)
        tiles = []
        for index in range(count):
            output_begin = first + index * step
            keep_end = end if index == count - 1 else output_begin + before + step
            wanted = keep_end + after - output_begin
            tiles.append(
                AxisTile(
                    keep_begin=max(begin, output_begin + before),
                    keep_end=keep_end,
                    input_begin=output_begin - self.context[axis],
                    input_size=self._input_size(axis, wanted),
                )
            )
        return tiles

    def with_margin(self, margin: Margin) -> "AlignedTiling":
        """Return the tiling with tiles that emit more; see `Tiling.with_margin`."""
        return AlignedTiling(self._network, self.tile_shape, margin)

    def is_smallest(self, tile: Tile) -> bool:
        """Return whether no smaller tile than ``tile`` could be given to the network."""
        return all(size <= limit for size, limit in zip(tile.input_roi.shape, self._least(), strict=True))

    def halved(self, tile: Tile) -> "AlignedTiling":
        """Return the tiling whose tiles are at most half of ``tile`` along its longest axis.

        ``tile`` is one of this tiling and not the smallest.
        """
        sizes = zip(tile.keep_roi.shape, tile.input_roi.shape, self._least(), strict=True)
        edges = [keep if read > smallest else 0 for keep, read, smallest in sizes]
        axis = edges.index(max(edges))
        limits = list(self.tile_shape or Coordinate((_UNLIMITED,) * 3))
        limits[axis] = max(1, edges[axis] // 2)
        return AlignedTiling(self._network, limits, self._margin)

    def _least(self) -> Coordinate:
        """Return the input of the smallest tile."""
        before, after = self._margin
        return self._network.input_shape_for(self._network.stride + before + after)

    def _input_size(self, axis: int, wanted: int) -> int:
        return int(self._network.input_shape_for((wanted,) * 3)[axis])

    def _emitted(self, axis: int, wanted: int) -> int:
        return self._input_size(axis, wanted) - 2 * self.context[axis]


class FixedTiling(Tiling):
    """Tiles of one size, side by side on the absolute voxel grid; a part of one is cut out of the whole.

    Args:
        network: gives stride, context and legal sizes.
        output_shape: voxels (z, y, x) that a call of the network emits, at least; it may emit a few more. The
            grid's step is that, rounded down to the stride.
        margin: voxels (before, after) that each tile emits at least beyond its step; see `symmetries`.
    """

    def __init__(
        self, network: ValidNetwork, output_shape: Sequence[int], margin: Margin = NO_MARGIN
    ) -> None:
        self._network = network
        self.context = network.context_voxels
        self.step = Coordinate(max(o // s, 1) * s for o, s in zip(output_shape, network.stride, strict=True))
        self.output_shape = Coordinate(max(o, s) for o, s in zip(output_shape, self.step, strict=True))
        before, after = margin
        self._before = ceil_to_multiple(before, network.stride)
        self.input_shape = network.input_shape_for(self._before + self.output_shape + after)

    def with_margin(self, margin: Margin) -> "FixedTiling":
        """Return the tiling with tiles that emit more; see `Tiling.with_margin`."""
        return FixedTiling(self._network, self.output_shape, margin)

    def axis_tiles(self, axis: int, begin: int, end: int) -> list[AxisTile]:
        """Return every tile of the axis that holds a part of the region; see `Tiling.axis_tiles`."""
        step, lead = self.step[axis], self._before[axis] + self.context[axis]
        return [
            AxisTile(max(begin, start), min(end, start + step), start - lead, self.input_shape[axis])
            for start in range(begin // step * step, end, step)
        ]


def tiling_for(network: ValidNetwork, tile_shape: Sequence[int] | None) -> Tiling:
    """Return the tiling whose values depend on no block: aligned, or fixed for networks that need it.

    Args:
        network: as it was trained.
        tile_shape: most voxels (z, y, x) of an aligned tile; those that a fixed tile emits, by default the
            published ones.
    """
    if network.depends_on_tile:
        return FixedTiling(network, tile_shape or PUBLISHED_OUTPUT)
    return AlignedTiling(network, tile_shape)


class PublishedTiling(Tiling):
    """The published grid: tiles of ``output_shape`` from the ROI's corner plus the context.

    The last tile of an axis is moved back to end at the ROI's end less the context; where it overlaps the
    tile before it, the last one wins (published: whichever was written last). Raw outside the ROI is never
    read, and the shell of one context along the ROI's faces has no tile, so it stays empty.

    Args:
        network: gives the context.
        roi_voxels: the whole ROI (absolute voxels).
        input_shape: `prediction.input_size_voxels`.
        output_shape: `prediction.output_size_voxels`.

    Raises:
        ConfigError: the two sizes do not fit the network.
        DataError: the ROI is smaller than one input.
    """

    def __init__(
        self, network: ValidNetwork, roi_voxels: Roi, input_shape: Sequence[int], output_shape: Sequence[int]
    ) -> None:
        self.context = network.context_voxels
        if tuple(network.output_shape(input_shape)) != tuple(output_shape):
            raise ConfigError(
                explain(
                    "prediction.output_size_voxels",
                    tuple(output_shape),
                    f"{tuple(network.output_shape(input_shape))}, what the network emits for "
                    f"prediction.input_size_voxels {tuple(input_shape)}",
                    "Correct one of the two",
                )
            )
        if any(s < i for s, i in zip(roi_voxels.shape, input_shape, strict=True)):
            raise DataError(
                explain(
                    "shape of the ROI",
                    f"{tuple(roi_voxels.shape)} voxels",
                    f"at least {tuple(input_shape)} with prediction.tiling=published",
                    "Take prediction.tiling=aligned, which predicts any ROI",
                )
            )
        self._input_shape, self.output_shape = Coordinate(input_shape), Coordinate(output_shape)
        self._inner = roi_voxels.grow(-self.context, -self.context)

    def with_margin(self, margin: Margin) -> "PublishedTiling":
        """Return this tiling, where nothing more is asked for; see `Tiling.with_margin`."""
        if margin == NO_MARGIN:
            return self
        raise ConfigError(
            explain(
                "prediction.tta",
                "8 or 16 with prediction.tiling=published",
                "none for affinities: mirrored edges lie off by their offset, and these tiles end too soon",
                "Take prediction.tiling=aligned, or prediction.tta=none",
            )
        )

    def axis_tiles(self, axis: int, begin: int, end: int) -> list[AxisTile]:
        """Return every tile of the axis that owns a part of the region; see `Tiling.axis_tiles`."""
        size = self.output_shape[axis]
        first, last = self._inner.begin[axis], self._inner.end[axis] - size
        starts = [*range(first, last, size), last]
        limits = [*starts[1:], last + size]
        tiles = []
        for start, limit in zip(starts, limits, strict=True):
            keep_begin, keep_end = max(begin, start), min(end, limit)
            if keep_begin < keep_end:
                tiles.append(
                    AxisTile(keep_begin, keep_end, start - self.context[axis], self._input_shape[axis])
                )
        return tiles
