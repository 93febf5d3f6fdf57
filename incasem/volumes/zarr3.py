"""Zarr v3, sharded or not. Everything in `zarr.json`; OME-NGFF 0.5 in the group above."""

from pathlib import Path
from typing import Any

from incasem.errors import DataError
from incasem.volumes.codecs import zarr3_codecs
from incasem.volumes.files import directory_lock, join, read_json, write_json
from incasem.volumes.metadata import place_attributes, place_from_attributes
from incasem.volumes.ngff_groups import place_in_groups, register_array
from incasem.volumes.store import ArrayRequest, Place, groups_above
from incasem.volumes.tensor import canonical_metadata

_NAME = "zarr.json"


class Zarr3:
    """Zarr v3; see `Layout`."""

    driver = "zarr3"
    metadata_name = _NAME

    def metadata(self, path: str) -> dict[str, Any]:
        """Return `zarr.json` without what tensorstore need not know."""
        stored = read_json(join(path, _NAME)) or {}
        missing = [key for key in ("shape", "data_type", "chunk_grid", "codecs") if key not in stored]
        if missing:
            raise DataError(
                f"{path}/{_NAME} is damaged: it lacks {', '.join(missing)}. Restore it from a copy."
            )
        return {
            key: value for key, value in stored.items() if key not in ("attributes", "storage_transformers")
        }

    def attributes(self, path: str) -> dict[str, Any]:
        """Return the array's attributes."""
        return dict((read_json(join(path, _NAME)) or {}).get("attributes") or {})

    def place(self, path: str, attributes: dict[str, Any], shape: tuple[int, ...]) -> Place | None:
        """Return the place that the array's own attributes tell, else the groups above it."""
        stated = place_from_attributes(attributes, len(shape), path)
        return stated if stated is not None and stated.stated else place_in_groups(path, len(shape)) or stated

    def update_attributes(self, path: str, changes: dict[str, Any]) -> dict[str, Any]:
        """Merge changes into the array's attributes."""
        with directory_lock(Path(path)):
            node = read_json(join(path, _NAME)) or {}
            node["attributes"] = (node.get("attributes") or {}) | changes
            write_json(Path(path) / _NAME, node, keep_mtime=True)
        return dict(node["attributes"])

    def key(self, unit: tuple[int, ...], metadata: dict[str, Any]) -> str:
        """Return the file name of a chunk or shard."""
        encoding = metadata.get("chunk_key_encoding", {"name": "default"})
        default = encoding.get("name", "default") == "default"
        separator = encoding.get("configuration", {}).get("separator", "/" if default else ".")
        return str(separator).join((["c"] if default else []) + [str(i) for i in unit])

    def create(self, container: Path, dataset: str, request: ArrayRequest) -> None:
        """Write the array's groups and its metadata, attributes included."""
        directory = container / dataset
        codecs = zarr3_codecs(request.compression, request.dtype)
        if request.shard_shape is not None:
            index_codecs = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
            configuration = {
                "chunk_shape": list(request.chunk_shape),
                "codecs": codecs,
                "index_codecs": index_codecs,
            }
            codecs = [{"name": "sharding_indexed", "configuration": configuration}]
        unit = list(request.shard_shape or request.chunk_shape)
        fields = {
            "zarr_format": 3,
            "node_type": "array",
            "shape": list(request.shape),
            "data_type": request.dtype.name,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": unit}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": False if request.dtype == bool else 0,
            "dimension_names": list(request.place.axes),
            "codecs": codecs,
        }
        canonical_metadata(self.driver, fields, str(directory))  # refuses what cannot be
        attributes = place_attributes(request.place) | request.attributes
        directory.mkdir(parents=True, exist_ok=True)
        for group in groups_above(container, dataset):
            if not (group / _NAME).exists():
                write_json(group / _NAME, {"zarr_format": 3, "node_type": "group", "attributes": {}})
        write_json(directory / _NAME, fields | {"attributes": attributes})

    def register(self, container: Path, dataset: str, place: Place) -> None:
        """Put the array into the `multiscales` of the group above it."""
        register_array(container, dataset, place)
