"""Scores of a whole predicted volume, block by block, in the memory of a few blocks."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from incasem.blockwise import Grid
from incasem.config import DataEntry
from incasem.errors import DataError, explain
from incasem.geometry import Coordinate, Roi, format_roi
from incasem.tasks import semantic
from incasem.tasks.ground_truth import GroundTruth
from incasem.volumes import Volume, open_volume

_BLOCK_VOXELS = 128


def score_entry(
    segmentation: Path | str,
    entry: DataEntry,
    num_classes: int,
    *,
    prob_maps: Sequence[Path | str] = (),
    num_threads: int | None = None,
) -> semantic.RegionScores:
    """Score a stored segmentation of an entry against the entry's labels.

    Counted are the voxels inside the region of the segmentation, the entry's mask and all its metric masks.

    Args:
        segmentation: path of the class of each voxel, predicted for ``entry``.
        entry: with labels.
        num_classes: C, the background included.
        prob_maps: paths of the stored probabilities (`semantic.stored_classes`), for the average precision;
            none leaves it out.
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
    maps = [open_volume(path).with_place(voxel_size=entry.voxel_size) for path in prob_maps]
    truth = GroundTruth(entry, roi)
    return score_volume(prediction, truth, num_classes, prob_maps=maps, num_threads=num_threads)


def score_volume(
    prediction: Volume,
    truth: GroundTruth,
    num_classes: int,
    *,
    prob_maps: Sequence[Volume] = (),
    roi_voxels: Roi | None = None,
    block_shape: Sequence[int] | None = None,
    num_threads: int | None = None,
) -> semantic.RegionScores:
    """Count how predicted and true classes agree, in one pass; the counts do not depend on the blocks.

    Args:
        prediction: class of each voxel (z, y, x), integers.
        truth: classes, mask and metric masks.
        num_classes: C, the background included.
        prob_maps: stored probabilities at the same place; none leaves the average precision out.
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

    def score(roi: Roi) -> semantic.RegionScores:
        counts = semantic.RegionScores(num_classes)
        probabilities = [volume.read_voxels(roi) for volume in prob_maps]
        counts.add(prediction.read_voxels(roi), probabilities, truth.classes(roi), truth.metric_mask(roi))
        return counts

    total = semantic.RegionScores(num_classes)
    threads = num_threads or min(8, os.cpu_count() or 1)
    for counts in _in_threads(score, (block.write_roi for block in grid.blocks()), threads):
        total.merge(counts)
    return total


def _in_threads(
    function: Callable[[Roi], semantic.RegionScores], rois: Iterable[Roi], threads: int
) -> Iterator[semantic.RegionScores]:
    """Yield the results of a few blocks at a time, so that a long volume does not queue up in memory."""
    waiting = iter(rois)
    with ThreadPoolExecutor(threads) as pool:
        while batch := list(islice(waiting, 4 * threads)):
            yield from pool.map(function, batch)
