"""The annotation of one data entry, region by region: classes or instances, mask and metric mask."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from incasem.config import DataEntry
from incasem.errors import DataError, explain
from incasem.geometry import Roi, format_roi
from incasem.volumes import Volume, open_volume

BACKGROUND = 0
LabelKind = Literal["classes", "instances"]
"""What label datasets hold: one dataset a class, nonzero in its voxels; or one dataset of object ids."""


def merge_classes(labels: Mapping[int, NDArray[np.generic]], shape: Sequence[int]) -> NDArray[np.uint8]:
    """Merge label arrays (nonzero = the structure) into one array of class indices.

    A voxel that two or more structures claim is background, as published.

    Args:
        labels: class index (1…N) → array (Z, Y, X) of any integer type.
        shape: Z, Y, X; what is returned where ``labels`` is empty.
    """
    classes_ZYX = np.zeros(tuple(shape), np.uint8)
    claimed_ZYX = np.zeros(tuple(shape), bool)
    for index, label_ZYX in labels.items():
        present_ZYX = label_ZYX != 0
        classes_ZYX[present_ZYX] = index
        classes_ZYX[claimed_ZYX & present_ZYX] = BACKGROUND
        claimed_ZYX |= present_ZYX
    return classes_ZYX


class GroundTruth:
    """Labels, mask and metric masks of an entry; outside its ROI nothing is annotated.

    Each volume takes the entry's voxel size, as published; its own offset stays.

    Args:
        entry: with its datasets' container.
        roi_voxels: what is annotated; None takes the entry's own offset and shape.
        labels: what its label datasets hold.
        cache_bytes: of decoded chunks that each volume may keep in memory.

    Attributes:
        kind: what its label datasets hold.

    Raises:
        DataError: a dataset is missing, or no ROI is given and the entry has none.
    """

    def __init__(
        self,
        entry: DataEntry,
        roi_voxels: Roi | None = None,
        *,
        labels: LabelKind = "classes",
        cache_bytes: int = 0,
    ) -> None:
        roi = roi_voxels if roi_voxels is not None else entry.roi_voxels
        if roi is None:
            raise DataError(
                explain(
                    f"the region of {entry.nickname!r}",
                    "not set",
                    "offset and shape",
                    "Add both to the entry",
                )
            )
        self.entry = entry
        self._roi = roi
        self.kind = labels
        self._cache_bytes = cache_bytes
        self._labels = {index: self._open(dataset) for dataset, index in entry.labels.items()}
        self._mask = None if entry.mask is None else self._open(entry.mask)
        self._metric_masks = [self._open(dataset) for dataset in entry.metric_masks]

    def labels(self, roi_voxels: Roi) -> NDArray[np.uint8] | NDArray[np.uint64]:
        """Return `classes` or `instances`, whichever the label datasets hold; 0 is the background."""
        return self.classes(roi_voxels) if self.kind == "classes" else self.instances(roi_voxels)

    def instances(self, roi_voxels: Roi) -> NDArray[np.uint64]:
        """Return the object of each voxel (Z, Y, X), 0 being none, wherever the volume has labels.

        Also outside the entry's ROI: what lies there decides where an object ends. Beyond the volume labels
        are reflected, as raw data are.

        Raises:
            DataError: an id is negative.
        """
        if not self._labels:
            return np.zeros(tuple(roi_voxels.shape), np.uint64)
        (volume,) = self._labels.values()
        ids_ZYX = volume.read_voxels(roi_voxels, beyond="reflect")
        if ids_ZYX.dtype.kind == "i" and ids_ZYX.size and int(ids_ZYX.min()) < 0:
            raise DataError(
                explain(
                    f"an object id in {volume.path} of {self.entry.nickname!r}",
                    f"{int(ids_ZYX.min())} at {format_roi(roi_voxels)} voxels",
                    "0 (background) or more",
                    "Write the volume again without negative ids; voxels that nobody annotated may get an id "
                    "of their own, named in task.ignored_ids",
                )
            )
        return ids_ZYX.astype(np.uint64)

    def classes(self, roi_voxels: Roi) -> NDArray[np.uint8]:
        """Return the class of each voxel (Z, Y, X); background where nothing is annotated."""
        arrays = {index: self._read(volume, roi_voxels) for index, volume in self._labels.items()}
        return merge_classes(arrays, roi_voxels.shape)

    def mask(self, roi_voxels: Roi) -> NDArray[np.bool_]:
        """Return where the annotation counts (Z, Y, X): inside the ROI and the entry's mask."""
        inside_ZYX = self._inside(roi_voxels)
        if self._mask is not None:
            inside_ZYX &= self._read(self._mask, roi_voxels) != 0
        return inside_ZYX

    def metric_mask(self, roi_voxels: Roi) -> NDArray[np.bool_]:
        """Return where scores are taken (Z, Y, X): the mask and all metric masks."""
        counted_ZYX = self.mask(roi_voxels)
        for volume in self._metric_masks:
            counted_ZYX &= self._read(volume, roi_voxels) != 0
        return counted_ZYX

    def _open(self, dataset: str) -> Volume:
        return open_volume(
            self.entry.file / dataset, cache_bytes=self._cache_bytes, voxel_size=self.entry.voxel_size
        )

    @staticmethod
    def _read(volume: Volume, roi_voxels: Roi) -> NDArray[np.generic]:
        return volume.read_voxels(roi_voxels, beyond="constant", fill=0)

    def _inside(self, roi_voxels: Roi) -> NDArray[np.bool_]:
        inside_ZYX = np.zeros(tuple(roi_voxels.shape), bool)
        common = roi_voxels.intersect(self._roi)
        if not common.empty:
            inside_ZYX[(common - roi_voxels.offset).to_slices()] = True
        return inside_ZYX
