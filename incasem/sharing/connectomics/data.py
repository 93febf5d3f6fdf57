"""Which volumes are read: data configurations of ours for training, validation and prediction."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from incasem.errors import ConfigError, DataError, explain
from incasem.sharing.connectomics.listing import Listing
from incasem.volumes import list_datasets, open_volume
from incasem.volumes.paths import split

_HDF5 = (".h5", ".hdf5", ".hdf")
_DATASET = "main"
_STACKS = (".png", ".tif", ".tiff")


@dataclass(frozen=True)
class Volumes:
    """The volumes of one purpose.

    Attributes:
        entries: raw data, labels and mask of each, absolute.
        missing: files of it that are not there now.
        stated: voxel size that the images state, nm, z, y, x; None: they do not.
    """

    entries: dict[str, dict[str, Any]]
    missing: tuple[str, ...]
    stated: tuple[float, float, float] | None


def map_volumes(listing: Listing, purpose: str, folder: str, names: Sequence[str]) -> Volumes | None:
    """Return the volumes of one purpose, or None where no image is named.

    Args:
        listing: of the keys.
        purpose: first part of the entries' names.
        folder: key of their folder.
        names: keys of images, labels and masks.

    Raises:
        ConfigError: different numbers of images, labels and masks.
    """
    image_key = names[0]
    if listing.settings[image_key] is None:
        return None
    given = {key: _files(listing, key) for key in names}
    images = given[image_key]
    for key, files in given.items():
        if files and len(files) != len(images):
            raise ConfigError(
                explain(
                    key,
                    f"{len(files)} files",
                    f"{len(images)}, one for each of {image_key}",
                    "Separate them by @",
                )
            )
    absolute = _is_absolute(listing, folder)
    folders = [""] if absolute else _folders(listing, folder, len(images))
    entries: dict[str, dict[str, Any]] = {}
    missing: list[str] = []
    stated: list[tuple[float, float, float]] = []
    for k, image in enumerate(images):
        parent = folders[k % len(folders)]
        paths = [_volume(parent, files[k], missing) if files else None for files in given.values()]
        raw, labels, mask = (*paths, None, None)[:3]
        entry: dict[str, Any] = {"raw": raw}
        if labels is not None:
            entry["labels"] = {labels: 1}
        if mask is not None:
            entry["mask"] = mask
        name = purpose if len(images) == 1 else f"{purpose}_{k + 1}_{Path(image).stem.strip('.*')}"
        entries[name] = entry
        size = _stated(str(raw))
        stated += [size] if size is not None else []
    for key in names:
        listing.take(f"{purpose}.json", key)
    listing.take(f"{purpose}.json", folder)
    agreed = stated[0] if len(stated) == len(images) and len(set(stated)) == 1 else None
    return Volumes(entries, tuple(missing), agreed)


def common_folder(volumes: Sequence[Volumes]) -> str:
    """Return the folder that all volumes lie in."""
    paths = [path for one in volumes for entry in one.entries.values() for path in _paths(entry)]
    containers = [path.removesuffix("/.") if path.endswith("/.") else split(path)[0] for path in paths]
    return os.path.commonpath([os.path.dirname(container) for container in containers])


def data_config(volumes: Volumes, folder: str, voxel_size: Sequence[float]) -> dict[str, dict[str, Any]]:
    """Return a data configuration, paths relative to ``folder``, with a voxel size (nm) in each entry."""
    made = {}
    for name, entry in volumes.entries.items():
        raw = entry["raw"]
        in_stack = raw.endswith("/.")
        mapped: dict[str, Any] = {"file": os.path.relpath(raw, folder), "raw": "."} if in_stack else {}
        if not in_stack:
            mapped["raw"] = _relative(raw, folder)
        mapped["voxel_size"] = list(voxel_size)
        if "labels" in entry:
            mapped["labels"] = {_relative(path, folder): number for path, number in entry["labels"].items()}
        if "mask" in entry:
            mapped["mask"] = _relative(entry["mask"], folder)
        made[name] = mapped
    return made


def _paths(entry: dict[str, Any]) -> list[str]:
    return [entry["raw"], *entry.get("labels", ()), *([entry["mask"]] if "mask" in entry else [])]


def _relative(path: str, folder: str) -> str:
    """Return the path of a volume from ``folder``; that of a stack, which shows no container, stays."""
    return path if path.endswith("/.") else os.path.relpath(path, folder)


def _is_absolute(listing: Listing, folder: str) -> bool:
    group = folder.partition(".")[0]
    own = listing.settings[f"{group}.IS_ABSOLUTE_PATH"]
    listing.take("paths in the data configurations", f"{group}.IS_ABSOLUTE_PATH")
    return bool(listing.settings["DATASET.IS_ABSOLUTE_PATH"] if own is None else own)


def _files(listing: Listing, key: str) -> list[str]:
    value = listing.settings[key]
    if value is None:
        return []
    files = value if isinstance(value, list | tuple) else str(value).split("@")
    if not files or not all(isinstance(file, str) and file for file in files):
        raise ConfigError(explain(key, value, "names of files, several separated by @", "Correct it"))
    return list(files)


def _folders(listing: Listing, key: str, images: int) -> list[str]:
    value = listing.settings[key]
    if value is None:
        value = listing.settings["DATASET.INPUT_PATH"]
    folders = str(value).split("@")
    if len(folders) not in (1, images):
        raise ConfigError(
            explain(key, value, f"one folder, or {images}, one for each image", "Separate them by @")
        )
    return [os.path.abspath(os.path.expanduser(folder)) for folder in folders]


def _volume(folder: str, file: str, missing: list[str]) -> str:
    """Return the path of a volume; of HDF5 files with the first dataset, as the other program reads it."""
    path = os.path.abspath(os.path.join(folder, os.path.expanduser(file)))
    if "*" in os.path.basename(path) and path.lower().endswith(_STACKS):
        path = os.path.dirname(path) + "/."  # all its images
    if not os.path.exists(path):
        missing.append(path)
    if not path.lower().endswith(_HDF5):
        return path
    datasets = list_datasets(path)
    return f"{path}/{datasets[0] if datasets else _DATASET}"


def _stated(path: str) -> tuple[float, float, float] | None:
    try:
        volume = open_volume(path, quiet=True)
    except DataError:
        return None
    return volume.voxel_size if volume.has_stated_place else None
