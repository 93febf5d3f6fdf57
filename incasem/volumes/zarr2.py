"""Zarr v2: the published layout. Attributes in `.zattrs`, OME-NGFF 0.4 in the group above."""

import os
from pathlib import Path
from typing import Any

from incasem.errors import DataError
from incasem.volumes.codecs import zarr2_compressor
from incasem.volumes.files import directory_lock, join, read_json, write_json
from incasem.volumes.metadata import place_attributes, place_from_attributes
from incasem.volumes.ngff_groups import place_in_groups, register_array
from incasem.volumes.store import ArrayRequest, Place, groups_above
from incasem.volumes.tensor import canonical_metadata

_KEYS = ("zarr_format", "shape", "chunks", "dtype", "compressor", "fill_value", "order", "filters")


class Zarr2:
    """Zarr v2; see `Layout`."""

    driver = "zarr"
    metadata_name = ".zarray"

    def metadata(self, path: str) -> dict[str, Any]:
        """Return `.zarray`, its gaps filled.

        Newer numcodecs state a checksum for Zstandard, which the frames themselves tell; old nested stores do
        not state their separator, which the files show.
        """
        stored = read_json(join(path, ".zarray")) or {}
        missing = [key for key in ("shape", "chunks", "dtype") if key not in stored]
        if missing:
            raise DataError(
                f"{path}/.zarray is damaged: it lacks {', '.join(missing)}. Restore it from a copy."
            )
        metadata = {key: stored[key] for key in _KEYS if key in stored}
        metadata["dimension_separator"] = stored.get("dimension_separator") or _separator(
            path, len(stored["shape"])
        )
        compressor = metadata.get("compressor")
        if isinstance(compressor, dict) and compressor.get("id") == "zstd":
            metadata["compressor"] = {key: compressor[key] for key in ("id", "level") if key in compressor}
        return metadata

    def attributes(self, path: str) -> dict[str, Any]:
        """Return `.zattrs`."""
        return read_json(join(path, ".zattrs")) or {}

    def place(self, path: str, attributes: dict[str, Any], shape: tuple[int, ...]) -> Place | None:
        """Return the place that the array's own attributes tell, else the groups above it."""
        stated = place_from_attributes(attributes, len(shape), path)
        return stated if stated is not None and stated.stated else place_in_groups(path, len(shape)) or stated

    def update_attributes(self, path: str, changes: dict[str, Any]) -> dict[str, Any]:
        """Merge changes into `.zattrs`."""
        with directory_lock(Path(path)):
            attributes = self.attributes(path) | changes
            write_json(Path(path) / ".zattrs", attributes)
        return attributes

    def key(self, unit: tuple[int, ...], metadata: dict[str, Any]) -> str:
        """Return the chunk's file name."""
        return str(metadata["dimension_separator"]).join(str(i) for i in unit)

    def create(self, container: Path, dataset: str, request: ArrayRequest) -> None:
        """Write the array's groups, attributes and metadata."""
        if request.shard_shape is not None:
            raise DataError(
                "shard_shape is set for a Zarr v2 array; shards need zarr_format 3. Choose one of the two."
            )
        directory = container / dataset
        metadata = canonical_metadata(
            self.driver,
            {
                "zarr_format": 2,
                "shape": list(request.shape),
                "chunks": list(request.chunk_shape),
                "dtype": request.dtype.str,
                "compressor": zarr2_compressor(request.compression, request.dtype),
                "dimension_separator": "/",
                "fill_value": False if request.dtype == bool else 0,
                "order": "C",
                "filters": None,
            },
            str(directory),
        )
        directory.mkdir(parents=True, exist_ok=True)
        for group in groups_above(container, dataset):
            if not (group / ".zgroup").exists():
                write_json(group / ".zgroup", {"zarr_format": 2})
        write_json(directory / ".zattrs", place_attributes(request.place) | request.attributes)
        write_json(directory / ".zarray", metadata)

    def register(self, container: Path, dataset: str, place: Place) -> None:
        """Put the array into the `multiscales` of the group above it."""
        register_array(container, dataset, place)


def _separator(path: str, ndim: int) -> str:
    """Return the separator that the chunk files have; the format's default is a dot."""
    if ndim < 2 or not os.path.isdir(path):
        return "."
    with os.scandir(path) as entries:
        first = next((entry for entry in entries if entry.name.split(".")[0].isdigit()), None)
        return "/" if first is not None and first.is_dir() else "."
