"""N5: axes and all spatial attributes are x, y, z on disk; presented, as everything here, as z, y, x."""

from pathlib import Path
from typing import Any

from incasem.errors import DataError
from incasem.volumes.codecs import n5_compression
from incasem.volumes.files import directory_lock, is_url, join, read_json, write_json
from incasem.volumes.metadata import Triple, axes_for, nm_per_unit, scaled, triple, whole
from incasem.volumes.store import ArrayRequest, Place
from incasem.volumes.tensor import canonical_metadata

_NAME = "attributes.json"
_KEYS = ("dimensions", "blockSize", "dataType", "compression")
# What the array's metadata needs beside the user's attributes; old files spell compression otherwise.
_RESERVED = (*_KEYS, "compressionType", "n5")
# The oldest version that has all that is written here, so that any N5 library opens it.
_VERSION = "2.0.0"
_DEPTH = 3


class N5:
    """N5; see `Layout`."""

    driver = "n5"
    metadata_name = _NAME

    def metadata(self, path: str) -> dict[str, Any]:
        """Return what describes the array in `attributes.json`, not the user's part of it."""
        stored = read_json(join(path, _NAME)) or {}
        if "compression" not in stored and "compressionType" in stored:
            stored["compression"] = {"type": stored["compressionType"]}
        missing = [key for key in _KEYS if key not in stored]
        if missing:
            raise DataError(
                f"{path}/{_NAME} is damaged: it lacks {', '.join(missing)}. Restore it from a copy."
            )
        return {key: stored[key] for key in _KEYS}

    def attributes(self, path: str) -> dict[str, Any]:
        """Return the user's attributes as stored (x, y, z)."""
        stored = read_json(join(path, _NAME)) or {}
        return {key: value for key, value in stored.items() if key not in _RESERVED}

    def place(self, path: str, attributes: dict[str, Any], shape: tuple[int, ...]) -> Place | None:
        """Return the place by the conventions of COSEM, Saalfeld lab and N5 viewer, in that order.

        `transform` names its axes. `resolution` of the array is its own; `pixelResolution`, of the array or a
        group above, is that of the full resolution and is multiplied by `downsamplingFactors`.
        """
        axes = axes_for(len(shape), path)
        if isinstance(attributes.get("transform"), dict):
            return _from_transform(attributes["transform"], axes, path)
        factor = nm_per_unit(attributes.get("unit", _first(attributes.get("units"))), path)
        voxel_size = None
        if "resolution" in attributes:
            voxel_size = scaled(_xyz(attributes["resolution"], "resolution", path), [factor] * 3)
        else:
            voxel_size = _full_resolution(path, attributes)
            if voxel_size is not None and "downsamplingFactors" in attributes:
                factors = _xyz(attributes["downsamplingFactors"], "downsamplingFactors", path)
                voxel_size = scaled(voxel_size, factors)
        offset = scaled(_xyz(attributes.get("offset", (0, 0, 0)), "offset", path), [factor] * 3)
        if voxel_size is None:
            return None
        return Place(axes, voxel_size, offset)

    def update_attributes(self, path: str, changes: dict[str, Any]) -> dict[str, Any]:
        """Merge changes into `attributes.json`."""
        taken = sorted(set(changes) & set(_RESERVED))
        if taken:
            raise DataError(
                f"attribute {taken[0]!r} of {path} describes the array itself. Choose another name."
            )
        with directory_lock(Path(path)):
            stored = (read_json(join(path, _NAME)) or {}) | changes
            write_json(Path(path) / _NAME, stored, keep_mtime=True)
        return self.attributes(path)

    def key(self, unit: tuple[int, ...], metadata: dict[str, Any]) -> str:
        """Return the block's file name."""
        return "/".join(str(i) for i in unit)

    def create(self, container: Path, dataset: str, request: ArrayRequest) -> None:
        """Write the container's version and the array's metadata, attributes included."""
        if request.shard_shape is not None:
            raise DataError(
                "shard_shape is set for an N5 array; shards need Zarr v3. Choose a .zarr container."
            )
        directory = container / dataset
        fields = {
            "dimensions": list(request.shape[::-1]),
            "blockSize": list(request.chunk_shape[::-1]),
            "dataType": request.dtype.name,
            "compression": n5_compression(request.compression, request.dtype),
        }
        metadata = canonical_metadata(self.driver, fields, str(directory))
        resolution, offset = (whole(v[::-1]) for v in (request.place.voxel_size, request.place.offset_nm))
        attributes = {
            "resolution": resolution,
            "offset": offset,
            "pixelResolution": {"dimensions": resolution, "unit": "nm"},
        }
        directory.mkdir(parents=True, exist_ok=True)
        root = read_json(str(container / _NAME)) or {}
        if dataset and "n5" not in root:
            write_json(container / _NAME, {"n5": _VERSION} | root)
        version = {} if dataset else {"n5": _VERSION}
        write_json(
            directory / _NAME, version | {k: metadata[k] for k in _KEYS} | attributes | request.attributes
        )

    def register(self, container: Path, dataset: str, place: Place) -> None:
        """Do nothing: N5 groups do not list their arrays."""


def _first(units: object) -> object:
    return units[0] if isinstance(units, list) and units else units


def _xyz(values: object, name: str, path: str) -> Triple:
    """Return z, y, x from an attribute in x, y, z; further values (channels) are dropped."""
    first_three = list(values)[:3] if isinstance(values, list | tuple) else values
    x, y, z = triple(first_three, name, path)
    return (z, y, x)


def _from_transform(transform: dict[str, Any], axes: tuple[str, ...], path: str) -> Place:
    names = [str(a) for a in transform.get("axes", [])]
    if sorted(names) != ["x", "y", "z"]:
        raise DataError(
            f"axes of {path}'s transform are {names}; allowed: x, y and z. Correct its attributes."
        )
    scale = triple(transform.get("scale"), "scale", path)
    translation = triple(transform.get("translate", (0, 0, 0)), "translate", path)
    units = transform.get("units") or ["nm"] * 3
    by_name = {
        n: (s, t, nm_per_unit(u, path)) for n, s, t, u in zip(names, scale, translation, units, strict=True)
    }
    (sz, tz, uz), (sy, ty, uy), (sx, tx, ux) = (by_name[axis] for axis in "zyx")
    return Place(axes, scaled((sz, sy, sx), (uz, uy, ux)), scaled((tz, ty, tx), (uz, uy, ux)))


def _full_resolution(path: str, attributes: dict[str, Any]) -> Triple | None:
    """Return the full-resolution voxel size that the array, or the nearest group above it, states."""
    for _ in range(_DEPTH):
        stated = attributes.get("pixelResolution", attributes.get("resolution"))
        if isinstance(stated, dict):
            size = _xyz(stated.get("dimensions"), "pixelResolution", path)
            return scaled(size, [nm_per_unit(stated.get("unit"), path)] * 3)
        if stated is not None:
            factor = nm_per_unit(attributes.get("unit", _first(attributes.get("units"))), path)
            return scaled(_xyz(stated, "pixelResolution", path), [factor] * 3)
        if is_url(path) or path.rstrip("/").endswith(".n5"):
            return None
        path = str(Path(path).parent)
        attributes = read_json(join(path, _NAME)) or {}
    return None
