"""Scores of a whole predicted volume, block by block, in the memory of a few blocks."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from incasem.blockwise import Grid
from incasem.config import DataEntry
from incasem.errors import DataError, explain
from incasem.geometry import Coordinate, Roi, format_roi
from incasem.tasks.ground_truth import GroundTruth
from incasem.tasks.region_scores import RegionScores
from incasem.tasks.task import Task
from incasem.volumes import Volume, open_volume

_BLOCK_VOXELS = 128


def score_entry(
    arrays: Mapping[str, Path | str],
    entry: DataEntry,
    task: Task,
    *,
    num_threads: int | None = None,
) -> RegionScores:
    """Score a stored prediction of an entry against the entry's labels.

    Counted are the voxels inside the region of the prediction, the entry's mask and all its metric masks.

    Args:
        arrays: paths of the arrays by their names in `Task.stored`, the main one last, predicted for
            ``entry``. Those of probabilities may be left out, and with them the average precision.
        entry: with labels.
        task: says what is scored.
        num_threads: blocks at a time; None: the cores of this machine, at most 8.

    Raises:
        DataError: the entry has no labels, a dataset is missing, or labels lie elsewhere.
    """
    unscored = {array.name for array in task.stored("float32") if not array.scored}
    volumes = {
        name: open_volume(path, voxel_size=entry.voxel_size)
        for name, path in arrays.items()
        if name not in unscored
    }
    roi = list(volumes.values())[-1].roi_voxels
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
        place = open_volume(entry.file / dataset, voxel_size=entry.voxel_size).roi_voxels
        if place.intersect(roi).empty:
            raise DataError(
                explain(
                    f"the place of {dataset} of {entry.file}",
                    f"{format_roi(place)} voxels",
                    f"an overlap with the prediction's region {format_roi(roi)}",
                    "Correct the labels' offset, or the region of the entry",
                )
            )
    truth = GroundTruth(entry, roi, labels=task.label_kind)
    return score_volumes(volumes, truth, task, num_threads=num_threads)


def score_volumes(
    volumes: Mapping[str, Volume],
    truth: GroundTruth,
    task: Task,
    *,
    roi_voxels: Roi | None = None,
    block_shape: Sequence[int] | None = None,
    num_threads: int | None = None,
) -> RegionScores:
    """Count how predicted and true classes agree, in one pass; the counts do not depend on the blocks.

    Args:
        volumes: stored arrays by name at the same place, the main one last; see `score_entry`.
        truth: labels, mask and metric masks.
        task: says what is scored.
        roi_voxels: region to score (absolute voxels); None: all of the main array.
        block_shape: voxels (z, y, x) read at a time; None: 128³, or the chunk where that is larger.
        num_threads: blocks at a time; None: the cores of this machine, at most 8.

    Raises:
        DataError: the region leaves the prediction, or a class is not 0 … C - 1.
    """
    main = list(volumes.values())[-1]
    region = main.roi_voxels if roi_voxels is None else roi_voxels
    if block_shape is None:
        block_shape = [max(_BLOCK_VOXELS, unit) for unit in main.write_shape]
    grid = Grid(region, Coordinate(block_shape))

    def score(roi: Roi) -> RegionScores:
        counts = RegionScores(task.num_classes)
        predicted = task.predicted({name: volume.read_voxels(roi) for name, volume in volumes.items()})
        true = task.truth(truth, roi)
        counts.add(predicted.classes_ZYX, predicted.probabilities, true.classes_ZYX, true.counted_ZYX)
        return counts

    total = RegionScores(task.num_classes)
    threads = num_threads or min(8, os.cpu_count() or 1)
    for counts in _in_threads(score, (block.write_roi for block in grid.blocks()), threads):
        total.merge(counts)
    return total


def _in_threads(
    function: Callable[[Roi], RegionScores], rois: Iterable[Roi], threads: int
) -> Iterator[RegionScores]:
    """Yield the results of a few blocks at a time, so that a long volume does not queue up in memory."""
    waiting = iter(rois)
    with ThreadPoolExecutor(threads) as pool:
        while batch := list(islice(waiting, 4 * threads)):
            yield from pool.map(function, batch)
