"""The annotation of one data entry, region by region: classes, mask and metric mask."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from incasem.config import DataEntry
from incasem.errors import DataError, explain
from incasem.geometry import Roi
from incasem.volumes import Volume, open_volume

BACKGROUND = 0


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
        cache_bytes: of decoded chunks that each volume may keep in memory.

    Raises:
        DataError: a dataset is missing, or no ROI is given and the entry has none.
    """

    def __init__(self, entry: DataEntry, roi_voxels: Roi | None = None, *, cache_bytes: int = 0) -> None:
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
        self._cache_bytes = cache_bytes
        self._labels = {index: self._open(dataset) for dataset, index in entry.labels.items()}
        self._mask = None if entry.mask is None else self._open(entry.mask)
        self._metric_masks = [self._open(dataset) for dataset in entry.metric_masks]

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
        volume = open_volume(self.entry.file / dataset, cache_bytes=self._cache_bytes)
        return volume.with_place(voxel_size=self.entry.voxel_size)

    @staticmethod
    def _read(volume: Volume, roi_voxels: Roi) -> NDArray[np.generic]:
        return volume.read_voxels(roi_voxels, beyond="constant", fill=0)

    def _inside(self, roi_voxels: Roi) -> NDArray[np.bool_]:
        inside_ZYX = np.zeros(tuple(roi_voxels.shape), bool)
        common = roi_voxels.intersect(self._roi)
        if not common.empty:
            inside_ZYX[(common - roi_voxels.offset).to_slices()] = True
        return inside_ZYX
