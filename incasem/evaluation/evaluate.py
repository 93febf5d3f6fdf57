"""Scores of one stored prediction against labels, at any thresholds, block by block in worker processes.

Each block leaves its counts in a small array beside the report; the scores are those of the sum. So a
terabyte is scored in the memory of a few blocks, an interrupted evaluation goes on, and the result does not
depend on how the volume is cut.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from incasem.blockwise import Block, BlockFunction, Grid, Job, JobReport, default_block_shape, run_stage
from incasem.blockwise.job import identity_as_json
from incasem.errors import ConfigError, DataError, explain
from incasem.evaluation.directories import report_directory
from incasem.geometry import Coordinate, Roi, format_roi, grow
from incasem.metrics.thresholds import ThresholdScores, ThresholdSweep
from incasem.tasks.stored import Kind, kind_of, require_finished, unwritten_border
from incasem.volumes import (
    Volume,
    check_same_voxel_size,
    check_spatial,
    create_volume,
    open_volume,
    split_path,
)

JOB = "evaluate"
Metric = Literal["jaccard", "dice", "precision_recall"]
_BLOCK_VOXELS = 256**3


@dataclass(frozen=True)
class EvaluateOptions:
    """What is scored, where, and at which thresholds.

    Attributes:
        labels: path of the labels; every nonzero voxel belongs to the structure.
        prediction: path of probabilities (uint8 or floats), or of a segmentation.
        thresholds: rising, 0 to 1; of no meaning for a segmentation.
        metric: what the best threshold is chosen by: ``jaccard``, ``dice`` (F1), or ``precision_recall`` (the
            sum of both, as published).
        masks: paths of masks; counted are voxels that are nonzero in all of them.
        roi_padding: voxels at each face of the prediction that are left out, z, y, x. None: those that were
            never written (`unwritten_border`).
        class_id: of a segmentation, the class that is scored; None: every nonzero voxel.
        kind: whether the prediction is taken for probabilities or labels; ``auto`` looks at it (`kind_of`).
        out_directory: of the report; None: see `report_directory`.
    """

    labels: str
    prediction: str
    thresholds: Sequence[float] = (0.5,)
    metric: Metric = "jaccard"
    masks: tuple[str, ...] = ()
    roi_padding: tuple[int, int, int] | None = None
    class_id: int | None = None
    kind: Kind | Literal["auto"] = "auto"
    out_directory: Path | None = None


@dataclass(frozen=True)
class Opened:
    """The volumes of an evaluation, on one voxel grid, and the region in which they are compared."""

    prediction: Volume
    labels: Volume
    masks: tuple[Volume, ...]
    kind: Kind
    roi_voxels: Roi
    roi_padding: tuple[int, int, int]
    padding_reason: str
    class_id: int | None

    def probabilities(self, roi_voxels: Roi) -> NDArray[Any]:
        """Return the probability of the structure; of a segmentation 0 or 255."""
        array = self.prediction.read_voxels(roi_voxels)
        if self.kind == "probabilities":
            return array
        found = array != 0 if self.class_id is None else array == self.class_id
        return np.where(found, np.uint8(255), np.uint8(0))

    def truth(self, roi_voxels: Roi) -> NDArray[np.bool_]:
        """Return where the structure is."""
        return self.labels.read_voxels(roi_voxels) != 0

    def counted(self, roi_voxels: Roi) -> NDArray[np.bool_] | None:
        """Return where voxels count: in all masks; None for everywhere."""
        counted: NDArray[np.bool_] | None = None
        for mask in self.masks:
            inside = mask.read_voxels(roi_voxels, beyond="constant") != 0
            counted = inside if counted is None else counted & inside
        return counted


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        options: what was asked for.
        opened: the volumes.
        sweep: counts at all thresholds.
        best: the best of the thresholds that were asked for.
        report: of the job that counted.
    """

    options: EvaluateOptions
    opened: Opened
    sweep: ThresholdSweep
    best: ThresholdScores
    report: JobReport


def evaluate(options: EvaluateOptions, *, num_workers: int, progress: bool = True) -> Evaluation:
    """Score a prediction, continuing an interrupted run.

    Raises:
        ConfigError: thresholds or padding that cannot be.
        DataError: a dataset is missing, unfinished, of another voxel size or place; nothing to count.
        FailedBlocksError: blocks that could not be done, with the reason of each.
    """
    if num_workers < 1:
        raise ConfigError(explain("num_workers", num_workers, "1 or more", "Use the number of cores"))
    opened = open_inputs(options)
    if opened.kind == "labels":  # they reach each threshold or none
        options = replace(options, thresholds=(0.5,))
    ThresholdSweep(options.thresholds)  # before anything is written
    job, counts = prepare_evaluation(options, opened)
    report = run_stage(job, counts, num_workers, progress)
    sweep = read_sweep(options, counts)
    shutil.rmtree(Path(split_path(counts.path)[0]), ignore_errors=True)
    if sweep.voxels == 0:
        raise DataError(
            explain(
                "the masks",
                " and ".join(options.masks) or "none",
                f"some voxels to count in {format_roi(opened.roi_voxels)}",
                "Check their place and values",
            )
        )
    return Evaluation(options, opened, sweep, best_of(sweep, options.metric), report)


def best_of(sweep: ThresholdSweep, metric: Metric) -> ThresholdScores:
    """Return the threshold of the highest score, of equal ones the lowest."""
    return max(sweep.scores(), key=lambda at: (score_of(at, metric), -at.threshold))


def score_of(at: ThresholdScores, metric: Metric) -> float:
    """Return what ``metric`` ranks thresholds by."""
    scores = at.scores
    return {
        "jaccard": scores.jaccard,
        "dice": scores.f1,
        "precision_recall": scores.precision + scores.recall,
    }[metric]


def open_inputs(options: EvaluateOptions) -> Opened:
    """Open and check everything; nothing is written."""
    prediction = _open(options.prediction)
    require_finished(prediction)
    labels = _open(options.labels)
    if labels.dtype.kind not in "uib":
        raise DataError(
            explain(f"the dtype of {labels.path}", labels.dtype, "integers (labels)", "Give labels with -l")
        )
    masks = tuple(_open(path) for path in options.masks)
    for volume in (labels, *masks):
        check_same_voxel_size(volume, prediction, "prediction")
    kind = kind_of(prediction) if options.kind == "auto" else options.kind
    if options.class_id is not None and kind == "probabilities":
        raise ConfigError(
            explain(
                "class_id", options.class_id, "none for probabilities", "Give the map of that class with -p"
            )
        )
    padding, reason = _padding(options, prediction)
    return Opened(
        prediction,
        labels,
        masks,
        kind,
        _region(prediction, labels, padding),
        padding,
        reason,
        options.class_id,
    )


def _open(path: str) -> Volume:
    volume = open_volume(path)
    check_spatial(volume)
    return volume


def _padding(options: EvaluateOptions, prediction: Volume) -> tuple[tuple[int, int, int], str]:
    if options.roi_padding is not None:
        if min(options.roi_padding) < 0:
            raise ConfigError(
                explain(
                    "roi_padding", options.roi_padding, "0 or more voxels", "Leave it out to have it found"
                )
            )
        return options.roi_padding, "as asked for"
    border = unwritten_border(prediction)
    reason = "all of it was predicted" if border == 0 else "outside, the prediction was never written"
    return (border, border, border), reason


def _region(prediction: Volume, labels: Volume, padding: tuple[int, int, int]) -> Roi:
    inner = grow(prediction.roi_voxels, [-p for p in padding])
    if min(inner.shape) < 1:
        raise ConfigError(
            explain(
                "roi_padding",
                padding,
                f"less than half of the prediction's shape {tuple(prediction.roi_voxels.shape)}",
                "Reduce it",
            )
        )
    region = inner.intersect(labels.roi_voxels)
    if region.empty:
        raise DataError(
            explain(
                f"the place of {labels.path}",
                f"{format_roi(labels.roi_voxels)} voxels",
                f"an overlap with the prediction's region {format_roi(inner)}",
                "Correct its offset",
            )
        )
    return region


def identity_of(options: EvaluateOptions, opened: Opened) -> dict[str, object]:
    """Return all that determines the counts."""
    return {
        "prediction": opened.prediction.fingerprint(),
        "labels": opened.labels.fingerprint(),
        "masks": [mask.fingerprint() for mask in opened.masks],
        "kind": opened.kind,
        "class_id": options.class_id,
        "thresholds": list(options.thresholds),
    }


def prepare_evaluation(
    options: EvaluateOptions, opened: Opened, block_shape: Sequence[int] | None = None
) -> tuple[Job, Volume]:
    """Create the array of counts, one row of `ThresholdSweep.counts` a block, and the job that fills it."""
    shape = block_shape or default_block_shape(
        opened.prediction.write_shape, _BLOCK_VOXELS, volume_shape=opened.roi_voxels.shape
    )
    grid = Grid(opened.roi_voxels, Coordinate(shape))
    identity: Mapping[str, object] = identity_of(options, opened) | {"block_shape": list(shape)}
    text = json.dumps([identity_as_json(identity), list(grid.total_roi.begin), list(grid.total_roi.shape)])
    directory = report_directory(options.out_directory, options.prediction, options.labels)
    row = ThresholdSweep(options.thresholds).counts.shape
    # A name of its own for each question: another one asked meanwhile does not meet these counts.
    key = hashlib.sha256(text.encode()).hexdigest()[:12]
    counts = create_volume(
        directory.expanduser() / f".counts_{key}.zarr" / "counts",
        shape=(len(grid), *row),
        dtype=np.int64,
        voxel_size=(1, 1, 1),
        chunk_shape=(1, *row),
        existing="resume",
    )
    job = Job(
        name=JOB,
        grid=grid,
        start_worker=partial(_start, opened, counts, tuple(options.thresholds)),
        identity=identity,
        state_dir=Path(counts.path) / ".incasem",
    )
    return job, counts


def _start(opened: Opened, counts: Volume, thresholds: tuple[float, ...]) -> BlockFunction:
    return partial(_count_block, opened, counts, thresholds)


def _count_block(opened: Opened, counts: Volume, thresholds: tuple[float, ...], block: Block) -> None:
    sweep = ThresholdSweep(thresholds)
    roi = block.write_roi
    sweep.add(opened.probabilities(roi), opened.truth(roi), opened.counted(roi))
    row = sweep.counts[np.newaxis]
    counts.write_voxels(Roi((block.index, 0, 0), row.shape), row)


def read_sweep(options: EvaluateOptions, counts: Volume) -> ThresholdSweep:
    """Return the sum of all blocks' counts."""
    sweep = ThresholdSweep(options.thresholds)
    rows, _, width = counts.shape
    for begin in range(0, rows, 1024):
        part = counts.read_voxels(Roi((begin, 0, 0), (min(1024, rows - begin), 2, width)))
        sweep.add_counts(part.sum(axis=0))
    return sweep
