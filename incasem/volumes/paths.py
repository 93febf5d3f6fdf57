"""One kind of path for every format: container, then dataset.

``cell.zarr/volumes/raw``, ``export.n5/c1/s0``, ``data.h5/raw``, ``stack_dir/``. The container is recognised
by its suffix, else by what lies there.
"""

import os
import re
from pathlib import Path
from typing import Literal

from incasem.errors import DataError, did_you_mean
from incasem.volumes import hdf5
from incasem.volumes.files import is_url, join, read_bytes, read_json
from incasem.volumes.ngff_groups import group_multiscales
from incasem.volumes.sections import TIFF_SUFFIXES, is_stack

Format = Literal["zarr2", "zarr3", "n5", "hdf5", "stack"]

_DIRECTORY_SUFFIXES = (".zarr", ".n5")
_MARKS = ("zarr.json", ".zarray", ".zgroup", "attributes.json")
_SHOWN = 20


def split(path: str | os.PathLike[str]) -> tuple[str, str]:
    """Return container and dataset (empty for the container itself) as texts; URLs are allowed."""
    text = os.fspath(path)
    scheme, separator, rest = text.partition("://") if is_url(text) else ("", "", text)
    parts = rest.rstrip("/").split("/") if rest.rstrip("/") else [rest]
    suffixes = _DIRECTORY_SUFFIXES + hdf5.SUFFIXES + TIFF_SUFFIXES
    at = next((i for i in reversed(range(len(parts))) if parts[i].lower().endswith(suffixes)), None)
    if at is None:
        at = _container_on_disk(parts) if not separator else len(parts) - 1
    dataset = "/".join(part for part in parts[at + 1 :] if part)
    return scheme + separator + "/".join(parts[: at + 1]), dataset


def _container_on_disk(parts: list[str]) -> int:
    """Return the position of the outermost directory with Zarr or N5 metadata, else of the last part."""
    for i in range(len(parts)):
        directory = Path("/".join(parts[: i + 1]) or "/")
        if any((directory / mark).is_file() for mark in _MARKS):
            return i
    return len(parts) - 1


def split_path(path: str | os.PathLike[str]) -> tuple[Path, str]:
    """Return container and dataset of a local path.

    >>> split_path("data/cell.zarr/volumes/raw")
    (PosixPath('data/cell.zarr'), 'volumes/raw')
    """
    container, dataset = split(path)
    return Path(container), dataset


def find_format(path: str | os.PathLike[str]) -> Format | None:
    """Return the format of the array at ``path``, or None where there is no array."""
    container, dataset = split(path)
    if container.lower().endswith(hdf5.SUFFIXES) and not is_url(container):
        return "hdf5" if hdf5.has_dataset(container, dataset) else None
    found = _array_format(join(container, dataset))
    if found is None and not is_url(container) and is_stack(Path(join(container, dataset))):
        return "stack"
    return found


def locate(path: str | os.PathLike[str]) -> tuple[str, Format] | None:
    """Return where the array called ``path`` lies, and its format; None where there is no array.

    A group with levels ``s0``, ``s1``, … stands for its finest level, and so does an OME-Zarr group of one
    image for the level that its `multiscales` name first: a dataset keeps its name when it gets a pyramid.
    """
    text = os.fspath(path)
    found = find_format(text)
    if found is not None:
        return text, found
    for level in ("s0", *_first_levels(text)):
        inner = join(text, level)
        found = find_format(inner)
        if found is not None and found != "stack":
            return inner, found
    return None


def _first_levels(group: str) -> list[str]:
    """Return the finest level of the only image that a Zarr group's `multiscales` name, if there is one."""
    if split(group)[0].lower().endswith(hdf5.SUFFIXES):
        return []
    images = group_multiscales(group)
    if not (isinstance(images, list) and len(images) == 1 and isinstance(images[0], dict)):
        return []
    levels = [level.get("path") for level in images[0].get("datasets") or [] if isinstance(level, dict)]
    if any("/" in str(level) for level in levels):  # a group above the image
        return []
    return [str(levels[0])] if len(levels) > 1 or levels == ["0"] else []


def _array_format(directory: str) -> Format | None:
    if read_bytes(join(directory, ".zarray")) is not None:
        return "zarr2"
    node = read_json(join(directory, "zarr.json"))
    if node is not None and node.get("node_type") == "array":
        return "zarr3"
    node = read_json(join(directory, "attributes.json"))
    return "n5" if node is not None and "dimensions" in node else None


def exists(path: str | os.PathLike[str]) -> bool:
    """Tell whether there is an array (not merely a group) at ``path``, or a pyramid; see `locate`."""
    return locate(path) is not None


def list_datasets(container: str | os.PathLike[str]) -> list[str]:
    """Return the paths of all arrays in a local container or group, in natural order.

    An image stack, and a container that is an array itself, give ``[""]``; a missing container gives ``[]``.
    Hidden directories are left out: what is being made there is not there yet.
    """
    root, group = split(container)
    if is_url(root):
        return []
    if root.lower().endswith(hdf5.SUFFIXES):
        return sorted(hdf5.dataset_names(root, group), key=natural)
    directory = join(root, group)
    if is_stack(Path(directory)):
        return [""]
    found = []
    for current, directories, _ in os.walk(directory):
        if _array_format(current) is not None:
            found.append(os.path.relpath(current, directory))
            directories.clear()
        directories[:] = [name for name in directories if not name.startswith(".")]
    return sorted(("" if name == "." else name for name in found), key=natural)


def natural(text: str) -> list[tuple[int, str]]:
    """Return a key that sorts numbers inside texts by value."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text)]


def missing_error(path: str | os.PathLike[str]) -> DataError:
    """Return the error for a path without an array: what is there, and what was perhaps meant."""
    container, dataset = split(path)
    if is_url(container):
        return DataError(
            f"{os.fspath(path)} holds no array that can be read. Check the address and your access."
        )
    if not Path(container).exists():
        parent = Path(container).absolute().parent
        names = [entry.name for entry in parent.iterdir()] if parent.is_dir() else []
        return DataError(
            f"{container} does not exist.{did_you_mean(Path(container).name, names)} Check the path."
        )
    interrupted = Path(container, dataset).with_name(f".{Path(container, dataset).name}.pyramid")
    if dataset and find_format(interrupted / "s0") is not None:
        return DataError(
            f"{os.fspath(path)} lies in {interrupted}/s0, because a pyramid was interrupted in its last "
            "moment. Run the same `incasem pyramid` command again: it puts everything in its place."
        )
    datasets = list_datasets(container)
    if not datasets:
        return DataError(
            f"{container} holds no dataset that can be read; allowed: Zarr, N5, HDF5, a directory of TIFF or "
            "PNG images."
        )
    below = [name for name in datasets if name.startswith(f"{dataset}/")] if dataset else datasets
    what = f"{os.fspath(path)} is a group, not a dataset" if below else f"{dataset!r} is not in {container}"
    candidates = below or datasets
    shown = ", ".join(name or "(the container itself)" for name in candidates[:_SHOWN])
    more = f" and {len(candidates) - _SHOWN} more" if len(candidates) > _SHOWN else ""
    return DataError(f"{what}. Datasets in this file: {shown}{more}.{did_you_mean(dataset, datasets)}")
