"""Opening and checking what a prediction needs, before anything is written."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from incasem.config import DataEntry, PredictionConfig
from incasem.errors import CheckpointError, DataError, explain
from incasem.geometry import Roi, format_roi
from incasem.networks import read_sidecar
from incasem.tasks.chosen import task_of
from incasem.tasks.grey_values import full_scale
from incasem.volumes import Volume, check_spatial, open_volume

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class OpenedEntry:
    """One entry, opened and checked.

    Attributes:
        entry: the region as the data configuration has it.
        roi: what is predicted, absolute voxels.
        raw: grey values.
        mask: where predictions are wanted; None: everywhere.
    """

    entry: DataEntry
    roi: Roi
    raw: Volume
    mask: Volume | None


def open_entry(entry: DataEntry) -> OpenedEntry:
    """Open raw data and mask of an entry and check that they fit it.

    Raises:
        DataError: something is missing, of a wrong type, or elsewhere.
    """
    raw = _open(entry, entry.raw)
    full_scale(raw.dtype)
    check_spatial(raw, entry.nickname)
    roi = entry.roi_within(raw.roi_voxels)
    _warn_of_gaps(raw, roi)
    mask = None if entry.mask is None else _open(entry, entry.mask)
    if mask is not None and mask.roi_voxels.intersect(roi).empty:
        raise DataError(
            explain(
                f"the place of {mask.path}",
                f"{format_roi(mask.roi_voxels)} voxels",
                f"an overlap with the region {format_roi(roi)} of {entry.nickname!r}",
                "Correct the mask's offset, or leave the mask out",
            )
        )
    return OpenedEntry(entry, roi, raw, mask)


def _open(entry: DataEntry, dataset: str) -> Volume:
    return open_volume(entry.file / dataset, voxel_size=entry.voxel_size)


def _warn_of_gaps(raw: Volume, roi: Roi) -> None:
    """Say how much of the raw data is not there: a broken copy looks just like black tissue."""
    if "://" in raw.path:
        return
    missing = raw.missing_chunks(roi)
    if missing:
        logger.warning(
            "%d chunks of %s in the region %s are not stored and are taken for 0, the first at %s. If they "
            "should be there, copy or convert the data again.",
            len(missing),
            raw.path,
            format_roi(roi),
            format_roi(missing[0]),
        )


def check_voxel_size(checkpoint: Path, config: PredictionConfig) -> None:
    """Check the voxel size that the network was trained for, where the checkpoint's sidecar says it.

    Raises:
        CheckpointError: it was another one than `data.voxel_size`.
    """
    data = (read_sidecar(checkpoint) or {}).get("data") or {}
    trained: Any = data.get("voxel_size")
    given = config.data.voxel_size
    if not _are_sizes(trained) or all(abs(a - b) <= 1e-6 * b for a, b in zip(trained, given, strict=True)):
        return
    raise CheckpointError(
        explain(
            f"voxel size that {checkpoint} was trained for",
            f"{_numbers(trained)} nm",
            f"{_numbers(given)} nm, that of the data (data.voxel_size)",
            "Take a checkpoint trained for this voxel size, or resample the data. To predict all the same, "
            f"delete {checkpoint.name}.json, which says the voxel size",
        )
    )


def check_task(checkpoint: Path, config: PredictionConfig) -> None:
    """Check what the network was trained for, where the checkpoint's sidecar says it.

    Raises:
        CheckpointError: it was another task than `task.type`, or with other offsets.
    """
    sidecar = read_sidecar(checkpoint) or {}
    trained, wanted = sidecar.get("task"), config.task.type
    if trained is not None and trained != wanted:
        raise CheckpointError(
            explain(
                f"task that {checkpoint} was trained for", trained, f"{wanted}, as task.type says",
                f"Set task.type={trained}, or take the settings of its training with --run_id",
            )
        )  # fmt: skip
    section = sidecar.get("task_settings")
    offsets = section.get("offsets") if isinstance(section, dict) else None
    given = [list(offset) for offset in config.task.offsets]
    if task_of(config).settings and offsets is not None and offsets != given:
        raise CheckpointError(
            explain(
                f"offsets that {checkpoint} was trained for", offsets, f"{given}, as task.offsets says",
                f"Set task.offsets='{offsets}'",
            )
        )  # fmt: skip


def _are_sizes(value: object) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(isinstance(v, int | float) for v in value)


def _numbers(values: Sequence[float]) -> str:
    return "[" + ", ".join(f"{v:g}" for v in values) + "]"
