"""The regions of data configurations, as boxes over the raw data."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from neuroglancer import (
    AnnotationPropertySpec,
    AxisAlignedBoundingBoxAnnotation,
    CoordinateSpace,
    LocalAnnotationLayer,
)

from incasem.config import DataEntry, load_data_config
from incasem.errors import ConfigError, did_you_mean, explain
from incasem.geometry import Roi, format_roi, grow, to_world
from incasem.viewing.datasets import Dataset, find_datasets
from incasem.viewing.layers import make_layers
from incasem.viewing.pyramid import Pyramid, open_pyramid
from incasem.viewing.scene import Scene
from incasem.volumes import split_path

_ROI_COLOR = "#fa8072"
_CONTEXT_COLOR = "#90ee90"
_SHADER = """void main() {
  setColor(prop_color());
}
"""


def load_rois(configs: Sequence[Path], data_dir: Path, only_cell: str | None = None) -> list[DataEntry]:
    """Return the entries of data configurations that lie in one container.

    Args:
        configs: JSON files.
        data_dir: folder to which their `file` is relative.
        only_cell: the container, as `file` says it; needed where there are several.

    Raises:
        ConfigError: a nickname twice; several containers; no such container.
    """
    entries: dict[str, DataEntry] = {}
    for config in configs:
        for entry in load_data_config(config, data_dir):
            if entry.nickname in entries and entries[entry.nickname] != entry:
                raise ConfigError(
                    explain(f"the nickname of an entry of {config}", entry.nickname, "a new one in each file",
                            "Rename the entry")
                )  # fmt: skip
            entries[entry.nickname] = entry
    cells: dict[str, list[DataEntry]] = {}
    for entry in entries.values():
        cells.setdefault(entry.file_as_given.rstrip("/"), []).append(entry)
    wanted = only_cell.rstrip("/") if only_cell is not None else next(iter(cells))
    if only_cell is None and len(cells) > 1:
        raise ConfigError(
            explain(
                "--only_cell",
                "not set",
                "one of " + ", ".join(cells),
                "The regions lie in several files: add it",
            )
        )
    if wanted not in cells:
        hint = did_you_mean(wanted, cells).strip() or "Correct it"
        raise ConfigError(explain("--only_cell", wanted, "one of " + ", ".join(cells), hint))
    return cells[wanted]


def roi_scene(entries: Sequence[DataEntry], context_voxels: int = 47) -> Scene:
    """Return a view of regions of one container: raw data, labels, and two boxes a region.

    Args:
        entries: all of one container, from `load_rois`.
        context_voxels: raw data that the network needs on each side of a region.

    Raises:
        DataError: a dataset is missing; a region leaves the raw data.
    """
    opened: dict[str, tuple[Dataset, Pyramid]] = {}
    for entry in entries:
        for name in (entry.raw, *entry.labels):
            if name not in opened:
                for dataset in find_datasets(*_place(entry, name)):
                    opened[name] = (dataset, open_pyramid(dataset, entry.voxel_size))
    layers = make_layers(list(opened.values()))
    boxes, regions = {}, []
    for entry in entries:
        available = opened[entry.raw][1].roi_voxels
        roi = entry.roi_within(available)
        regions.append(to_world(roi, entry.voxel_size))
        name = f"{entry.nickname} {format_roi(roi)}"
        boxes[name] = _boxes(entry, roi, context_voxels)
    overview = regions[0]
    for region in regions[1:]:
        overview = overview.union(region)
    margin = [round(context_voxels * v) for v in entries[0].voxel_size]
    return Scene(
        layers,
        focus_nm=grow(regions[0], margin),
        annotations=boxes,
        overview_nm=grow(overview, margin),
        title=f"regions of {entries[0].file.name}",
    )


def _place(entry: DataEntry, dataset: str) -> tuple[str, str]:
    """Return container and dataset; what lies in another container than the entry's has an absolute path."""
    if not os.path.isabs(dataset):
        return os.fspath(entry.file), dataset
    container, name = split_path(dataset)
    return os.fspath(container), name


def _boxes(entry: DataEntry, roi: Roi, context_voxels: int) -> Any:
    """Return the layer of a region's box and of the box with its context."""
    grown = grow(roi, [context_voxels] * 3)
    return LocalAnnotationLayer(
        dimensions=CoordinateSpace(names=["z", "y", "x"], units="nm", scales=list(entry.voxel_size)),
        annotations=[
            AxisAlignedBoundingBoxAnnotation(
                id=what,
                description=f"{entry.nickname}: {what}",
                point_a=box.begin,
                point_b=box.end,
                props=[color],
            )
            for what, box, color in (("region", roi, _ROI_COLOR), ("context", grown, _CONTEXT_COLOR))
        ],
        annotation_properties=[AnnotationPropertySpec(id="color", type="rgb", default=_ROI_COLOR)],
        shader=_SHADER,
    )
