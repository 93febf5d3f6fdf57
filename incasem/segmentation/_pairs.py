"""Counting the edges between fragments: a hash table of pairs, filled plane by plane."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from incasem.compiled import compiled
from incasem.segmentation.region_graph import BINS, EdgeTable, FragmentTable, pair_order

__all__ = ["EdgeCounter", "count_fragments", "count_labels"]

_LEAST_SLOTS = 1 << 12

Array = NDArray[Any]


# One row a pair, so that counting an edge touches one line of the processor's cache. Unsigned 64-bit numbers.
_U, _V, _CONTACT, _COUNT, _TOTAL, _HIGHEST, _COLUMNS = range(7)


class _Pairs:
    """Pairs of ids in the order in which they were met, found again by a table with open addressing."""

    def __init__(self) -> None:
        self.used = 0
        self.slots = np.full(_LEAST_SLOTS, -1, np.int32)
        self.rows = np.zeros((_LEAST_SLOTS // 2, _COLUMNS), np.uint64)

    def make_room(self, more: int) -> None:
        """Make sure that ``more`` pairs fit. Half of the slots stay free."""
        wanted = self.used + more
        if 2 * wanted > self.slots.size:
            self.slots = np.full(1 << int(2 * wanted).bit_length(), -1, np.int32)
            _refill(self.slots, self.rows, self.used)
            rows = np.zeros((self.slots.size // 2, _COLUMNS), np.uint64)
            rows[: self.used] = self.rows[: self.used]
            self.rows = rows

    def columns(self) -> NDArray[np.uint64]:
        """Return what is known of the pairs, one row a column."""
        return self.rows[: self.used].T


class EdgeCounter:
    """Sums over the edges between the fragments of one block.

    Args:
        histograms: whether to count each affinity of a pair too.
    """

    def __init__(self, *, histograms: bool) -> None:
        self._pairs = _Pairs()
        self._histograms = histograms
        self._keys: list[NDArray[np.int64]] = []

    def add(
        self,
        fragments_ZYX: NDArray[np.unsignedinteger[Any]],
        begin: tuple[int, int, int],
        offset: tuple[int, int, int],
        affinity_ZYX: NDArray[np.uint8],
        *,
        near: bool,
    ) -> None:
        """Add one channel's edges, those between different fragments.

        Args:
            fragments_ZYX: ids in the block and as far beyond it as the offset reaches; 0 is background.
            begin: where the block begins in them.
            offset: from each voxel of the block to the other end of its edge.
            affinity_ZYX: of the edges of the block's voxels.
            near: whether these are edges between direct neighbours.
        """
        depth, height, width = affinity_ZYX.shape
        keys = np.empty(height * width if self._histograms else 0, np.int64)
        for z in range(depth):
            self._pairs.make_room(height * width)
            here = _plane(fragments_ZYX, begin, (0, 0, 0), z, affinity_ZYX.shape)
            there = _plane(fragments_ZYX, begin, offset, z, affinity_ZYX.shape)
            pairs = self._pairs
            pairs.used, met = _count_plane(
                here, there, affinity_ZYX[z], near, pairs.slots, pairs.rows, pairs.used, keys
            )
            if met:
                self._keys.append(keys[:met].copy())

    def table(self) -> EdgeTable:
        """Return what was counted, ordered by (u, v)."""
        used, columns = self._pairs.used, self._pairs.columns()
        order = pair_order(columns[_U], columns[_V])
        first_bin = np.zeros(used + 1, np.int64)
        bins, bin_counts = np.zeros(0, np.uint8), np.zeros(0, np.int64)
        if self._keys:
            rank = np.empty(used, np.int64)
            rank[order] = np.arange(used)
            keys = np.concatenate(self._keys)
            self._keys = []
            keys = rank[keys // BINS] * BINS + keys % BINS
            keys.sort()
            begins = np.concatenate([[0], np.flatnonzero(keys[1:] != keys[:-1]) + 1])
            bin_counts = np.diff(begins, append=keys.size)
            keys = keys[begins]
            bins = (keys % BINS).astype(np.uint8)
            np.cumsum(np.bincount(keys // BINS, minlength=used), out=first_bin[1:])
        u, v, contact, count, total, highest = (column[order] for column in columns)
        return EdgeTable(
            u=u,
            v=v,
            contact=contact.astype(np.int64),
            count=count.astype(np.int64),
            total=total.astype(np.int64),
            highest=highest.astype(np.uint8),
            first_bin=first_bin,
            bins=bins,
            bin_counts=bin_counts.astype(np.int64),
        )


def _plane(
    fragments_ZYX: Array,
    begin: tuple[int, int, int],
    offset: tuple[int, int, int],
    z: int,
    shape: tuple[int, ...],
) -> Array:
    top, left = begin[1] + offset[1], begin[2] + offset[2]
    plane: Array = fragments_ZYX[begin[0] + offset[0] + z, top : top + shape[1], left : left + shape[2]]
    return plane


def count_fragments(fragments_ZYX: NDArray[np.uint64]) -> FragmentTable:
    """Return the fragments of one block and their voxels there."""
    pairs = _Pairs()
    for plane in fragments_ZYX:
        pairs.make_room(plane.size)
        pairs.used = _count_ids(plane, pairs.slots, pairs.rows, pairs.used)
    columns = pairs.columns()
    order = np.argsort(columns[_U])
    return FragmentTable(columns[_U][order], columns[_COUNT][order].astype(np.int64))


def count_labels(labels_ZYX: NDArray[np.uint32], number: int) -> NDArray[np.int64]:
    """Return the voxels of each label 1 … ``number``."""
    voxels = np.zeros(number + 1, np.int64)
    _count_labels(labels_ZYX.reshape(-1), voxels)
    return voxels[1:]


@compiled
def _count_labels(labels: Array, voxels: Array) -> None:
    begin = 0
    for i in range(1, labels.size + 1):  # run by run
        if i == labels.size or labels[i] != labels[begin]:
            voxels[labels[begin]] += i - begin
            begin = i


@compiled
def _find_or_add(slots: Array, rows: Array, used: int, u: np.uint64, v: np.uint64) -> int:
    """Return the number of a pair; it equals ``used`` if the pair was added just now."""
    last = np.uint64(slots.size - 1)
    mixed = u * np.uint64(0x9E3779B97F4A7C15) ^ v * np.uint64(0xC2B2AE3D27D4EB4F)
    slot = (mixed ^ (mixed >> np.uint64(29))) & last
    while slots[slot] >= 0:
        number = slots[slot]
        if rows[number, _U] == u and rows[number, _V] == v:
            return number
        slot = (slot + np.uint64(1)) & last
    slots[slot] = used
    rows[used, _U], rows[used, _V] = u, v
    return used


@compiled
def _refill(slots: Array, rows: Array, used: int) -> None:
    """Enter the first ``used`` pairs into an empty table."""
    for number in range(used):
        _find_or_add(slots, rows, number, rows[number, _U], rows[number, _V])


@compiled
def _count_plane(
    here: Array, there: Array, affinity: Array, near: bool, slots: Array, rows: Array, used: int, keys: Array
) -> tuple[int, int]:
    """Count the edges from each voxel of a plane; return pairs used, and the number of keys written.

    A key is the pair's number and the affinity, in one; none are written where there is no room for any.
    """
    met, number = 0, -1
    last_u = last_v = np.uint64(0)
    for y in range(here.shape[0]):
        for x in range(here.shape[1]):
            a, b = np.uint64(here[y, x]), np.uint64(there[y, x])
            if a == b or a == 0 or b == 0:
                continue
            u, v = min(a, b), max(a, b)
            if number < 0 or u != last_u or v != last_v:  # often it is the pair of the voxel before
                number = _find_or_add(slots, rows, used, u, v)
                used = max(used, number + 1)
                last_u, last_v = u, v
            value = np.uint64(affinity[y, x])
            rows[number, _CONTACT] += np.uint64(near)
            rows[number, _COUNT] += np.uint64(1)
            rows[number, _TOTAL] += value
            rows[number, _HIGHEST] = max(rows[number, _HIGHEST], value)
            if keys.size:
                keys[met] = number * 256 + affinity[y, x]
                met += 1
    return used, met


@compiled
def _count_ids(plane: Array, slots: Array, rows: Array, used: int) -> int:
    """Count the voxels of each id but 0; return ids used."""
    number = -1
    last = np.uint64(0)
    for y in range(plane.shape[0]):
        for x in range(plane.shape[1]):
            a = plane[y, x]
            if a == 0:
                continue
            if a != last:
                number = _find_or_add(slots, rows, used, a, np.uint64(0))
                used = max(used, number + 1)
                last = a
            rows[number, _COUNT] += np.uint64(1)
    return used
