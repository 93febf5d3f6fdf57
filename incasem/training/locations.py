"""Random locations: where the block of a sample lies, and which locations are drawn again.

Rejection is decided before anything of the raw data is read, from counts of foreground and mask voxels in
cells of a grid. The counts bound those of any block; only where the bounds do not decide, the labels of that
block are read.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from incasem.config.training import Reject, Sampling
from incasem.errors import DataError, explain
from incasem.geometry import Coordinate, Roi, format_roi
from incasem.training._gunpowder import gp
from incasem.training.augmentation import node_generator
from incasem.training.sources import VOXEL, EntrySource, Keys

logger = logging.getLogger(__name__)

SMALLEST_CELL = 8  # voxels
MOST_CELLS = 2**21  # 16 MiB of counts
READ_VOXELS = 128  # edge of the region that is read at a time for counting
MOST_DRAWS = 10_000  # locations that are tried for one sample


@dataclass(frozen=True)
class CountGrid:
    """Nonzero voxels in cells of a grid over a ROI, as running sums.

    Attributes:
        roi: absolute voxels.
        cell: edge of a cell (voxels); the cells at the ROI's end may be cut.
        sums: int64 (cells_z + 1, …): nonzero voxels in all cells before an index.
    """

    roi: Roi
    cell: int
    sums: NDArray[np.int64]

    @property
    def total(self) -> int:
        """Nonzero voxels in the ROI."""
        return int(self.sums[-1, -1, -1])

    def bounds(self, region: Roi) -> tuple[int, int]:
        """Return the least and the largest possible number of nonzero voxels in a region of the ROI."""
        inner, outer = self._cells(region, grow=False), self._cells(region, grow=True)
        certain, possible = self._sum(*inner), self._sum(*outer)
        low = max(certain, possible - (self._voxels(*outer) - region.size))
        high = min(possible, certain + region.size - self._voxels(*inner))
        return low, high

    def cell_counts(self) -> NDArray[np.int64]:
        """Return the number of nonzero voxels in each cell."""
        return np.diff(np.diff(np.diff(self.sums, axis=0), axis=1), axis=2)

    def cell_roi(self, cell: tuple[int, ...]) -> Roi:
        """Return the voxels of a cell."""
        begin = Coordinate(c * self.cell for c in cell) + self.roi.begin
        return Roi(begin, (self.cell,) * 3).intersect(self.roi)

    def _cells(self, region: Roi, grow: bool) -> tuple[list[int], list[int]]:
        first, last = [], []
        for axis in range(3):
            begin, end = region.begin[axis] - self.roi.begin[axis], region.end[axis] - self.roi.begin[axis]
            cells = self.sums.shape[axis] - 1
            if grow:
                first.append(begin // self.cell)
                last.append(min(-(-end // self.cell), cells))
            else:
                first.append(-(-begin // self.cell))
                at_end = end == self.roi.shape[axis]
                last.append(max(cells if at_end else end // self.cell, first[axis]))
        return first, last

    def _sum(self, first: list[int], last: list[int]) -> int:
        corners = self.sums[np.ix_(*zip(first, last, strict=True))]
        return int(np.diff(np.diff(np.diff(corners, axis=0), axis=1), axis=2)[0, 0, 0])

    def _voxels(self, first: list[int], last: list[int]) -> int:
        sizes = [max(0, min(last[a] * self.cell, self.roi.shape[a]) - first[a] * self.cell) for a in range(3)]
        return sizes[0] * sizes[1] * sizes[2]


@dataclass(frozen=True)
class SampleIndex:
    """What a location can be judged by without reading it; ``mask`` is None where an entry has none."""

    foreground: CountGrid
    mask: CountGrid | None


def index_entry(source: EntrySource) -> SampleIndex:
    """Count foreground and mask voxels of an entry, reading its labels once, a few MB at a time."""
    cell = SMALLEST_CELL
    while np.prod([-(-size // cell) for size in source.roi.shape], dtype=np.int64) > MOST_CELLS:
        cell *= 2
    shape = tuple(-(-size // cell) for size in source.roi.shape)
    foreground, mask = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    if source.entry.labels or source.entry.mask:
        logger.info("counting labels of %s, %s voxels", source.entry.nickname, format_roi(source.roi))
        step = max(READ_VOXELS // cell, 1)
        for first in np.ndindex(*(-(-cells // step) for cells in shape)):
            begin = Coordinate(f * step * cell for f in first)
            region = Roi(source.roi.begin + begin, (step * cell,) * 3).intersect(source.roi)
            into = tuple(slice(f * step, (f + 1) * step) for f in first)
            if source.entry.labels:
                foreground[into] = _count(source.truth.labels(region), cell)
            if source.entry.mask:
                mask[into] = _count(source.truth.mask(region), cell)
    grid = CountGrid(source.roi, cell, _running_sums(foreground))
    return SampleIndex(grid, CountGrid(source.roi, cell, _running_sums(mask)) if source.entry.mask else None)


def check_learnable(sources: Sequence[EntrySource], indices: Sequence[SampleIndex]) -> None:
    """Refuse training data that would train without a sign of being empty.

    Raises:
        DataError: a mask that leaves nothing of its entry, or no foreground in any entry.
    """
    for source, index in zip(sources, indices, strict=True):
        if index.mask is not None and index.mask.total == 0:
            raise DataError(
                explain(
                    f"the mask {source.entry.mask} of {source.entry.nickname!r}",
                    f"0 in all of the region {format_roi(source.roi)}",
                    "at least one voxel other than 0",
                    "Correct the mask or the region, or leave the mask out",
                )
            )
    if not any(index.foreground.total for index in indices):
        names = ", ".join(repr(source.entry.nickname) for source in sources)
        raise DataError(
            explain(
                f"the labels of {names}",
                "background everywhere",
                "at least one labelled voxel in one of the training regions",
                "Correct `labels`, `offset` and `shape` in the data configuration",
            )
        )


def _count(array_ZYX: NDArray[Any], cell: int) -> NDArray[np.int64]:
    counts = (array_ZYX != 0).astype(np.int64)
    for axis in range(3):
        counts = np.add.reduceat(counts, np.arange(0, counts.shape[axis], cell), axis=axis)
    return counts


def _running_sums(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    sums = np.zeros(tuple(size + 1 for size in counts.shape), np.int64)
    sums[1:, 1:, 1:] = counts.cumsum(0).cumsum(1).cumsum(2)
    return sums


class Locations:
    """Draws locations of blocks in one entry.

    A block lies inside the ROI along each axis where the ROI is at least as large, else it covers the ROI;
    what lies outside the ROI is masked out. Fractions count the block's voxels inside the ROI.

    Args:
        source: the entry.
        index: made by `index_entry`.
        reject: `training.reject`.
        sampling: `training.sampling`; with ``foreground`` set, that fraction of the blocks is laid around a
            random foreground voxel and the rest anywhere, and the foreground fraction rejects nothing.

    Raises:
        DataError: the settings allow no location at all.
    """

    def __init__(self, source: EntrySource, index: SampleIndex, reject: Reject, sampling: Sampling) -> None:
        self._source = source
        self._index = index
        self._reject = reject
        self._on_foreground = sampling.foreground
        strict = sampling.foreground is None and reject.reject_probability == 1 and reject.min_masked > 0
        if strict and index.foreground.total == 0:
            raise DataError(self._nothing_found("it has no foreground"))
        self._cumulated: NDArray[np.int64] | None = None

    def draw(self, shape: Coordinate, rng: np.random.Generator) -> Coordinate:
        """Return the begin (absolute voxels) of a block of ``shape`` voxels.

        Raises:
            DataError: no location was accepted in `MOST_DRAWS` draws.
        """
        for _ in range(MOST_DRAWS):
            around_foreground = self._on_foreground is not None and rng.random() < self._on_foreground
            if around_foreground and self._index.foreground.total > 0:
                begin = self._around_foreground(shape, rng)
            else:
                begin = self._anywhere(shape, rng)
            if not self._is_rejected(Roi(begin, shape).intersect(self._source.roi), rng):
                return begin
        raise DataError(self._nothing_found(f"{MOST_DRAWS} random locations were rejected"))

    def _anywhere(self, shape: Coordinate, rng: np.random.Generator) -> Coordinate:
        low, high = self._limits(shape)
        return Coordinate(int(value) for value in rng.integers(low, high, endpoint=True))

    def _limits(self, shape: Coordinate) -> tuple[list[int], list[int]]:
        roi = self._source.roi
        ends = [e - s for e, s in zip(roi.end, shape, strict=True)]
        pairs = list(zip(roi.begin, ends, strict=True))
        return [min(pair) for pair in pairs], [max(pair) for pair in pairs]

    def _around_foreground(self, shape: Coordinate, rng: np.random.Generator) -> Coordinate:
        grid = self._index.foreground
        if self._cumulated is None:
            self._cumulated = grid.cell_counts().ravel().cumsum()
        chosen = int(np.searchsorted(self._cumulated, rng.integers(grid.total), side="right"))
        shape_cells = tuple(size - 1 for size in grid.sums.shape)
        cell = grid.cell_roi(tuple(int(c) for c in np.unravel_index(chosen, shape_cells)))
        voxels = np.argwhere(self._source.truth.labels(cell))
        voxel = voxels[rng.integers(len(voxels))] + np.asarray(cell.begin)
        begin = voxel - rng.integers(0, shape)
        return Coordinate(int(value) for value in np.clip(begin, *self._limits(shape)))

    def _is_rejected(self, region: Roi, rng: np.random.Generator) -> bool:
        # The die is cast first: where it says no, nothing needs to be counted.
        reject, index = self._reject, self._index
        may = self._on_foreground is None and rng.random() < reject.reject_probability
        if may and self._is_below(index.foreground, region, reject.min_masked, equal=False):
            return True
        if index.mask is not None and rng.random() < reject.mask_reject_probability:
            return self._is_below(index.mask, region, reject.min_mask, equal=True)
        return False

    def _is_below(self, grid: CountGrid, region: Roi, fraction: float, *, equal: bool) -> bool:
        """Return whether the nonzero voxels of a region are fewer than a fraction of it (or as many)."""
        needed = fraction * region.size

        def below(count: int) -> bool:
            return count <= needed if equal else count < needed

        low, high = grid.bounds(region)
        if below(high) or not below(low):
            return below(high)
        truth = self._source.truth
        array = truth.labels(region) if grid is self._index.foreground else truth.mask(region)
        return below(int(np.count_nonzero(array)))

    def _nothing_found(self, why: str) -> str:
        reject = self._reject
        return (
            f"no sample can be drawn from {self._source.entry.nickname!r} "
            f"({format_roi(self._source.roi)} voxels): {why}. training.reject has "
            f"min_masked={reject.min_masked:g} reject_probability={reject.reject_probability:g} "
            f"min_mask={reject.min_mask:g} mask_reject_probability={reject.mask_reject_probability:g}; "
            "allowed: settings that accept some location. "
            "Lower the probabilities or the fractions, or remove the entry."
        )


class RandomLocation(gp.BatchFilter):
    """Moves the request to a random location of the entry, and says where (`Keys.BLOCK`, `Keys.PLACE`)."""

    def __init__(self, locations: Locations, entry_index: int) -> None:
        self._locations = locations
        self._entry_index = entry_index

    def setup(self) -> None:
        """Announce block and place."""
        spec = self.spec[Keys.MASK].copy()
        self.provides(Keys.BLOCK, spec)
        self.provides(Keys.PLACE, gp.ArraySpec(nonspatial=True))

    def provide(self, request: "gp.BatchRequest") -> "gp.Batch":
        """Return the arrays of a random location under the requested ROIs."""
        block = request[Keys.BLOCK].roi
        begin = self._locations.draw(Coordinate(block.shape), node_generator(request, 0))
        moved = gp.BatchRequest(random_seed=request.random_seed)
        for key, spec in request.array_specs.items():
            if key not in (Keys.BLOCK, Keys.PLACE):
                moved[key] = gp.ArraySpec(roi=spec.roi + (begin - block.begin))
        batch = self.get_upstream_provider().request_batch(moved)
        for key in moved.array_specs:
            batch.arrays[key].spec.roi = request[key].roi
        ones = np.broadcast_to(np.uint8(1), tuple(block.shape))
        batch.arrays[Keys.BLOCK] = gp.Array(ones, gp.ArraySpec(roi=block, voxel_size=VOXEL))
        place = np.array((self._entry_index, *begin), np.int64)
        batch.arrays[Keys.PLACE] = gp.Array(place, gp.ArraySpec(nonspatial=True))
        return batch
