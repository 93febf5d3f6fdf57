"""Where samples come from: the volumes of each data entry, as one gunpowder source node an entry.

gunpowder counts in voxels of the absolute grid here (its voxel size is 1): it knows whole nanometres only.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from incasem.config import (
    DataEntry,
)
from incasem.errors import DataError, explain
from incasem.geometry import Coordinate, Roi, format_roi
from incasem.tasks.grey_values import full_scale
from incasem.tasks.ground_truth import GroundTruth, LabelKind
from incasem.training._gunpowder import gp
from incasem.volumes import Volume, check_spatial, open_volume

VOXEL = Coordinate(1, 1, 1)
EVERYWHERE = Roi((None,) * 3, (None,) * 3)


class Keys:
    """The arrays of a sample. Their names are ours: no dataset or nickname of a user collides with them."""

    RAW = gp.ArrayKey("RAW")
    LABELS = gp.ArrayKey("LABELS")
    MASK = gp.ArrayKey("MASK")
    METRIC_MASK = gp.ArrayKey("METRIC_MASK")
    TARGET = gp.ArrayKey("TARGET")
    LOSS_SCALE = gp.ArrayKey("LOSS_SCALE")
    BLOCK = gp.ArrayKey("BLOCK")
    """The output block before it is deformed; its place is what counts, the data are ones."""
    PLACE = gp.ArrayKey("PLACE")
    """Index of the entry and begin (z, y, x, absolute voxels) of `BLOCK` in the volume."""


@dataclass(frozen=True)
class EntrySource:
    """The opened volumes of one data entry. Pickles; worker processes get it as it is.

    Attributes:
        index: place of the entry in the data configuration.
        entry: with offset and shape filled in.
        roi: absolute voxels; samples are drawn and labels exist here.
        raw: readable beyond ``roi``.
        truth: labels and masks.
    """

    index: int
    entry: DataEntry
    roi: Roi
    raw: Volume
    truth: GroundTruth


def open_entry(
    entry: DataEntry, index: int = 0, *, labels: LabelKind = "classes", cache_bytes: int = 0
) -> EntrySource:
    """Open the volumes of an entry and check that they fit together.

    Args:
        entry: of a data configuration.
        index: its place there.
        labels: what its label datasets hold.
        cache_bytes: of decoded chunks that the entry may keep in memory, half of them raw data.

    Raises:
        DataError: a dataset is missing, not three-dimensional, of a type that cannot be read as raw or
            labels, of another voxel size than the raw data, or does not cover the ROI.
    """
    stored_raw = open_volume(entry.file / entry.raw, cache_bytes=cache_bytes // 2, quiet=True)
    raw = stored_raw.with_place(voxel_size=entry.voxel_size)
    check_spatial(raw, entry.nickname)
    full_scale(raw.dtype)
    available = raw.roi_voxels
    datasets = (*entry.labels, *((entry.mask,) if entry.mask else ()), *entry.metric_masks)
    volumes = {name: open_volume(entry.file / name, quiet=True) for name in datasets}
    for name, stored in volumes.items():
        volume = stored.with_place(voxel_size=entry.voxel_size)
        check_spatial(volume, entry.nickname)
        _check_same_voxels(stored, stored_raw, entry)
        if volume.dtype.kind not in "uib":
            raise DataError(
                explain(f"data type of {name} of {entry.nickname!r}", volume.dtype, "integers", "Convert it")
            )
        overlap = available.intersect(volume.roi_voxels)
        if overlap.empty:
            raise DataError(
                explain(
                    f"{name} of {entry.nickname!r}",
                    f"at {format_roi(volume.roi_voxels)} voxels",
                    f"volumes that overlap {format_roi(available)}, where {entry.raw} lies",
                    "Correct the stored offset (nm) of one of them, or voxel_size of the entry",
                )
            )
        available = overlap
    roi = entry.roi_within(raw.roi_voxels if entry.roi_voxels else available)
    for name, stored in volumes.items():
        covered = stored.with_place(voxel_size=entry.voxel_size).roi_voxels
        if not covered.contains(roi):
            raise DataError(
                explain(
                    f"the region of {entry.nickname!r}",
                    f"{format_roi(roi)} voxels",
                    f"a region within {format_roi(covered)}, where {name} lies",
                    "Correct offset and shape of the entry, or the stored offset (nm) of the volume",
                )
            )
    resolved = replace(entry, offset=tuple(roi.begin), shape=tuple(roi.shape))
    cache_each = cache_bytes // 2 // max(len(datasets), 1)
    truth = GroundTruth(resolved, labels=labels, cache_bytes=cache_each)
    return EntrySource(index, resolved, roi, raw, truth)


def check_entries(entries: Sequence[DataEntry], labels: LabelKind = "classes") -> None:
    """Open every entry, so that data that cannot be used is found before anything is trained.

    Raises:
        DataError: a volume that cannot be used; see `open_entry`.
    """
    for index, entry in enumerate(entries):
        open_entry(entry, index, labels=labels)


def _check_same_voxels(volume: Volume, raw: Volume, entry: DataEntry) -> None:
    """The entry's voxel size overrides what is stored; what is stored must at least not contradict itself."""
    if not (volume.has_stated_place and raw.has_stated_place):
        return
    if any(abs(a - b) > 1e-6 * b for a, b in zip(volume.voxel_size, raw.voxel_size, strict=True)):
        raise DataError(
            explain(
                f"voxel size of {volume.path} of {entry.nickname!r}",
                f"{list(volume.voxel_size)} nm",
                f"that of {raw.path}, {list(raw.voxel_size)} nm",
                "Resample it to the voxels of the raw data",
            )
        )


class VolumeSource(gp.BatchProvider):
    """Provides raw data, labels, mask and metric mask of an entry at any place.

    Raw data are real wherever the volume has them, however far from the ROI, and reflected at the volume's
    end, as in prediction. Outside the ROI both masks are 0: nothing there is trained on or scored. Classes
    are background there; instances are real as far as the volume goes, since they tell where objects end.
    """

    def __init__(self, source: EntrySource) -> None:
        self._source = source

    def setup(self) -> None:
        """Announce the arrays; all are unlimited."""
        for key in (Keys.RAW, Keys.LABELS, Keys.MASK, Keys.METRIC_MASK):
            interpolatable = key == Keys.RAW
            self.provides(key, gp.ArraySpec(roi=EVERYWHERE, voxel_size=VOXEL, interpolatable=interpolatable))

    def provide(self, request: "gp.BatchRequest") -> "gp.Batch":
        """Read the requested arrays."""
        batch = gp.Batch()
        for key, wanted in request.array_specs.items():
            spec = self.spec[key].copy()
            spec.roi = wanted.roi
            batch.arrays[key] = gp.Array(self._read(key, wanted.roi), spec)
        return batch

    def _read(self, key: "gp.ArrayKey", roi: Roi) -> NDArray[Any]:
        if key == Keys.RAW:
            return self._read_raw(roi)
        truth = self._source.truth
        if key == Keys.LABELS:
            labels: NDArray[Any] = truth.labels(roi)
            if truth.kind == "classes" and not self._source.roi.contains(roi):
                labels = clear_outside(labels, roi, self._source.roi)
            return labels
        mask = truth.mask(roi) if key == Keys.MASK else truth.metric_mask(roi)
        return mask.view(np.uint8)

    def _read_raw(self, roi: Roi) -> NDArray[Any]:
        raw = self._source.raw.read_voxels(roi, beyond="reflect")
        if raw.dtype.kind == "f" and not (raw.min() >= 0 and raw.max() <= 1):
            raise DataError(
                explain(
                    f"a grey value of {self._source.raw.path} of {self._source.entry.nickname!r}",
                    f"between {raw.min():g} and {raw.max():g} at {format_roi(roi)} voxels",
                    "0 to 1, since the data are floats",
                    "Scale the volume, or convert it to uint8",
                )
            )
        return raw


def clear_outside(array_ZYX: NDArray[Any], place: Roi, roi: Roi) -> NDArray[Any]:
    """Return a copy of an array at ``place`` that is 0 outside ``roi``."""
    cleared = np.zeros_like(array_ZYX)
    common = place.intersect(roi)
    if not common.empty:
        inside = (common - place.begin).to_slices()
        cleared[inside] = array_ZYX[inside]
    return cleared
