"""The regions of data configurations: bounds, context, gaps, and overlaps."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from incasem.config import DataEntry
from incasem.geometry import Roi, format_roi, grow
from incasem.preflight.findings import Findings
from incasem.volumes import Volume, open_volume, split_path

_MOSTLY = 0.5
_MOST_CHUNKS = 200_000
"""Whose files are looked for: a minute on a slow disk."""


def open_raw(entry: DataEntry) -> Volume:
    """Open the raw data of an entry at the entry's voxel size.

    Raises:
        DataError: it is missing.
    """
    return open_volume(entry.file / entry.raw, voxel_size=entry.voxel_size)


def check_region(findings: Findings, entry: DataEntry, raw: Volume, roi: Roi, context: Sequence[int]) -> None:
    """Add place and size of a region, and how much of the network's context is there.

    Args:
        findings: gets them.
        entry: the region as the data configuration has it.
        raw: its raw data.
        roi: the region, absolute voxels.
        context: voxels that the network reads beyond its output, on each side.
    """
    size = "×".join(str(s) for s in roi.shape)
    findings.ok(
        "region", entry.nickname, f"{format_roi(roi)} voxels, {size}, within {raw.path}",
        begin=list(roi.begin), shape=list(roi.shape), voxel_size_nm=list(entry.voxel_size),
    )  # fmt: skip
    stored = open_volume(entry.file / entry.raw, quiet=True)
    if stored.has_stated_place and any(
        abs(a - b) > 1e-6 * b for a, b in zip(stored.voxel_size, entry.voxel_size, strict=True)
    ):
        findings.warning(
            "voxel-size", entry.nickname,
            f"{raw.path} says {_numbers(stored.voxel_size)} nm, the entry {_numbers(entry.voxel_size)} nm, "
            "which wins; the stored offset (nm) is divided by it",
            "Make sure which of them is right.",
        )  # fmt: skip
    _check_context(findings, entry, raw, roi, context)


def _check_context(
    findings: Findings, entry: DataEntry, raw: Volume, roi: Roi, context: Sequence[int]
) -> None:
    whole = grow(roi, context)
    there = whole.intersect(raw.roi_voxels)
    shell = whole.size - roi.size
    outside = (whole.size - there.size) / shell if shell else 0.0
    untouched = roi.intersect(grow(raw.roi_voxels, [-c for c in context]))
    touched = 1 - (0 if untouched.empty else untouched.size / roi.size)
    figures = {"context_voxels": list(context), "share_reflected": outside, "share_touched": touched}
    reach = "×".join(str(c) for c in context)
    if outside == 0:
        findings.ok("context", entry.nickname, f"all of the {reach} voxels around are there", **figures)
        return
    text = (
        f"{100 * outside:.3g} % of the context of {reach} voxels lie outside the volume and are reflected; "
        f"{100 * touched:.3g} % of the region's voxels are near enough to see it"
    )
    if any(c >= s for c, s in zip(context, raw.roi_voxels.shape, strict=True)):
        findings.warning(
            "context", entry.nickname,
            f"{text}; along an axis the volume is smaller than the context and is reflected several times",
            "Results there are poor; use a larger volume if there is one.", **figures,
        )  # fmt: skip
    elif touched > _MOSTLY:
        todo = "If there is more raw data around the region, convert it too."
        findings.warning("context", entry.nickname, text, todo, **figures)
    else:
        findings.ok("context", entry.nickname, text, **figures)


def check_chunks(findings: Findings, about: str, volume: Volume, roi: Roi) -> None:
    """Add chunks of a region that are not stored and read as 0.

    Args:
        findings: gets them.
        about: entry or path.
        volume: in a file or in a folder; what is remote is left out.
        roi: inside the volume.
    """
    if "://" in volume.path:
        return
    chunks = math.prod(-(-s // c) for s, c in zip(roi.shape, volume.write_shape, strict=True))
    if chunks > _MOST_CHUNKS:
        depth = max(1, roi.shape[0] * _MOST_CHUNKS // chunks)
        roi = Roi(roi.begin, (depth, *roi.shape[1:]))
    missing = findings.attempt("chunks", about, lambda: volume.missing_chunks(roi))
    if missing:
        findings.warning(
            "chunks", about,
            f"{len(missing)} chunks of {volume.path} in the region {format_roi(roi)} are not stored and are "
            f"taken for 0, the first at {format_roi(missing[0])}",
            "If they should be there, copy or convert the data again.",
            missing=len(missing), looked_for=min(chunks, _MOST_CHUNKS),
        )  # fmt: skip


def check_overlaps(
    findings: Findings,
    training: Mapping[str, tuple[DataEntry, Roi]],
    validation: Mapping[str, tuple[DataEntry, Roi]],
    context: Sequence[int],
) -> None:
    """Add regions of validation that training sees: its scores then say nothing of unseen data.

    Args:
        findings: gets them.
        training: nickname → entry and its region (absolute voxels).
        validation: the same.
        context: voxels that the network reads beyond its output, on each side.
    """
    before = len(findings.found)
    for name, (entry, roi) in validation.items():
        for other, (trained, trained_roi) in training.items():
            if not _same_volume(entry, trained):
                continue
            common = roi.intersect(trained_roi)
            near = roi.intersect(grow(trained_roi, context))
            if not common.empty:
                findings.warning(
                    "leak", name,
                    f"{100 * common.size / roi.size:.3g} % of the validation region {format_roi(roi)} are "
                    f"trained on, in {other} {format_roi(trained_roi)}: its F1 will be too good",
                    "Separate the regions.", overlap_share=common.size / roi.size, training=other,
                )  # fmt: skip
            elif not near.empty:
                findings.warning(
                    "leak", name,
                    f"{100 * near.size / roi.size:.3g} % of the validation region {format_roi(roi)} lie in "
                    f"the context of {other} {format_roi(trained_roi)}: no label of it is trained on, but "
                    "its raw data are seen",
                    f"Leave {'×'.join(str(c) for c in context)} voxels between the regions.",
                    context_share=near.size / roi.size, training=other,
                )  # fmt: skip
    if training and validation and len(findings.found) == before:
        findings.ok("leak", "validation.data", "no validation region is seen in training")


def _same_volume(a: DataEntry, b: DataEntry) -> bool:
    """Whether two entries lie in one container, whatever their raw datasets: equalised data leak too.

    In a container of several volumes of their own, the folder that holds the raw data tells them apart.
    """
    one, other = (split_path(e.file / e.raw) for e in (a, b))
    return (
        os.path.realpath(one[0]) == os.path.realpath(other[0])
        and Path(one[1]).parent == Path(other[1]).parent
    )


def region_of(entry: DataEntry, raw: Volume) -> Roi:
    """Return the region of an entry, absolute voxels.

    Raises:
        DataError: it leaves the raw data.
    """
    return entry.roi_within(raw.roi_voxels)


def _numbers(values: Sequence[float]) -> str:
    return "[" + ", ".join(f"{v:g}" for v in values) + "]"
