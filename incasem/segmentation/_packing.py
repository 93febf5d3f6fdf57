"""The rows of a table as bytes: its columns one after the other, little-endian, nothing else.

Edges: u, v (uint64), contact, count (uint32), total (uint64), highest (uint8), number of bins (uint16), and
then for all bins the affinity (uint8) and how often (uint32). Fragments: id, voxels (uint64). In front: rows,
bins (uint64).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from incasem.errors import DataError
from incasem.segmentation.region_graph import EdgeTable, FragmentTable

__all__ = ["pack_edges", "pack_fragments", "unpack_edges", "unpack_fragments"]

# A block has fewer than 2^32 edges.
_EDGE_COLUMNS = {
    "u": "<u8",
    "v": "<u8",
    "contact": "<u4",
    "count": "<u4",
    "total": "<u8",
    "highest": "<u1",
    "bin_number": "<u2",
}
_BIN_COLUMNS = {"bins": "<u1", "bin_counts": "<u4"}
_FRAGMENT_COLUMNS = {"ids": "<u8", "voxels": "<u8"}


def pack_edges(table: EdgeTable) -> bytes:
    """Return the rows of a block's table as bytes."""
    values = {name: getattr(table, name) for name in ("u", "v", "contact", "count", "total", "highest")}
    values["bin_number"] = np.diff(table.first_bin)
    head = np.array([len(table), table.bins.size], "<u8")
    columns = [values[name].astype(dtype) for name, dtype in _EDGE_COLUMNS.items()]
    columns += [getattr(table, name).astype(dtype) for name, dtype in _BIN_COLUMNS.items()]
    return b"".join(column.tobytes() for column in (head, *columns))


def unpack_edges(data: bytes, path: str) -> EdgeTable:
    """Return the rows that `pack_edges` packed.

    Raises:
        DataError: the bytes are not as long as they say.
    """
    rows, bins = _head(data, path)
    names = [(name, dtype, rows) for name, dtype in _EDGE_COLUMNS.items()]
    columns = _columns(data, names + [(name, dtype, bins) for name, dtype in _BIN_COLUMNS.items()], path)
    first_bin = np.zeros(rows + 1, np.int64)
    np.cumsum(columns["bin_number"], out=first_bin[1:])
    if first_bin[-1] != bins:
        raise _damaged(path)
    return EdgeTable(
        u=columns["u"].astype(np.uint64),
        v=columns["v"].astype(np.uint64),
        contact=columns["contact"].astype(np.int64),
        count=columns["count"].astype(np.int64),
        total=columns["total"].astype(np.int64),
        highest=columns["highest"].astype(np.uint8),
        first_bin=first_bin,
        bins=columns["bins"].astype(np.uint8),
        bin_counts=columns["bin_counts"].astype(np.int64),
    )


def pack_fragments(table: FragmentTable) -> bytes:
    """Return the rows of a table of fragments as bytes."""
    columns = (np.array([len(table), 0]), table.ids, table.voxels)
    return b"".join(column.astype("<u8").tobytes() for column in columns)


def unpack_fragments(data: bytes, path: str) -> FragmentTable:
    """Return the rows that `pack_fragments` packed; see `unpack_edges`."""
    rows, _ = _head(data, path)
    columns = _columns(data, [(name, dtype, rows) for name, dtype in _FRAGMENT_COLUMNS.items()], path)
    return FragmentTable(columns["ids"].astype(np.uint64), columns["voxels"].astype(np.int64))


def _head(data: bytes, path: str) -> tuple[int, int]:
    if len(data) < 16:
        raise _damaged(path)
    rows, bins = np.frombuffer(data, "<u8", 2)
    return int(rows), int(bins)


def _columns(data: bytes, columns: list[tuple[str, str, int]], path: str) -> dict[str, NDArray[Any]]:
    if len(data) != 16 + sum(np.dtype(dtype).itemsize * size for _, dtype, size in columns):
        raise _damaged(path)
    found, place = {}, 16
    for name, dtype, size in columns:
        found[name] = np.frombuffer(data, dtype, size, place)
        place += found[name].nbytes
    return found


def _damaged(path: str) -> DataError:
    return DataError(f"the edge store {path} is damaged. Delete it and run the same command again.")
