"""The region graph as columns: which fragments touch, and what the affinities between them say.

All sums are integers, so parts of it add up to the same graph however the volume was cut.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "BINS",
    "EdgeTable",
    "FragmentTable",
    "pair_order",
    "renamed_edges",
    "summed_edges",
    "summed_fragments",
]

BINS = 256
"""Bins of a histogram of affinities: one for each step of a stored affinity."""

Ids = NDArray[np.uint64]


@dataclass(frozen=True)
class EdgeTable:
    """Pairs of fragments and the affinities between them, ordered by (u, v); one row a pair.

    Attributes:
        u: the smaller id of each pair.
        v: the larger id.
        contact: edges between direct neighbours, that is faces of voxels.
        count: edges in all; more than ``contact`` where long-range channels count.
        total: sum of their affinities, in steps of 1/255.
        highest: the largest of their affinities, in steps of 1/255.
        first_bin: row i has ``bins[first_bin[i] : first_bin[i + 1]]``; one value more than rows. Without
            histograms all 0.
        bins: affinities that occur, ascending within a row; steps of 1/255.
        bin_counts: how often.
    """

    u: Ids
    v: Ids
    contact: NDArray[np.int64]
    count: NDArray[np.int64]
    total: NDArray[np.int64]
    highest: NDArray[np.uint8]
    first_bin: NDArray[np.int64]
    bins: NDArray[np.uint8]
    bin_counts: NDArray[np.int64]

    def __len__(self) -> int:
        """Number of pairs."""
        return self.u.size

    def rows(self, begin: int, end: int) -> "EdgeTable":
        """Return the rows from ``begin`` to before ``end``."""
        bins = slice(int(self.first_bin[begin]), int(self.first_bin[end]))
        columns = {name: getattr(self, name)[begin:end] for name in _COLUMNS}
        first_bin = self.first_bin[begin : end + 1] - self.first_bin[begin]
        return EdgeTable(
            **columns, first_bin=first_bin, bins=self.bins[bins], bin_counts=self.bin_counts[bins]
        )


_COLUMNS = ("u", "v", "contact", "count", "total", "highest")


@dataclass(frozen=True)
class FragmentTable:
    """Fragments and their sizes, ordered by id.

    Attributes:
        ids: of the fragments, without 0.
        voxels: of each.
    """

    ids: Ids
    voxels: NDArray[np.int64]

    def __len__(self) -> int:
        """Number of fragments."""
        return self.ids.size

    def rows(self, begin: int, end: int) -> "FragmentTable":
        """Return the rows from ``begin`` to before ``end``."""
        return FragmentTable(self.ids[begin:end], self.voxels[begin:end])


def summed_fragments(tables: Iterable[FragmentTable]) -> FragmentTable:
    """Return one table of several, the sizes of equal ids added."""
    parts = list(tables)
    ids = np.concatenate([np.zeros(0, np.uint64), *(part.ids for part in parts)])
    voxels = np.concatenate([np.zeros(0, np.int64), *(part.voxels for part in parts)])
    order = np.argsort(ids, kind="stable")
    ids = ids[order]
    begins = _group_begins(ids[1:] != ids[:-1], ids.size)
    return FragmentTable(ids[begins], _added(voxels[order], begins))


def summed_edges(tables: Iterable[EdgeTable]) -> EdgeTable:
    """Return one table of several, what is known of equal pairs added.

    Args:
        tables: each with rows in any order, with or without repeated pairs.
    """
    parts = list(tables)
    if not parts:
        parts = [_empty()]
    columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMNS}
    rows = columns["u"].size
    order = pair_order(columns["u"], columns["v"])
    u, v = columns["u"][order], columns["v"][order]
    begins = _group_begins((u[1:] != u[:-1]) | (v[1:] != v[:-1]), rows)
    group = np.zeros(rows, np.int64)
    group[begins[1:]] = 1
    group_of_row = np.empty(rows, np.int64)
    group_of_row[order] = np.cumsum(group)
    first_bin, bins, bin_counts = _summed_bins(parts, group_of_row, begins.size)
    highest = columns["highest"][order]
    return EdgeTable(
        u=u[begins],
        v=v[begins],
        **{name: _added(columns[name][order], begins) for name in ("contact", "count", "total")},
        highest=np.maximum.reduceat(highest, begins) if rows else highest,
        first_bin=first_bin,
        bins=bins,
        bin_counts=bin_counts,
    )


def pair_order(u: Ids, v: Ids) -> NDArray[np.int64]:
    """Return the order of pairs by (u, v)."""
    if u.size == 0 or max(int(u.max()), int(v.max())) >> 32:
        return np.lexsort((v, u))
    return np.argsort(u << np.uint64(32) | v)  # several times as fast


def renamed_edges(table: EdgeTable, names: Ids) -> EdgeTable:
    """Return the rows with other ids, without those whose ends are now one; in no order, pairs may repeat.

    Args:
        table: its ids are places in ``names``.
        names: the new id of each.
    """
    u, v = names[table.u], names[table.v]
    kept = u != v
    lengths = np.diff(table.first_bin)
    kept_bins = np.repeat(kept, lengths)
    first_bin = np.zeros(int(kept.sum()) + 1, np.int64)
    np.cumsum(lengths[kept], out=first_bin[1:])
    return EdgeTable(
        u=np.minimum(u, v)[kept],
        v=np.maximum(u, v)[kept],
        **{name: getattr(table, name)[kept] for name in ("contact", "count", "total", "highest")},
        first_bin=first_bin,
        bins=table.bins[kept_bins],
        bin_counts=table.bin_counts[kept_bins],
    )


def _empty() -> EdgeTable:
    types = {"u": np.uint64, "v": np.uint64, "highest": np.uint8, "bins": np.uint8}
    columns: dict[str, NDArray[Any]] = {
        field.name: np.zeros(0, types.get(field.name, np.int64)) for field in fields(EdgeTable)
    }
    return EdgeTable(**columns | {"first_bin": np.zeros(1, np.int64)})


def _group_begins(changes: NDArray[np.bool_], rows: int) -> NDArray[np.int64]:
    """Return where each group of equal rows begins, of a column that is in order."""
    if rows == 0:
        return np.zeros(0, np.int64)
    return np.concatenate([[0], np.flatnonzero(changes) + 1]).astype(np.int64)


def _added(values: NDArray[np.int64], begins: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.add.reduceat(values, begins) if values.size else values


def _summed_bins(
    parts: list[EdgeTable], group_of_row: NDArray[np.int64], groups: int
) -> tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.int64]]:
    """Return the bins of each group: first bin of each, bins, counts."""
    lengths = np.concatenate([np.diff(part.first_bin) for part in parts])
    keys = np.repeat(group_of_row, lengths) * BINS + np.concatenate([part.bins for part in parts])
    counts = np.concatenate([part.bin_counts for part in parts])
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    begins = _group_begins(keys[1:] != keys[:-1], keys.size)
    owner, bins = np.divmod(keys[begins], BINS)
    first_bin = np.zeros(groups + 1, np.int64)
    np.cumsum(np.bincount(owner, minlength=groups), out=first_bin[1:])
    return first_bin, bins.astype(np.uint8), _added(counts[order], begins)
