"""The edge store: where the blocks of a region graph are collected, until all of them are there.

One SQLite file by default; a PostgreSQL database, for workers on several machines, has the same tables:

- ``incasem_parts``: up to 65,536 rows of a block's table in one database row (packed columns, see
  `incasem.segmentation._packing`), keyed by block: a block that is done twice replaces what it wrote
  before, in one transaction, so it never counts twice;
- ``incasem_meta``: attributes, such as the finished-mark.

Blocks belong to a *cut*, that is one way of dividing the region. When a job finishes, its cut is noted and
the parts of others, left by an interrupted run with other blocks, are removed; only then may one read.
"""

import hashlib
import json
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from incasem.blockwise import Grid
from incasem.errors import DataError
from incasem.segmentation._databases import Database, Run, database_at
from incasem.segmentation._packing import pack_edges, pack_fragments, unpack_edges, unpack_fragments
from incasem.segmentation.region_graph import EdgeTable, FragmentTable, summed_edges, summed_fragments

__all__ = ["EdgeStore", "cut_of", "open_edge_store"]

ROWS_IN_A_PART = 65_536
_WAITING_ROWS = 1_000_000
_EDGES, _FRAGMENTS = "edges", "fragments"
_SIGN = 1 << 63  # databases have signed integers only: ids are stored less 2^63, which keeps their order

T = TypeVar("T", EdgeTable, FragmentTable)


def cut_of(grid: Grid) -> str:
    """Return the name of the way in which a grid divides its region."""
    roi = grid.total_roi
    numbers = [[int(n) for n in triple] for triple in (roi.begin, roi.shape, grid.block_shape)]
    return hashlib.sha256(json.dumps(numbers).encode()).hexdigest()[:16]


class EdgeStore:
    """A region graph on disk; picklable, each process connects for itself. Use `open_edge_store`.

    Attributes:
        database: the file or server.
        volume: tells the graphs in one database apart.
    """

    def __init__(self, database: Database, volume: str) -> None:
        """Wrap a database; it is not connected to yet."""
        self.database, self.volume = database, volume

    @property
    def path(self) -> str:
        """For messages; without a password."""
        return self.database.name

    def create(self) -> str:
        """Make the tables if they are missing; return the token of this graph, made when it was new.

        Raises:
            DataError: the database cannot be reached or written.
        """
        with self.database.transaction() as run:
            for statement in self.database.dialect.tables:
                run(statement)
            run(
                "INSERT INTO incasem_meta (volume, name, value) VALUES (?, 'token', ?) "
                "ON CONFLICT (volume, name) DO NOTHING",
                (self.volume, secrets.token_hex(8)),
            )
            return str(self._meta(run, "token"))

    @property
    def attributes(self) -> Mapping[str, Any]:
        """Attributes as stored."""
        with self.database.transaction() as run:
            return json.loads(self._meta(run, "attributes") or "{}")

    def set_attributes(self, **attributes: Any) -> None:
        """Merge into the stored attributes, durably and atomically."""
        with self.database.transaction() as run:
            self._merge_attributes(run, attributes)

    def finish(self, cut: str, **attributes: Any) -> None:
        """Note that a cut is complete, with attributes, and remove the parts of all others."""
        with self.database.transaction() as run:
            run("DELETE FROM incasem_parts WHERE volume = ? AND cut <> ?", (self.volume, cut))
            self._merge_attributes(run, attributes | {"cut": cut})

    def _merge_attributes(self, run: Run, attributes: Mapping[str, Any]) -> None:
        stored = json.loads(self._meta(run, "attributes") or "{}")
        run(
            "INSERT INTO incasem_meta (volume, name, value) VALUES (?, 'attributes', ?) "
            "ON CONFLICT (volume, name) DO UPDATE SET value = excluded.value",
            (self.volume, json.dumps(stored | attributes)),
        )

    def _meta(self, run: Run, name: str) -> str | None:
        rows = run("SELECT value FROM incasem_meta WHERE volume = ? AND name = ?", (self.volume, name))
        return rows[0][0] if rows else None

    def write_block(self, cut: str, block: int, edges: EdgeTable, fragments: FragmentTable) -> None:
        """Store what a block counted, in place of what it stored before; durable on return.

        Raises:
            DataError: the disk is full, or the database is gone.
        """
        key = (self.volume, cut, block)
        parts = [
            (*key, kind, part, _first_id(table), len(table), _packed(table))
            for kind, tables in ((_EDGES, _parts(edges)), (_FRAGMENTS, _parts(fragments)))
            for part, table in enumerate(tables)
        ]
        with self.database.transaction() as run:
            run("DELETE FROM incasem_parts WHERE volume = ? AND cut = ? AND block = ?", key)
            for row in parts:
                run(
                    "INSERT INTO incasem_parts (volume, cut, block, kind, part, first_id, row_count, data) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    row,
                )

    def edges(self) -> Iterator[EdgeTable]:
        """Yield the pairs of touching fragments in order of (u, v), each once, some thousands at a time.

        Raises:
            DataError: the graph is not complete, or its parts are damaged.
        """
        return self._in_order(_EDGES, unpack_edges, summed_edges, lambda table: table.u)

    def fragments(self) -> Iterator[FragmentTable]:
        """Yield the fragments in order of their ids, each once, with their sizes; see `edges`."""
        return self._in_order(_FRAGMENTS, unpack_fragments, summed_fragments, lambda table: table.ids)

    def _in_order(
        self,
        kind: str,
        unpack: Callable[[bytes, str], T],
        summed: Callable[[Iterable[T]], T],
        ids_of: Callable[[T], NDArray[np.uint64]],
    ) -> Iterator[T]:
        """Merge the parts: what lies before the first id of the next part cannot be met again."""
        waiting: list[T] = []
        rows, enough = 0, _WAITING_ROWS
        for first, data in self._parts_in_order(kind):
            if rows > enough:
                table = summed(waiting)
                ready = int(np.searchsorted(ids_of(table), first))
                if ready:
                    yield table.rows(0, ready)
                waiting = [table.rows(ready, len(table))]
                rows = len(waiting[0])
                enough = max(_WAITING_ROWS, 2 * rows)  # so that nothing is summed over and over
            waiting.append(unpack(data, self.path))
            rows += len(waiting[-1])
        if waiting:
            yield summed(waiting)

    def _parts_in_order(self, kind: str) -> Iterator[tuple[np.uint64, bytes]]:
        cut = self.attributes.get("cut")
        if cut is None:
            raise DataError(
                f"the edge store {self.path} is not complete: the command that began it was interrupted or "
                "is still at work. Run that command again first."
            )
        with self.database.transaction() as run:
            keys = run(
                "SELECT first_id, block, part FROM incasem_parts WHERE volume = ? AND cut = ? AND kind = ? "
                "ORDER BY first_id, block, part",
                (self.volume, cut, kind),
            )
        for first, block, part in keys:
            with self.database.transaction() as run:
                rows = run(
                    "SELECT data FROM incasem_parts WHERE volume = ? AND cut = ? AND block = ? AND kind = ? "
                    "AND part = ?",
                    (self.volume, cut, block, kind, part),
                )
            if not rows:
                raise DataError(f"the edge store {self.path} was changed while it was read. Start again.")
            yield np.uint64(first + _SIGN), bytes(rows[0][0])


def _parts(table: Any) -> Iterator[Any]:
    for begin in range(0, len(table), ROWS_IN_A_PART):
        yield table.rows(begin, min(begin + ROWS_IN_A_PART, len(table)))


def _packed(table: EdgeTable | FragmentTable) -> bytes:
    return pack_edges(table) if isinstance(table, EdgeTable) else pack_fragments(table)


def _first_id(table: EdgeTable | FragmentTable) -> int:
    ids = table.u if isinstance(table, EdgeTable) else table.ids
    return int(ids[0]) - _SIGN


def open_edge_store(location: str | Path, volume: str) -> EdgeStore:
    """Return the edge store at a location; it is created by `EdgeStore.create`.

    Args:
        location: a file, or the URL of a database (``postgresql://USER@HOST/DATABASE``; the password
            comes from ``PGPASSWORD`` or ``~/.pgpass``).
        volume: tells the graphs in one database apart; the path of the fragments, for instance.

    Raises:
        ConfigError: a URL of something else; the driver of PostgreSQL is not installed.
    """
    return EdgeStore(database_at(location), volume)
