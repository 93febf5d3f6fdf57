"""Counting the edges between fragments: a hash table of pairs, filled plane by plane."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from incasem.compiled import compiled
from incasem.segmentation.region_graph import BINS, EdgeTable, FragmentTable

__all__ = ["EdgeCounter", "count_fragments", "count_labels"]

_LEAST_SLOTS = 1 << 12

Array = NDArray[Any]


class _Pairs:
    """Pairs of ids in the order in which they were met, found again by a table with open addressing."""

    def __init__(self) -> None:
        self.used = 0
        self._make(_LEAST_SLOTS)
        self.u = np.zeros(_LEAST_SLOTS // 2, np.uint64)
        self.v = np.zeros(_LEAST_SLOTS // 2, np.uint64)

    def _make(self, slots: int) -> None:
        self.slots = np.full(slots, -1, np.int64)

    def make_room(self, more: int) -> int:
        """Make sure that ``more`` pairs fit; return how many fit in all. Half of the slots stay free."""
        wanted = self.used + more
        if 2 * wanted > self.slots.size:
            self._make(1 << int(2 * wanted).bit_length())
            _refill(self.slots, self.u, self.v, self.used)
            self.u, self.v = (_grown(a, self.slots.size // 2) for a in (self.u, self.v))
        return self.u.size


def _grown(array: Array, size: int) -> Array:
    longer = np.zeros(size, array.dtype)
    longer[: array.size] = array
    return longer


class EdgeCounter:
    """Sums over the edges between the fragments of one block.

    Args:
        histograms: whether to count each affinity of a pair too.
    """

    def __init__(self, *, histograms: bool) -> None:
        self._pairs = _Pairs()
        size = self._pairs.u.size
        self._contact, self._count, self._total = (np.zeros(size, np.int64) for _ in range(3))
        self._highest = np.zeros(size, np.uint8)
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
            size = self._pairs.make_room(height * width)
            if size > self._count.size:
                self._grow(size)
            here = _plane(fragments_ZYX, begin, (0, 0, 0), z, affinity_ZYX.shape)
            there = _plane(fragments_ZYX, begin, offset, z, affinity_ZYX.shape)
            self._pairs.used, met = _count_plane(
                here, there, affinity_ZYX[z], near, self._pairs.slots, self._pairs.u, self._pairs.v,
                self._pairs.used, self._contact, self._count, self._total, self._highest, keys,
            )  # fmt: skip
            if met:
                self._keys.append(keys[:met].copy())

    def _grow(self, size: int) -> None:
        self._contact, self._count, self._total, self._highest = (
            _grown(a, size) for a in (self._contact, self._count, self._total, self._highest)
        )

    def table(self) -> EdgeTable:
        """Return what was counted, ordered by (u, v)."""
        used = self._pairs.used
        u, v = self._pairs.u[:used], self._pairs.v[:used]
        order = np.lexsort((v, u))
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
        return EdgeTable(
            u=u[order],
            v=v[order],
            contact=self._contact[order],
            count=self._count[order],
            total=self._total[order],
            highest=self._highest[order],
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
    pairs, voxels = _Pairs(), np.zeros(_LEAST_SLOTS // 2, np.int64)
    for plane in fragments_ZYX:
        size = pairs.make_room(plane.size)
        if size > voxels.size:
            voxels = _grown(voxels, size)
        pairs.used = _count_ids(plane, pairs.slots, pairs.u, pairs.v, pairs.used, voxels)
    order = np.argsort(pairs.u[: pairs.used])
    return FragmentTable(pairs.u[order], voxels[order])


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
def _find_or_add(slots: Array, us: Array, vs: Array, used: int, u: np.uint64, v: np.uint64) -> int:
    """Return the number of a pair; it equals ``used`` if the pair was added just now."""
    last = np.uint64(slots.size - 1)
    mixed = u * np.uint64(0x9E3779B97F4A7C15) ^ v * np.uint64(0xC2B2AE3D27D4EB4F)
    slot = (mixed ^ (mixed >> np.uint64(29))) & last
    while slots[slot] >= 0:
        number = slots[slot]
        if us[number] == u and vs[number] == v:
            return number
        slot = (slot + np.uint64(1)) & last
    slots[slot] = used
    us[used], vs[used] = u, v
    return used


@compiled
def _refill(slots: Array, us: Array, vs: Array, used: int) -> None:
    """Enter the first ``used`` pairs into an empty table."""
    for number in range(used):
        _find_or_add(slots, us, vs, number, us[number], vs[number])


@compiled
def _count_plane(
    here: Array,
    there: Array,
    affinity: Array,
    near: bool,
    slots: Array,
    us: Array,
    vs: Array,
    used: int,
    contact: Array,
    count: Array,
    total: Array,
    highest: Array,
    keys: Array,
) -> tuple[int, int]:
    """Count the edges from each voxel of a plane; return pairs used, and the number of keys written.

    A key is the pair's number and the affinity, in one; none are written where there is no room for any.
    """
    met, number = 0, -1
    last_u = last_v = np.uint64(0)
    for y in range(here.shape[0]):
        for x in range(here.shape[1]):
            a, b = here[y, x], there[y, x]
            if a == b or a == 0 or b == 0:
                continue
            u, v = min(a, b), max(a, b)
            if number < 0 or u != last_u or v != last_v:  # mostly it is the pair of the voxel before
                number = _find_or_add(slots, us, vs, used, u, v)
                used = max(used, number + 1)
                last_u, last_v = u, v
            value = affinity[y, x]
            contact[number] += near
            count[number] += 1
            total[number] += value
            highest[number] = max(highest[number], value)
            if keys.size:
                keys[met] = number * 256 + value
                met += 1
    return used, met


@compiled
def _count_ids(plane: Array, slots: Array, us: Array, vs: Array, used: int, voxels: Array) -> int:
    """Count the voxels of each id but 0; return ids used."""
    number = -1
    last = np.uint64(0)
    for y in range(plane.shape[0]):
        for x in range(plane.shape[1]):
            a = plane[y, x]
            if a == 0:
                continue
            if a != last:
                number = _find_or_add(slots, us, vs, used, a, np.uint64(0))
                used = max(used, number + 1)
                last = a
            voxels[number] += 1
    return used
