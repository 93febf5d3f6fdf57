"""What an evaluation of segmentations compares: the volumes, checked, and the region that they share."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from incasem.errors import ConfigError, DataError, explain
from incasem.geometry import Roi, format_roi
from incasem.tasks.stored import require_finished
from incasem.volumes import (
    Volume,
    check_same_voxel_size,
    check_spatial,
    exists,
    list_datasets,
    open_volume,
    placed_like,
)

Metric = Literal["adapted_rand", "voi"]
_THRESHOLD = re.compile(r"(?P<stem>.*?)_?(?P<threshold>\d+(\.\d+)?)")
_LEVEL = re.compile(r"/s\d+$")


@dataclass(frozen=True)
class PartitionOptions:
    """What is scored, and how.

    Attributes:
        labels: path of the truth: instance ids, integers of at least 0.
        segmentations: paths of segmentations (the same), or of groups: then all integer datasets in them.
        masks: paths of masks; counted are voxels that are nonzero in all of them.
        ignored_truth: id of the truth whose voxels do not count; None: all of them count.
        boundary_tolerance_nm: how far a boundary may lie from that of the truth; None: two voxels of the
            finest axis.
        boundaries: whether boundaries are scored at all, which takes most of the time.
        metric: what the best segmentation is chosen by: ``adapted_rand`` error, or the total ``voi``.
        worst: how many mergers and splits of the best segmentation are listed.
        out_directory: of the report; None: see `report_directory`.
    """

    labels: str
    segmentations: tuple[str, ...]
    masks: tuple[str, ...] = ()
    ignored_truth: int | None = 0
    boundary_tolerance_nm: float | None = None
    boundaries: bool = True
    metric: Metric = "adapted_rand"
    worst: int = 10
    out_directory: Path | None = None


@dataclass(frozen=True)
class Opened:
    """The volumes of an evaluation, on one voxel grid, and the region that all of them cover."""

    labels: Volume
    segmentations: tuple[Volume, ...]
    masks: tuple[Volume, ...]
    roi_voxels: Roi

    def counted(self, roi_voxels: Roi) -> NDArray[np.bool_] | None:
        """Return where all masks are; None for everywhere."""
        counted: NDArray[np.bool_] | None = None
        for mask in self.masks:
            inside = mask.read_voxels(roi_voxels, beyond="constant") != 0
            counted = inside if counted is None else counted & inside
        return counted


def open_inputs(options: PartitionOptions) -> Opened:
    """Open and check everything; nothing is written.

    Files that state no voxel size, such as the TIFF and HDF5 files of challenges, take that of the others.
    """
    if options.ignored_truth is not None and options.ignored_truth < 0:
        raise ConfigError(
            explain("ignored_id", options.ignored_truth, "an id of the truth, 0 or more", "Correct it")
        )
    opened = [_open_ids(path) for path in (options.labels, *_expand(options.segmentations))]
    labels, *found = _placed_alike([*opened, *(open_volume(path, quiet=True) for path in options.masks)])
    segmentations, masks = tuple(found[: len(opened) - 1]), tuple(found[len(opened) - 1 :])
    region = labels.roi_voxels
    for volume in segmentations:
        require_finished(volume)
        check_same_voxel_size(volume, labels, "labels")
        region = _overlap(region, volume, labels)
    for mask in masks:
        check_spatial(mask)
        check_same_voxel_size(mask, labels, "labels")
    return Opened(labels, segmentations, masks, region)


def _placed_alike(volumes: Sequence[Volume]) -> list[Volume]:
    stated = next((volume for volume in volumes if volume.has_stated_place), None)
    if stated is None:
        return list(volumes)  # scores count voxels
    return [placed_like(volume, stated) for volume in volumes]


def _expand(paths: Sequence[str]) -> list[str]:
    """Replace groups by the datasets in them; a pyramid counts as one."""
    found: list[str] = []
    for path in paths:
        group = Path(path).expanduser()
        inside = [] if exists(group) else [_LEVEL.sub("", name) for name in list_datasets(group)]
        found += [str(group / name) for name in sorted(set(inside), key=split_threshold)] or [str(group)]
    repeated = [path for path in found if found.count(path) > 1]
    if repeated:
        raise ConfigError(explain("the segmentations", repeated[0], "each once", "Leave one of them out"))
    return found


def split_threshold(name: str) -> tuple[str, float]:
    """Return a name without the threshold at its end, and the threshold; NaN if it has none."""
    parsed = _THRESHOLD.fullmatch(name)
    return (parsed["stem"], float(parsed["threshold"])) if parsed else (name, math.nan)


def _open_ids(path: str) -> Volume:
    volume = open_volume(path, quiet=True)
    check_spatial(volume)
    if volume.dtype.kind not in "ui":
        raise DataError(
            explain(f"the dtype of {path}", volume.dtype, "integers (instance ids)", "Give a segmentation")
        )
    return volume


def _overlap(region: Roi, volume: Volume, labels: Volume) -> Roi:
    common = region.intersect(volume.roi_voxels)
    if common.empty:
        raise DataError(
            explain(
                f"the place of {volume.path}",
                f"{format_roi(volume.roi_voxels)} voxels",
                f"an overlap with {format_roi(region)}, what {labels.path} and the others cover",
                "Correct its offset",
            )
        )
    return common
