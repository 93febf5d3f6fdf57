"""Small tables: those that the blocks of fragments leave for the passes after them, and tables of numbers."""

import io
import zipfile
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from incasem.durable import write_durably
from incasem.errors import DataError

__all__ = ["Table", "fragment_of_piece", "load", "look_up", "save"]

Table: TypeAlias = dict[str, NDArray[Any]]
"""Arrays of one block. Pieces: ``first`` (flat index in the region of each piece's first voxel), ``link_of``,
``link_at`` and ``link_to`` (links that end inside the block), and ``face_00`` … ``face_21`` (axis, side).
Where the region graph is counted too: what `incasem.segmentation._piece_graph` says."""

_COMPRESSED_FROM = 4096  # bytes; below, compressing costs more than it saves
_PIECE = 1 << 16  # voxels at a time: they stay in the processor's cache
_LEVEL = 1  # of Deflate: a sixth of the default's time, a tenth more bytes


def save(path: Path, table: Table, *, durable: bool) -> None:
    """Store arrays in a file; a ``durable`` one is there whole or not at all, and on the disk on return."""
    path.parent.mkdir(parents=True, exist_ok=True)
    size = sum(array.nbytes for array in table.values())
    method = zipfile.ZIP_DEFLATED if size >= _COMPRESSED_FROM else zipfile.ZIP_STORED
    stored = io.BytesIO()
    with zipfile.ZipFile(stored, "w", method, compresslevel=_LEVEL) as archive:  # numpy's, which has no level
        for name, array in table.items():
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array(file, np.asanyarray(array), allow_pickle=False)
    if durable:
        write_durably(path, stored.getvalue())
    else:
        path.write_bytes(stored.getvalue())


def load(folder: Path, index: int) -> Any:
    """Open the stored arrays of one block; a context manager and a mapping, read when asked.

    Raises:
        DataError: somebody has deleted or damaged it.
    """
    path = folder / f"{index}.npz"
    try:
        return np.load(path)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path}, the table of a finished block, is missing or damaged ({error}). "
            f"Delete {folder.parent} to do all blocks again."
        ) from error


def fragment_of_piece(folder: Path, index: int) -> NDArray[np.uint64]:
    """Return the fragment of each piece of a block; entry 0 is background, 0."""
    first, end = np.load(folder / "first_piece.npy", mmap_mode="r")[index : index + 2]
    table = np.zeros(end - first + 1, np.uint64)
    table[1:] = np.load(folder / "fragment_of_piece.npy", mmap_mode="r")[first:end]
    return table


def look_up(table: NDArray[np.uint64], places: NDArray[Any], found: NDArray[np.uint64]) -> None:
    """Write ``table[place]`` for each place; ``found`` may be the places themselves. Both in C order.

    numpy alone would make another array of all places in the type that it wants them in.
    """
    flat, out = places.reshape(-1), found.reshape(-1)
    for begin in range(0, flat.size, _PIECE):
        piece = slice(begin, begin + _PIECE)
        out[piece] = table.take(flat[piece].astype(np.int64), mode="clip")
