"""Zarr and N5 arrays through tensorstore.

tensorstore gets the metadata from us rather than reading it itself (``assume_metadata``): so arrays open
whose metadata it is too strict for although it can decode their chunks. Its writes are flushed to the disk
before they count as done. Its threads do not survive a fork: workers must be spawned.
"""

import functools
import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tensorstore as ts
from numpy.typing import NDArray

from incasem.errors import DataError
from incasem.volumes.files import is_url, kvstore_spec
from incasem.volumes.metadata import axes_for
from incasem.volumes.store import ArrayRequest, Index, Place, format_index, unit_region, units_in

logger = logging.getLogger(__name__)

# How tensorstore's statuses come out in Python.
LIBRARY_ERRORS = (ValueError, OSError, RuntimeError, NotImplementedError, TypeError, IndexError)
_users: list[int] = []  # the process that first used tensorstore, and that a fork cannot follow


class Layout(Protocol):
    """One on-disk format: where its metadata lies and how tensorstore is told of it."""

    driver: str
    metadata_name: str

    def metadata(self, path: str) -> dict[str, Any]:
        """Return the metadata that tensorstore is to use; DataError if it cannot read such an array."""
        ...

    def attributes(self, path: str) -> dict[str, Any]:
        """Return the user's attributes as stored."""
        ...

    def place(self, path: str, attributes: dict[str, Any], shape: tuple[int, ...]) -> Place | None:
        """Return the place of the array (all stored axes, in presented order), or None if nothing says it."""
        ...

    def update_attributes(self, path: str, changes: dict[str, Any]) -> dict[str, Any]:
        """Merge changes into the stored attributes and return all of them."""
        ...

    def key(self, unit: tuple[int, ...], metadata: dict[str, Any]) -> str:
        """Return the name, below the array, of the file that holds a unit (stored axis order)."""
        ...

    def create(self, container: Path, dataset: str, request: ArrayRequest) -> None:
        """Write a new array's groups, attributes and, last, the metadata that makes it exist."""
        ...

    def register(self, container: Path, dataset: str, place: Place) -> None:
        """Tell the groups above of the array, where viewers look for it; may be repeated."""
        ...


@functools.cache
def _context(cache_bytes: int) -> ts.Context:
    """Return this process's context: one chunk cache a size, and no more threads than the process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return ts.Context(
        {
            "cache_pool": {"total_bytes_limit": cache_bytes},
            "data_copy_concurrency": {"limit": cores},
            "file_io_concurrency": {"limit": max(4, cores)},
        }
    )


def _refuse_fork() -> None:
    if not _users:
        _users.append(os.getpid())
    if _users[0] != os.getpid():
        raise RuntimeError(
            "volumes cannot be read or written in a forked process (tensorstore's threads do not survive a "
            "fork). Start workers by spawn: multiprocessing.get_context('spawn'), or "
            "multiprocessing_context='spawn'."
        )


class TensorArray:
    """A Zarr or N5 array; see `Store`."""

    concurrent_writers = True

    def __init__(self, path: str, layout: Layout, *, writable: bool, cache_bytes: int) -> None:
        """Open the array at ``path``.

        Raises:
            DataError: damaged or unsupported metadata, or no access.
        """
        _refuse_fork()
        self.path, self.layout, self.writable, self._cache_bytes = path, layout, writable, cache_bytes
        self._metadata = layout.metadata(path)
        handle = _open(path, layout, self._metadata, cache_bytes)
        if layout.driver == "n5":  # its axes are x, y, z
            handle = handle.T
        self.attributes = layout.attributes(path)
        stored_shape = tuple(int(n) for n in handle.shape)
        place = layout.place(path, self.attributes, stored_shape)
        if place is None:
            place = Place(axes_for(len(stored_shape), path), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), stated=False)
        self._has_time = place.axes[0] == "t"
        if self._has_time:
            if stored_shape[0] != 1:
                raise DataError(
                    f"{path} has {stored_shape[0]} time points; allowed: 1. Write one array a time point."
                )
            handle = handle[0]
            place = Place(place.axes[1:], place.voxel_size, place.offset_nm, place.stated)
        self._handle = handle
        self.place = place
        self.dtype = np.dtype(handle.dtype.numpy_dtype)
        self.shape = tuple(int(n) for n in handle.shape)
        self.chunk_shape = tuple(int(n) for n in handle.chunk_layout.read_chunk.shape)
        self.unit_shape = tuple(int(n) for n in handle.chunk_layout.write_chunk.shape)

    def __reduce__(self) -> tuple[Callable[..., "TensorArray"], tuple[object, ...]]:
        """Pickle as the way to open it again."""
        return _reopen, (self.path, self.layout, self.writable, self._cache_bytes)

    def read(self, index: Index) -> NDArray[Any]:
        """Return the elements at ``index``; DataError names the chunk that cannot be read."""
        _refuse_fork()
        try:
            return np.asarray(self._handle[index].read(order="C").result())
        except LIBRARY_ERRORS as error:
            raise self._failure("read", index, error) from error

    def write(self, index: Index, array: NDArray[Any]) -> None:
        """Store ``array`` at ``index``: all chunks in flight at once, durable on return.

        tensorstore reads a chunk at the volume's end before it replaces it. A torn one there, of a writer
        that was killed, is removed first: ``array`` covers all of it.
        """
        _refuse_fork()
        for _ in range(1 + len(units_in(index, self.unit_shape))):
            try:
                self._handle[index].write(array).result()
                return
            except LIBRARY_ERRORS as error:
                failure, torn = self._failure("written", index, error), self._torn_file(error)
                if torn is None:
                    raise failure from error
                logger.warning("%s is damaged and will be written anew", torn)
                torn.unlink(missing_ok=True)
        raise failure

    def _torn_file(self, error: Exception) -> Path | None:
        named = re.search(r'Error reading .*?local file "([^"]+)"', str(error))
        if named is None or not named[1].startswith(os.path.abspath(self.path) + os.sep):
            return None
        return Path(named[1]) if os.path.isfile(named[1]) else None

    def _failure(self, doing: str, index: Index, error: Exception) -> DataError:
        text = str(error)
        file = re.search(r'"(/[^"]+)"', text)
        reason = text.partition(" [tensorstore_spec")[0]
        if file is None or doing == "written":
            todo = "Check permissions, free space and network."
            return DataError(f"{self.path}: voxels {format_index(index)} cannot be {doing}: {reason}. {todo}")
        region = self._region_of(os.path.relpath(file[1], os.path.abspath(self.path)))
        what = f"{self.path}: the chunk file {file[1]}"
        what += f" (array elements {format_index(region)})" if region is not None else ""
        return DataError(
            f"{what} is truncated, damaged or unreadable: {reason}. Restore it from a copy, or write that "
            "region anew."
        )

    def _region_of(self, key: str) -> Index | None:
        numbers = [int(part) for part in re.split(r"[/.]", key) if part.isdigit()]
        if self.layout.driver == "n5":
            numbers.reverse()
        unit = tuple(numbers[1:] if self._has_time else numbers)
        return unit_region(unit, self.unit_shape, self.shape) if len(unit) == len(self.shape) else None

    def update_attributes(self, changes: dict[str, Any]) -> None:
        """Merge ``changes`` into the stored attributes, atomically."""
        if is_url(self.path):
            raise DataError(
                f"attributes of {self.path} cannot be changed: remote volumes are opened for reading."
            )
        self.attributes = self.layout.update_attributes(self.path, changes)

    def missing_units(self, index: Index) -> list[Index]:
        """Return the chunks (shards) that touch ``index`` and have no file; they read as fill value."""
        if is_url(self.path):
            raise DataError(
                f"missing chunks of {self.path} cannot be listed: it is remote. Copy it to a local disk."
            )
        missing = []
        for unit in units_in(index, self.unit_shape):
            stored = (0, *unit) if self._has_time else unit
            stored = stored[::-1] if self.layout.driver == "n5" else stored
            if not os.path.exists(os.path.join(self.path, self.layout.key(stored, self._metadata))):
                missing.append(unit_region(unit, self.unit_shape, self.shape))
        return missing

    def fingerprint(self) -> dict[str, object]:
        """Return when the array's metadata was written. Changing attributes through us does not alter it."""
        if is_url(self.path):
            return {}
        return {"metadata_mtime_ns": os.stat(os.path.join(self.path, self.layout.metadata_name)).st_mtime_ns}


def _reopen(path: str, layout: Layout, writable: bool, cache_bytes: int) -> TensorArray:
    return TensorArray(path, layout, writable=writable, cache_bytes=cache_bytes)


def _open(path: str, layout: Layout, metadata: dict[str, Any], cache_bytes: int) -> Any:
    spec = {
        "driver": layout.driver,
        "kvstore": kvstore_spec(path),
        "metadata": metadata,
        "assume_metadata": True,
        # So that a chunk that is not there was never written.
        "store_data_equal_to_fill_value": True,
    }
    try:
        return ts.open(spec, context=_context(cache_bytes)).result()
    except LIBRARY_ERRORS as error:
        raise _unsupported(path, error) from error


def _unsupported(path: str, error: Exception) -> DataError:
    reason = str(error).partition(" [tensorstore_spec")[0]
    return DataError(
        f"{path} cannot be opened: {reason}. Allowed: Zarr v2 or v3 and N5 with raw, gzip, zlib, bz2, zstd "
        "or Blosc chunks and no filters. Write it anew with one of these."
    )


def canonical_metadata(driver: str, metadata: dict[str, Any], path: str) -> dict[str, Any]:
    """Return ``metadata`` checked and completed by tensorstore, without touching the disk.

    Raises:
        DataError: such an array cannot be.
    """
    spec = {"driver": driver, "kvstore": {"driver": "memory", "path": "array/"}, "metadata": metadata}
    try:
        made = ts.open(spec, context=ts.Context(), create=True).result().spec().to_json()["metadata"]
    except LIBRARY_ERRORS as error:
        raise _unsupported(path, error) from error
    return dict(made)
