"""HDF5 datasets (CREMI layout: attributes `resolution` and `offset`, z, y, x) through h5py.

The file is opened for each access and closed again: handles survive neither a fork nor another program's
write. HDF5 has one writer at a time and no readers beside it; block-wise jobs with several workers write
Zarr.
"""

import contextlib
import json
import os
import threading
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from incasem.durable import sync
from incasem.errors import DataError
from incasem.volumes.codecs import hdf5_filters
from incasem.volumes.metadata import axes_for, place_attributes, place_from_attributes
from incasem.volumes.store import ArrayRequest, Index, Place, format_index, unit_region, units_in

SUFFIXES = (".h5", ".hdf5", ".hdf")
# h5py is not to be entered with the same file in two modes at once.
_ACCESS = threading.RLock()


@contextlib.contextmanager
def _opened(path: str, mode: str) -> Iterator[Any]:
    """Open a file; the library's errors become DataErrors that name it."""
    with _ACCESS:
        try:
            file = h5py.File(path, mode)
        except FileNotFoundError:
            raise DataError(f"{path} does not exist. Check the path.") from None
        except BlockingIOError as error:
            raise DataError(
                f"{path} is in use by another process: an HDF5 file has one writer at a time and no readers "
                "beside it. Close the other program, or write to a .zarr container, which many processes "
                "may share."
            ) from error
        except OSError as error:
            raise DataError(f"{path} cannot be opened as HDF5: {error}. Restore it from a copy.") from error
        with file:
            yield file


def has_dataset(container: str, dataset: str) -> bool:
    """Tell whether a file exists and has a dataset of this name."""
    if not os.path.isfile(container) or not dataset:
        return False
    with _opened(container, "r") as file:
        return isinstance(file.get(dataset), h5py.Dataset)


def dataset_names(container: str, group: str) -> list[str]:
    """Return the names of all datasets below ``group``; empty if the file or the group does not exist."""
    names: list[str] = []
    if not os.path.isfile(container):
        return names
    with _opened(container, "r") as file:
        top = file.get(group or "/")
        if isinstance(top, h5py.Dataset):
            return [""]
        if isinstance(top, h5py.Group):
            top.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    return names


class Hdf5Array:
    """An HDF5 dataset; see `Store`."""

    concurrent_writers = False

    def __init__(self, container: str, dataset: str, *, writable: bool) -> None:
        """Read the dataset's shape and attributes.

        Raises:
            DataError: the file is damaged or in use, or the dataset is no array of numbers.
        """
        self.container, self.dataset, self.writable = container, dataset, writable
        self.path = f"{container}/{dataset}"
        with _opened(container, "r") as file:
            found = file[dataset]
            self.dtype = np.dtype(found.dtype).newbyteorder("=")
            self.shape = tuple(int(n) for n in found.shape)
            chunks = found.chunks
            self.attributes = {name: _decoded(value) for name, value in found.attrs.items()}
        if self.dtype.kind not in "biuf":
            raise DataError(
                f"dtype of {self.path} is {self.dtype}; allowed: integers, floats, bool. Convert it."
            )
        # Without chunks any part can be written; a plane is a sensible unit.
        self.chunk_shape = tuple(chunks) if chunks else (1,) * (len(self.shape) - 2) + self.shape[-2:]
        self.unit_shape = self.chunk_shape
        self._is_chunked = chunks is not None
        place = place_from_attributes(self.attributes, len(self.shape), self.path)
        if place is None:
            place = Place(
                axes_for(len(self.shape), self.path), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), stated=False
            )
        self.place = place

    def read(self, index: Index) -> NDArray[Any]:
        """Return the elements at ``index``."""
        with _opened(self.container, "r") as file:
            try:
                return np.asarray(file[self.dataset][index], dtype=self.dtype)
            except OSError as error:
                raise DataError(
                    f"{self.path}: voxels {format_index(index)} cannot be read, the file is truncated or "
                    f"damaged: {error}. Restore it from a copy."
                ) from error

    def write(self, index: Index, array: NDArray[Any]) -> None:
        """Store ``array`` at ``index``; flushed to the disk on return."""
        with _opened(self.container, "r+") as file:
            try:
                file[self.dataset][index] = array
                file.flush()
            except OSError as error:
                raise DataError(
                    f"{self.path}: voxels {format_index(index)} cannot be written: {error}. Check the free "
                    "space."
                ) from error
        sync(self.container)

    def update_attributes(self, changes: dict[str, Any]) -> None:
        """Merge ``changes`` into the dataset's attributes; mappings are stored as JSON text."""
        with _opened(self.container, "r+") as file:
            for name, value in changes.items():
                file[self.dataset].attrs[name] = _encoded(value)
            file.flush()
        sync(self.container)
        self.attributes = self.attributes | changes

    def missing_units(self, index: Index) -> list[Index]:
        """Return the chunks that touch ``index`` and were never written."""
        if not self._is_chunked:
            return []
        with _opened(self.container, "r") as file:
            found = file[self.dataset].id
            regions = [unit_region(u, self.unit_shape, self.shape) for u in units_in(index, self.unit_shape)]
            return [
                r
                for r in regions
                if found.get_chunk_info_by_coord(tuple(s.start for s in r)).byte_offset is None
            ]

    def fingerprint(self) -> dict[str, object]:
        """Return size and time of the file: any write to it, of another dataset too, counts as a change."""
        status = os.stat(self.container)
        return {"file_mtime_ns": status.st_mtime_ns, "file_bytes": status.st_size}


def create(container: str, dataset: str, request: ArrayRequest) -> None:
    """Create a dataset with its groups and attributes.

    Raises:
        DataError: the file cannot be opened, or the name is taken.
    """
    if not dataset:
        raise DataError(
            f"{container} names no dataset; allowed: a path such as {container}/volumes/raw. Add its name."
        )
    if request.shard_shape is not None:
        raise DataError(
            "shard_shape is set for an HDF5 dataset; shards need Zarr v3. Choose a .zarr container."
        )
    chunks = tuple(min(c, n) for c, n in zip(request.chunk_shape, request.shape, strict=True))
    filters = hdf5_filters(request.compression, request.dtype)
    with _opened(container, "a") as file:
        try:
            made = file.create_dataset(dataset, request.shape, request.dtype, chunks=chunks, **filters)
        except (ValueError, TypeError, OSError) as error:
            raise DataError(
                f"{container}/{dataset} cannot be created: {error}. Choose another name."
            ) from error
        attributes = place_attributes(request.place) | {"unit": "nm"} | request.attributes
        for name, value in attributes.items():
            made.attrs[name] = _encoded(value)
        file.flush()
    sync(container)


def _encoded(value: Any) -> Any:
    if isinstance(value, dict) or value is None:
        return json.dumps(value)
    is_plain_list = isinstance(value, list) and all(isinstance(v, int | float | str) for v in value)
    return json.dumps(value) if isinstance(value, list) and not is_plain_list else value


def _decoded(value: Any) -> Any:
    """Return an attribute as plain Python; JSON objects stored as text are parsed."""
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if (isinstance(value, str) and value[:1] in ("{", "[")) or value == "null":
        with contextlib.suppress(ValueError):
            return json.loads(value)
    return value
