"""A stack of whole planes that is filled one way and read the other.

Images come plane by plane, chunks are stored box by box. A slab of one chunk's depth stands between, so that
each image is decoded once and each chunk read or written once. Wide volumes have slabs of many gigabytes;
above a budget the slab lies in an unnamed temporary file, read and written by position: memory stays bounded.
"""

import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from incasem.errors import DataError

SLAB_BYTES = 512 * 2**20
"""Memory that one worker may use for a slab."""


class Slab:
    """A depth × height × width array, in memory or in a file; a context manager.

    Args:
        shape: depth, height, width.
        dtype: of the array.
        directory: where the temporary file lies, on the disk of the output.
        budget_bytes: largest slab kept in memory.
    """

    def __init__(
        self, shape: tuple[int, int, int], dtype: np.dtype, directory: Path, budget_bytes: int = SLAB_BYTES
    ) -> None:
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self.directory = directory
        self.in_memory = int(np.prod(shape)) * self.dtype.itemsize <= budget_bytes
        self._array = np.empty(shape if self.in_memory else (0, 0, 0), self.dtype)
        self._row_bytes = shape[2] * self.dtype.itemsize
        self._plane_bytes = shape[1] * self._row_bytes

    def __enter__(self) -> Self:
        """Open the file, if there is to be one; the system removes it however this process ends."""
        if not self.in_memory:
            try:
                self.directory.mkdir(parents=True, exist_ok=True)
                self._file = tempfile.TemporaryFile(dir=self.directory, prefix="slab")
            except OSError as error:
                raise self._failure(error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        if not self.in_memory:
            self._file.close()

    def set_plane(self, z: int, plane_YX: NDArray[Any]) -> None:
        """Store one plane."""
        self.set_rows(0, plane_YX[np.newaxis], z)

    def plane(self, z: int) -> NDArray[Any]:
        """Return one plane, YX."""
        return self.rows(0, self.shape[1], z, z + 1)[0]

    def set_rows(self, y: int, rows_ZYX: NDArray[Any], z: int = 0) -> None:
        """Store whole rows, from plane ``z`` and row ``y`` on.

        Raises:
            DataError: no space left for the temporary file.
        """
        depth, height, _ = rows_ZYX.shape
        if self.in_memory:
            self._array[z : z + depth, y : y + height] = rows_ZYX
            return
        try:
            for i in range(depth):
                self._file.seek((z + i) * self._plane_bytes + y * self._row_bytes)
                self._file.write(np.ascontiguousarray(rows_ZYX[i], self.dtype).data)
            self._file.flush()
        except OSError as error:
            raise self._failure(error) from error

    def rows(self, begin: int, end: int, z_begin: int = 0, z_end: int | None = None) -> NDArray[Any]:
        """Return the rows ``[begin, end)`` of the planes ``[z_begin, z_end)``, ZYX.

        Raises:
            DataError: the temporary file cannot be read.
        """
        z_end = self.shape[0] if z_end is None else z_end
        if self.in_memory:
            return self._array[z_begin:z_end, begin:end]
        rows = np.empty((z_end - z_begin, end - begin, self.shape[2]), self.dtype)
        try:
            for i in range(len(rows)):
                self._file.seek((z_begin + i) * self._plane_bytes + begin * self._row_bytes)
                self._file.readinto(rows[i].data)
        except OSError as error:
            raise self._failure(error) from error
        return rows

    def _failure(self, error: OSError) -> DataError:
        size = int(np.prod(self.shape)) * self.dtype.itemsize
        return DataError(
            f"the temporary file for a slab of {size / 1e9:.1f} GB in {self.directory} cannot be used: "
            f"{error}. "
            "Make space there, then run the same command again: it continues."
        )
