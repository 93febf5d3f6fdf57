"""The rows of a table as bytes: column by column, little-endian, a value in as few bytes as the column needs.

In front: rows and bins (uint64), and the bytes of a value of each column (uint8). Edges: u, v, contact,
count, total, highest, number of bins, and then for all bins the affinity and how often. Fragments: id,
voxels.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from incasem.errors import DataError
from incasem.segmentation.region_graph import EdgeTable, FragmentTable

__all__ = ["pack_edges", "pack_fragments", "unpack_edges", "unpack_fragments"]

_HEAD_BYTES = 16
_WIDTHS = (1, 2, 4, 8)  # bytes
_EDGE_COLUMNS = ("u", "v", "contact", "count", "total", "highest")


def pack_edges(table: EdgeTable) -> bytes:
    """Return the rows of a block's table as bytes."""
    columns = [getattr(table, name) for name in _EDGE_COLUMNS]
    return _pack(
        len(table), table.bins.size, [*columns, np.diff(table.first_bin), table.bins, table.bin_counts]
    )


def unpack_edges(data: bytes, path: str) -> EdgeTable:
    """Return the rows that `pack_edges` packed.

    Raises:
        DataError: the bytes are not as long as they say.
    """
    rows, bins = _head(data, path)
    sizes = [rows] * (len(_EDGE_COLUMNS) + 1) + [bins] * 2
    u, v, contact, count, total, highest, bin_number, affinities, bin_counts = _columns(data, sizes, path)
    first_bin = np.zeros(rows + 1, np.int64)
    np.cumsum(bin_number, out=first_bin[1:])
    if first_bin[-1] != bins:
        raise _damaged(path)
    return EdgeTable(
        u=u.astype(np.uint64),
        v=v.astype(np.uint64),
        contact=contact.astype(np.int64),
        count=count.astype(np.int64),
        total=total.astype(np.int64),
        highest=highest.astype(np.uint8),
        first_bin=first_bin,
        bins=affinities.astype(np.uint8),
        bin_counts=bin_counts.astype(np.int64),
    )


def pack_fragments(table: FragmentTable) -> bytes:
    """Return the rows of a table of fragments as bytes."""
    return _pack(len(table), 0, [table.ids, table.voxels])


def unpack_fragments(data: bytes, path: str) -> FragmentTable:
    """Return the rows that `pack_fragments` packed; see `unpack_edges`."""
    rows, _ = _head(data, path)
    ids, voxels = _columns(data, [rows, rows], path)
    return FragmentTable(ids.astype(np.uint64), voxels.astype(np.int64))


def _pack(rows: int, bins: int, columns: Sequence[NDArray[Any]]) -> bytes:
    narrow = [column.astype(f"<u{_width_of(column)}") for column in columns]
    widths = bytes(column.itemsize for column in narrow)
    head = np.array([rows, bins], "<u8").tobytes()
    return b"".join([head, widths, *(column.tobytes() for column in narrow)])


def _width_of(column: NDArray[Any]) -> int:
    largest = int(column.max(initial=0))
    return next(width for width in _WIDTHS if largest >> 8 * width == 0)


def _head(data: bytes, path: str) -> tuple[int, int]:
    if len(data) < _HEAD_BYTES:
        raise _damaged(path)
    rows, bins = np.frombuffer(data, "<u8", 2)
    return int(rows), int(bins)


def _columns(data: bytes, sizes: Sequence[int], path: str) -> list[NDArray[Any]]:
    place = _HEAD_BYTES + len(sizes)
    widths = data[_HEAD_BYTES:place]
    whole = len(data) == place + sum(w * size for w, size in zip(widths, sizes, strict=False))
    if len(widths) < len(sizes) or not whole or not set(widths) <= set(_WIDTHS):
        raise _damaged(path)
    found = []
    for width, size in zip(widths, sizes, strict=True):
        found.append(np.frombuffer(data, f"<u{width}", size, place))
        place += width * size
    return found


def _damaged(path: str) -> DataError:
    return DataError(f"the edge store {path} is damaged. Delete it and run the same command again.")
