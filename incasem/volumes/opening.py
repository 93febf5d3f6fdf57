"""Opening and creating volumes by path."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from incasem.errors import DataError, explain
from incasem.volumes import hdf5
from incasem.volumes.files import directory_lock, is_url, join
from incasem.volumes.hdf5 import Hdf5Array
from incasem.volumes.image_stack import ImageStack
from incasem.volumes.metadata import axes_for, check_voxel_size, on_grid, triple
from incasem.volumes.n5 import N5
from incasem.volumes.paths import Format, find_format, locate, missing_error, split
from incasem.volumes.sections import TIFF_SUFFIXES
from incasem.volumes.store import ArrayRequest, Place, Store
from incasem.volumes.tensor import Layout, TensorArray
from incasem.volumes.volume import Volume
from incasem.volumes.zarr2 import Zarr2
from incasem.volumes.zarr3 import Zarr3

logger = logging.getLogger(__name__)

_LAYOUTS: dict[Format, Layout] = {"zarr2": Zarr2(), "zarr3": Zarr3(), "n5": N5()}
PathLike = str | os.PathLike[str]


def open_volume(
    path: PathLike,
    *,
    writable: bool = False,
    cache_bytes: int = 0,
    voxel_size: Sequence[float] | None = None,
    offset_nm: Sequence[float] | None = None,
    quiet: bool = False,
) -> Volume:
    """Open an array: Zarr v2 or v3, N5, HDF5, an image stack; Zarr and N5 also by URL, to read.

    Args:
        path: container and dataset, such as ``cell.zarr/volumes/raw``; a pyramid (a group with ``s0``,
            ``s1``, …) stands for its finest level.
        writable: allow `Volume.write_voxels` and `Volume.set_attributes`.
        cache_bytes: keep decoded chunks up to this size, shared by the process's volumes of the same setting;
            for many overlapping reads.
        voxel_size: nm, z, y, x; instead of what the file states.
        offset_nm: nm, z, y, x; instead of what the file states.
        quiet: do not warn where neither the file nor ``voxel_size`` states a voxel size: the caller knows it.

    Raises:
        DataError: nothing there (the message lists what the container has), unreadable, or off the grid.
    """
    text = os.fspath(path)
    located = locate(text)
    if located is None:
        raise missing_error(text)
    array, found = located
    if writable and (is_url(text) or found == "stack"):
        raise DataError(
            f"{text} cannot be opened for writing; allowed: local Zarr, N5 and HDF5. Write to one of these."
        )
    container, dataset = split(array)
    store: Store
    if found == "hdf5":
        store = Hdf5Array(container, dataset, writable=writable)
    elif found == "stack":
        store = ImageStack(join(container, dataset))
    else:
        directory = join(container, dataset)
        store = TensorArray(directory, _LAYOUTS[found], writable=writable, cache_bytes=cache_bytes)
    place = store.place
    if not (place.stated or quiet or voxel_size is not None or found == "stack"):
        logger.warning("%s states no voxel size; 1 nm is assumed", text)
    if voxel_size is not None:
        place = replace(place, voxel_size=triple(voxel_size, "voxel size", text), stated=True)
    if offset_nm is not None:
        place = replace(place, offset_nm=triple(offset_nm, "offset", text))
    return Volume(text, store, place)


def open_image_stack(path: PathLike, *, image_regex: str | None = None) -> Volume:
    """Open a directory of images, or one TIFF file, choosing the files by a regular expression.

    Args:
        path: the directory or file.
        image_regex: searched in the file names; its first group is the section number. None takes
            all TIFF and PNG files and the one number in which their names differ.

    Raises:
        DataError: missing or doubled sections, mixed sizes or dtypes, files that cannot be read.
        ConfigError: ``image_regex`` is none, or has no group of digits.
    """
    return Volume(os.fspath(path), ImageStack(os.fspath(path), image_regex))


def create_volume(
    path: PathLike,
    *,
    shape: Sequence[int],
    dtype: Any,
    voxel_size: Sequence[float],
    offset_nm: Sequence[float] = (0, 0, 0),
    axes: Sequence[str] | None = None,
    chunk_shape: Sequence[int] = (128, 128, 128),
    shard_shape: Sequence[int] | None = None,
    zarr_format: Literal[2, 3] | None = None,
    compression: str = "default",
    existing: Literal["error", "resume"] = "error",
    attributes: Mapping[str, Any] | None = None,
) -> Volume:
    """Create an array with its groups, attributes and OME-NGFF metadata, and open it for writing.

    Args:
        path: container and dataset; the container's suffix says the format: `.zarr`, `.n5`, `.h5`.
        shape: elements an axis, channels included.
        dtype: of the elements.
        voxel_size: nm, z, y, x.
        offset_nm: corner of the first voxel; nm, z, y, x; a multiple of the voxel size.
        axes: ``z, y, x`` or ``c, z, y, x``; by default after the number of dimensions.
        chunk_shape: voxels, z, y, x; with four values the first is channels (else 1).
        shard_shape: as ``chunk_shape``, multiples of it; Zarr v3 only.
        zarr_format: 2 or 3; by default that of an existing container, else 2.
        compression: ``default`` (by dtype), ``none``, ``lz4``, ``zstd``, ``zlib``, ``gzip``.
        existing: ``resume`` opens a dataset that exists if its shape, dtype, place and chunks are the same.
        attributes: the user's own.

    Raises:
        DataError: the dataset exists (with ``error``) or differs (with ``resume``); impossible shapes.
    """
    text = os.fspath(path)
    request = _request(
        text, shape, dtype, voxel_size, offset_nm, axes, chunk_shape, shard_shape, compression, attributes
    )
    if is_url(text):
        raise DataError(f"{text} cannot be created: remote stores are read-only here. Write to a local disk.")
    container, dataset = split(text)
    located = locate(text)
    found = None if located is None else located[1]
    if found is not None and existing == "error":
        raise DataError(f"{text} exists. Choose another name, or delete it first.")
    if found is None and container.lower().endswith(hdf5.SUFFIXES):
        Path(container).absolute().parent.mkdir(parents=True, exist_ok=True)
        hdf5.create(container, dataset, request)
    elif located is None or (located[0] == text and found in _LAYOUTS):  # a pyramid is registered as such
        _create_in_directory(text, container, dataset, request, zarr_format, existing)
    volume = open_volume(text, writable=True)
    _require_same(volume, request)
    return volume


def _request(
    path: str,
    shape: Sequence[int],
    dtype: Any,
    voxel_size: Sequence[float],
    offset_nm: Sequence[float],
    axes: Sequence[str] | None,
    chunk_shape: Sequence[int],
    shard_shape: Sequence[int] | None,
    compression: str,
    attributes: Mapping[str, Any] | None,
) -> ArrayRequest:
    sizes = _positive(shape, "shape", path)
    default_axes = axes_for(len(sizes), path)
    if axes is not None and tuple(axes) != default_axes:
        allowed = f"{default_axes} for {len(sizes)} dimensions"
        raise DataError(explain(f"axes of {path}", tuple(axes), allowed, "Transpose the array."))
    place = Place(default_axes, triple(voxel_size, "voxel size", path), triple(offset_nm, "offset", path))
    check_voxel_size(place.voxel_size, path)
    _require_on_grid(place, path)
    chunks = _per_axis(chunk_shape, len(sizes), "chunk shape", path)
    shards = None if shard_shape is None else _per_axis(shard_shape, len(sizes), "shard shape", path)
    if shards is not None and any(s % c for s, c in zip(shards, chunks, strict=True)):
        raise DataError(
            explain(f"shard shape of {path}", shards, f"multiples of the chunk shape {chunks}", "Change it.")
        )
    return ArrayRequest(
        sizes, np.dtype(dtype), on_grid(place, path), chunks, shards, compression, dict(attributes or {})
    )


def _require_on_grid(place: Place, path: str) -> None:
    """Refuse, on writing, also those offsets that reading forgives."""
    for offset, size in zip(place.offset_nm, place.voxel_size, strict=True):
        if abs(round(offset / size) * size - offset) > 0.5:
            raise DataError(
                explain(
                    f"offset of {path}",
                    f"{list(place.offset_nm)} nm",
                    f"multiples of the voxel size {list(place.voxel_size)} nm",
                    "Change the offset or the voxel size.",
                )
            )


def _positive(values: Sequence[int], name: str, path: str) -> tuple[int, ...]:
    numbers = tuple(int(v) for v in values)
    if not numbers or any(n < 1 for n in numbers):
        raise DataError(explain(f"{name} of {path}", numbers, "positive whole numbers", "Change it."))
    return numbers


def _per_axis(values: Sequence[int], ndim: int, name: str, path: str) -> tuple[int, ...]:
    numbers = _positive(values, name, path)
    if ndim == 4 and len(numbers) == 3:
        numbers = (1, *numbers)
    if len(numbers) != ndim:
        raise DataError(explain(f"{name} of {path}", numbers, f"{ndim} numbers", "Change it."))
    return numbers


def _create_in_directory(
    path: str, container: str, dataset: str, request: ArrayRequest, zarr_format: int | None, existing: str
) -> None:
    root = Path(container)
    if container.lower().endswith(TIFF_SUFFIXES):
        raise DataError(
            f"{path} cannot be created: image stacks are read-only here. Write to a .zarr container."
        )
    try:
        root.mkdir(parents=True, exist_ok=True)
        with directory_lock(root):
            found = find_format(path)
            if found is not None and existing == "error":
                raise DataError(f"{path} exists. Choose another name, or delete it first.")
            layout = _LAYOUTS[found if found is not None else _layout_for(root, zarr_format)]
            if found is None:
                _require_free(path, root, dataset)
                layout.create(root, dataset, request)
            else:  # before its group is told a place that is not its own
                _require_same(open_volume(path), request)
        layout.register(root, dataset, request.place)
    except OSError as error:
        raise DataError(
            f"{path} cannot be created: {error}. Check the path, permissions and free space."
        ) from error


def _layout_for(container: Path, zarr_format: int | None) -> Format:
    if container.suffix.lower() == ".n5":
        return "n5"
    is_3 = (container / "zarr.json").exists()
    is_2 = (container / ".zgroup").exists() or (container / ".zattrs").exists()
    if zarr_format is None:
        return "zarr3" if is_3 else "zarr2"
    if zarr_format not in (2, 3):
        raise DataError(explain("zarr_format", zarr_format, "2, 3", "Choose one."))
    if (zarr_format == 2 and is_3) or (zarr_format == 3 and is_2 and not is_3):
        raise DataError(
            f"zarr_format is {zarr_format}, but {container} is Zarr v{3 if is_3 else 2}. Leave zarr_format "
            "out, or choose another container."
        )
    return "zarr2" if zarr_format == 2 else "zarr3"


def _require_free(path: str, container: Path, dataset: str) -> None:
    """Refuse an array in the place of a group that holds others, or inside another array."""
    directory = container / dataset
    held = sorted(entry.name for entry in directory.iterdir()) if directory.is_dir() else []
    is_group = dataset and (".zgroup" in held or "zarr.json" in held)
    held = [
        name for name in held if not name.startswith(".") and name not in ("zarr.json", "attributes.json")
    ]
    if is_group or held:
        raise DataError(
            f"{path} cannot be created: there is a directory that holds {', '.join(held[:10]) or 'a group'}. "
            "Choose another name, or delete it."
        )
    parts = Path(dataset).parts
    for i in range(len(parts)):
        outer = str(container.joinpath(*parts[:i]))
        if find_format(outer) in _LAYOUTS:
            raise DataError(
                f"{path} cannot be created: {outer} is a dataset, not a group. Choose another name."
            )


def _require_same(volume: Volume, request: ArrayRequest) -> None:
    chunks = request.chunk_shape
    units = request.shard_shape or chunks
    if (
        split(volume.path)[0].lower().endswith(hdf5.SUFFIXES)
    ):  # whose chunks are never larger than the dataset
        chunks = units = tuple(min(c, n) for c, n in zip(chunks, request.shape, strict=True))
    pairs = {
        "shape": (volume.shape, request.shape),
        "dtype": (volume.dtype, request.dtype),
        "voxel size": (volume.voxel_size, request.place.voxel_size),
        "offset": (volume.offset_nm, request.place.offset_nm),
        "chunk shape": (volume.chunk_shape, chunks),
        "write unit": (volume.write_shape, units[-3:]),
    }
    differing = [
        f"{name} is {there}, wanted {wanted}" for name, (there, wanted) in pairs.items() if there != wanted
    ]
    if differing:
        raise DataError(
            f"{volume.path} exists and differs: {'; '.join(differing)}. Choose another name, or delete it."
        )
