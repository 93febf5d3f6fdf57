"""Scores of stored segmentations (instance ids) against the truth, several in one pass, block by block.

Each block leaves its contingency tables in a file beside the report; their sum is that of the whole volume,
so the scores do not depend on how it is cut, and an interrupted evaluation goes on.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from incasem.blockwise import Block, BlockFunction, Grid, Job, default_block_shape, run_stage
from incasem.blockwise.job import identity_as_json
from incasem.durable import write_durably
from incasem.errors import ConfigError, DataError, explain
from incasem.evaluation.directories import report_directory
from incasem.evaluation.partition_inputs import (
    Metric,
    Opened,
    PartitionOptions,
    open_inputs,
)
from incasem.evaluation.places import Place, find_places
from incasem.geometry import Coordinate, Roi, format_roi, grow
from incasem.metrics.boundaries import (
    BoundaryScores,
    ball_offsets,
    boundaries,
    boundary_scores,
    count_boundaries,
    reach,
)
from incasem.metrics.offenders import Offender, worst
from incasem.metrics.partition import PartitionAccumulator, PartitionScores
from incasem.volumes import Volume, create_volume, split_path

JOB = "evaluate-segmentation"
_BLOCK_VOXELS = 200**3


@dataclass(frozen=True)
class Scored:
    """The scores of one segmentation.

    Attributes:
        path: its path.
        name: what of the path tells it from the others.
        scores: of the partition.
        boundary: of the boundaries; None if they were not scored.
        segments, objects: how many of either the counted voxels hold.
    """

    path: str
    name: str
    scores: PartitionScores
    boundary: BoundaryScores | None
    segments: int
    objects: int


@dataclass(frozen=True)
class Misfit:
    """A merger or a split, and where to look at it (voxel on the absolute grid, z, y, x)."""

    offender: Offender
    place: Place


@dataclass(frozen=True)
class PartitionEvaluation:
    """What an evaluation found; mergers and splits are those of the best segmentation."""

    options: PartitionOptions
    opened: Opened
    tolerance_nm: float | None
    scored: tuple[Scored, ...]
    best: Scored
    mergers: tuple[Misfit, ...]
    splits: tuple[Misfit, ...]


def evaluate_segmentations(
    options: PartitionOptions, *, num_workers: int, progress: bool = True
) -> PartitionEvaluation:
    """Score segmentations, continuing an interrupted run.

    Raises:
        ConfigError: a number of workers, tolerance or count that cannot be.
        DataError: a dataset is missing, unfinished, of another voxel size or place, or holds no ids; nothing
            to count.
        FailedBlocksError: blocks that could not be done, with the reason of each.
    """
    for name, value, least in (("num_workers", num_workers, 1), ("worst", options.worst, 0)):
        if value < least:
            raise ConfigError(explain(name, value, f"{least} or more", "Correct it"))
    opened = open_inputs(options)
    job, counts = prepare(options, opened)
    run_stage(job, counts, num_workers, progress)
    evaluation = gather(options, opened, job.grid, counts)
    shutil.rmtree(_folder(counts), ignore_errors=True)
    return evaluation


def tolerance_of(options: PartitionOptions, opened: Opened) -> float | None:
    """Return the tolerance of boundaries (nm), None if they are not scored."""
    if not options.boundaries:
        return None
    asked = options.boundary_tolerance_nm
    if asked is None:
        return 2 * min(opened.labels.voxel_size)
    largest = 10 * min(opened.labels.voxel_size)
    if not 0 <= asked <= largest:
        raise ConfigError(
            explain(
                "boundary_tolerance", f"{asked} nm", f"0 to {largest:g} nm, ten voxels", "Give a smaller one"
            )
        )
    return asked


def prepare(
    options: PartitionOptions, opened: Opened, block_shape: Sequence[int] | None = None
) -> tuple[Job, Volume]:
    """Create the array of boundary counts, beside it a folder for the tables, and the job that fills both."""
    tolerance = tolerance_of(options, opened)
    offsets = None if tolerance is None else ball_offsets(tolerance, opened.labels.voxel_size)
    shape = block_shape or default_block_shape(
        opened.segmentations[0].write_shape, _BLOCK_VOXELS, volume_shape=opened.roi_voxels.shape
    )
    grid = Grid(opened.roi_voxels, Coordinate(shape))
    identity: dict[str, object] = {
        "labels": opened.labels.fingerprint(),
        "segmentations": [volume.fingerprint() for volume in opened.segmentations],
        "masks": [mask.fingerprint() for mask in opened.masks],
        "ignored_truth": options.ignored_truth,
        "boundary_tolerance_nm": tolerance,
        "block_shape": list(shape),
    }
    text = json.dumps([identity_as_json(identity), list(grid.total_roi.begin), list(grid.total_roi.shape)])
    # A name of its own for each question: another one asked meanwhile does not meet these counts.
    key = hashlib.sha256(text.encode()).hexdigest()[:12]
    directory = report_directory(options.out_directory, options.segmentations[0], options.labels)
    row = (len(opened.segmentations), 4)
    counts = create_volume(
        directory / f".tables_{key}.zarr" / "boundaries",
        shape=(len(grid), *row),
        dtype=np.int64,
        voxel_size=(1, 1, 1),
        chunk_shape=(1, *row),
        existing="resume",
    )
    (_folder(counts) / "tables").mkdir(exist_ok=True)
    start = partial(_start, opened, counts, options.ignored_truth, offsets)
    return Job(JOB, grid, start, identity, Path(counts.path) / ".incasem"), counts


def _folder(counts: Volume) -> Path:
    return Path(split_path(counts.path)[0])


def _start(
    opened: Opened, counts: Volume, ignored: int | None, offsets: NDArray[np.int64] | None
) -> BlockFunction:
    return partial(_count_block, opened, counts, ignored, offsets)


def _count_block(
    opened: Opened, counts: Volume, ignored: int | None, offsets: NDArray[np.int64] | None, block: Block
) -> None:
    roi = block.write_roi
    context = (0, 0, 0) if offsets is None else reach(offsets)
    inner = tuple(slice(c, c + n) for c, n in zip(context, roi.shape, strict=True))
    wide = grow(roi, context)
    # Reflection moves no boundary nearer than it is and makes no new one.
    truth_ZYX = opened.labels.read_voxels(wide, beyond="reflect")
    counted = opened.counted(roi)
    truth_edges = None if offsets is None else boundaries(truth_ZYX)
    rows, tables = np.zeros((len(opened.segmentations), 4), np.int64), []
    for k, volume in enumerate(opened.segmentations):
        ids_ZYX = volume.read_voxels(wide, beyond="reflect")
        found = PartitionAccumulator(ignored)
        found.add(ids_ZYX[inner], truth_ZYX[inner], counted)
        tables.append(_stacked(k, *found.table()))
        if offsets is not None and truth_edges is not None:
            where = _labelled(truth_ZYX[inner], ignored, counted)
            rows[k] = count_boundaries(boundaries(ids_ZYX), truth_edges, where, offsets)
    table = np.concatenate(tables)
    write_durably(table_path(counts, block.index), lambda file: np.save(file, table, allow_pickle=False))
    counts.write_voxels(Roi((block.index, 0, 0), (1, *rows.shape)), rows[np.newaxis])


def _labelled(
    truth_ZYX: NDArray[Any], ignored: int | None, counted: NDArray[np.bool_] | None
) -> NDArray[np.bool_]:
    where = np.ones(truth_ZYX.shape, np.bool_) if ignored is None else truth_ZYX != ignored
    return where if counted is None else where & counted


def table_path(counts: Volume, index: int) -> Path:
    """Return where the table of a block lies: uint64, n × 4: segmentation, segment, object, voxels."""
    return _folder(counts) / "tables" / f"{index}.npy"


def _stacked(number: int, segments: Any, objects: Any, shared: Any) -> NDArray[np.uint64]:
    return np.stack(
        [np.full(len(segments), number, np.uint64), segments, objects, shared.astype(np.uint64)], axis=1
    )


def read_tables(counts: Volume, blocks: int) -> Iterator[tuple[int, NDArray[np.uint64]]]:
    """Yield the index and the table of each block."""
    for index in range(blocks):
        yield index, np.load(table_path(counts, index), allow_pickle=False)


def gather(options: PartitionOptions, opened: Opened, grid: Grid, counts: Volume) -> PartitionEvaluation:
    """Add up what the blocks left."""
    totals = [PartitionAccumulator(options.ignored_truth) for _ in opened.segmentations]
    for _, table in read_tables(counts, len(grid)):
        for k, total in enumerate(totals):
            own = table[table[:, 0] == k]
            total.add_table(own[:, 1].copy(), own[:, 2].copy(), own[:, 3].astype(np.int64))
    if totals[0].voxels == 0:
        raise DataError(
            explain(
                "what is labelled and in all masks",
                f"no voxel of {format_roi(opened.roi_voxels)}",
                "some voxels to count",
                "Check the place and values of labels and masks, and --ignored_id",
            )
        )
    tolerance = tolerance_of(options, opened)
    edges = counts.read_voxels(counts.roi_voxels).sum(axis=0)
    scored = tuple(
        _scored(volume.path, name, total, None if tolerance is None else boundary_scores(edges[k]))
        for k, (volume, name, total) in enumerate(
            zip(opened.segmentations, _names(opened.segmentations), totals, strict=True)
        )
    )
    best = min(scored, key=lambda one: error_of(one, options.metric))
    k = scored.index(best)
    segments, objects, shared = totals[k].table()
    mergers = worst(segments, objects, shared, options.worst)
    splits = worst(objects, segments, shared, options.worst)
    tables = ((index, table[table[:, 0] == k][:, 1:]) for index, table in read_tables(counts, len(grid)))
    places = find_places(mergers, splits, tables, opened.segmentations[k], opened.labels, grid)
    misfits = [Misfit(offender, place) for offender, place in zip([*mergers, *splits], places, strict=True)]
    return PartitionEvaluation(
        options,
        opened,
        tolerance,
        scored,
        best,
        tuple(misfits[: len(mergers)]),
        tuple(misfits[len(mergers) :]),
    )


def error_of(scored: Scored, metric: Metric) -> float:
    """Return what ``metric`` ranks segmentations by; lower is better."""
    return scored.scores.adapted_rand_error if metric == "adapted_rand" else scored.scores.voi


def _scored(path: str, name: str, total: PartitionAccumulator, boundary: BoundaryScores | None) -> Scored:
    segments, objects, _ = total.table()
    return Scored(path, name, total.scores(), boundary, len(np.unique(segments)), len(np.unique(objects)))


def _names(volumes: Sequence[Volume]) -> list[str]:
    """Return what tells the paths apart: all that follows the folders they share."""
    parts = [Path(volume.path).parts for volume in volumes]
    shared = 0
    while len(volumes) > 1 and len({p[: shared + 1] for p in parts}) == 1:
        shared += 1
    return ["/".join(p[shared:] if len(volumes) > 1 else p[-1:]) for p in parts]
