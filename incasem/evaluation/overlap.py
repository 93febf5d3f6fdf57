"""Overlap scores of a whole volume, block by block, in the memory of a few blocks."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from incasem.blockwise import Grid
from incasem.config import DataEntry
from incasem.errors import DataError, explain
from incasem.geometry import Coordinate, Roi, format_roi
from incasem.metrics import OverlapAccumulator
from incasem.tasks.ground_truth import GroundTruth
from incasem.volumes import Volume, open_volume

_BLOCK_VOXELS = 128


def score_entry(
    segmentation: Path | str, entry: DataEntry, num_classes: int, *, num_threads: int | None = None
) -> OverlapAccumulator:
    """Score a stored segmentation of an entry against the entry's labels.

    Counted are the voxels inside the region of the segmentation, the entry's mask and all its metric masks.

    Args:
        segmentation: path of the class of each voxel, predicted for ``entry``.
        entry: with labels.
        num_classes: C, the background included.
        num_threads: blocks at a time; None: the cores of this machine, at most 8.

    Raises:
        DataError: the entry has no labels, a dataset is missing, or labels lie elsewhere.
    """
    prediction = open_volume(segmentation).with_place(voxel_size=entry.voxel_size)
    roi = prediction.roi_voxels
    if not entry.labels:
        raise DataError(
            explain(
                f"{entry.nickname}.labels",
                "empty",
                "label datasets with their class ids",
                "Add the labels to the data configuration, or leave the scores out",
            )
        )
    for dataset in entry.labels:
        place = open_volume(entry.file / dataset).with_place(voxel_size=entry.voxel_size).roi_voxels
        if place.intersect(roi).empty:
            raise DataError(
                explain(
                    f"the place of {dataset} of {entry.file}",
                    f"{format_roi(place)} voxels",
                    f"an overlap with the prediction's region {format_roi(roi)}",
                    "Correct the labels' offset, or the region of the entry",
                )
            )
    return score_volume(prediction, GroundTruth(entry, roi), num_classes, num_threads=num_threads)


def score_volume(
    prediction: Volume,
    truth: GroundTruth,
    num_classes: int,
    *,
    roi_voxels: Roi | None = None,
    block_shape: Sequence[int] | None = None,
    num_threads: int | None = None,
) -> OverlapAccumulator:
    """Count how predicted and true classes agree; the counts do not depend on the blocks.

    Args:
        prediction: class of each voxel (z, y, x), integers.
        truth: classes, mask and metric masks.
        num_classes: C, the background included.
        roi_voxels: region to score (absolute voxels); None: all of ``prediction``.
        block_shape: voxels (z, y, x) read at a time; None: 128³, or the chunk where that is larger.
        num_threads: blocks at a time; None: the cores of this machine, at most 8.

    Raises:
        DataError: the region leaves the prediction, or a class is not 0 … C - 1.
    """
    region = prediction.roi_voxels if roi_voxels is None else roi_voxels
    if block_shape is None:
        block_shape = [max(_BLOCK_VOXELS, unit) for unit in prediction.write_shape]
    grid = Grid(region, Coordinate(block_shape))

    def score(roi: Roi) -> OverlapAccumulator:
        counts = OverlapAccumulator(num_classes)
        counts.add(prediction.read_voxels(roi), truth.classes(roi), truth.metric_mask(roi))
        return counts

    total = OverlapAccumulator(num_classes)
    threads = num_threads or min(8, os.cpu_count() or 1)
    for counts in _in_threads(score, (block.write_roi for block in grid.blocks()), threads):
        total.merge(counts)
    return total


def _in_threads(
    function: Callable[[Roi], OverlapAccumulator], rois: Iterable[Roi], threads: int
) -> Iterator[OverlapAccumulator]:
    """Yield the results of a few blocks at a time, so that a long volume does not queue up in memory."""
    waiting = iter(rois)
    with ThreadPoolExecutor(threads) as pool:
        while batch := list(islice(waiting, 4 * threads)):
            yield from pool.map(function, batch)
