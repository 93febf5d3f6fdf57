"""A segmentation of a probability map: 255 where the probability reaches a threshold, else 0.

Published: uint32, ``probability ≥ threshold`` inside the mask. Both forms of stored probabilities are taken:
floats, and bytes that hold round(255 p).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from incasem.blockwise import Block, BlockFunction, Grid, Job, JobReport, default_block_shape, run_stage
from incasem.errors import ConfigError, DataError, explain
from incasem.formatting._outputs import check_workers, create_like, dataset_path, open_grey, state_dir
from incasem.geometry import Coordinate, format_roi
from incasem.metrics.thresholds import reaches
from incasem.tasks.stored import BORDER_ATTRIBUTE, kind_of, require_finished, unwritten_border
from incasem.volumes import Volume, check_same_voxel_size

JOB = "threshold"
FOREGROUND = 255


@dataclass(frozen=True)
class ThresholdOptions:
    """Which probabilities become a segmentation, and how.

    Attributes:
        file: container of the probabilities and of the output.
        dataset: probabilities: uint8 (round(255 p)) or floats.
        out_dataset: output: uint32, 0 or 255, as published.
        threshold: 0 to 1; voxels of at least this probability are foreground.
        mask_file: container of the mask; None for no mask.
        mask_dataset: nonzero where the sample is; outside it, and where it ends, all is background.
        chunk_shape: of the output, voxels z, y, x.
    """

    file: Path
    dataset: str
    out_dataset: str
    threshold: float
    mask_file: Path | None = None
    mask_dataset: str = "volumes/mask"
    chunk_shape: tuple[int, int, int] = (128, 128, 128)


def apply_threshold(options: ThresholdOptions, *, num_workers: int, progress: bool = True) -> JobReport:
    """Make the segmentation, continuing an interrupted run.

    Raises:
        ConfigError: a threshold outside 0 to 1.
        DataError: no probabilities, an unfinished prediction, a mask elsewhere, or another output there.
        FailedBlocksError: blocks that could not be done, with the reason of each.
    """
    check_workers(num_workers)
    job, output = prepare_threshold(options)
    return run_stage(job, output, num_workers, progress)


def prepare_threshold(
    options: ThresholdOptions, block_shape: Sequence[int] | None = None
) -> tuple[Job, Volume]:
    """Check everything, create the output, and return the job that fills it."""
    if not 0 <= options.threshold <= 1:
        raise ConfigError(explain("threshold", options.threshold, "0 to 1", "Probabilities are 0 to 1"))
    source = open_grey(dataset_path(options.file, options.dataset))
    if kind_of(source) != "probabilities":
        raise DataError(
            explain(
                f"{source.path} ({source.dtype})",
                "no probability map",
                "uint8 or float probabilities, such as …/prob_maps/class_1",
                "Give a probability map",
            )
        )
    require_finished(source)
    mask = None
    if options.mask_file is not None:
        mask = _open_mask(dataset_path(options.mask_file, options.mask_dataset), source)
    output = create_like(
        dataset_path(options.file, options.out_dataset),
        source,
        job=JOB,
        dtype=np.dtype(np.uint32),
        chunk_shape=options.chunk_shape,
    )
    border = unwritten_border(source)
    if output.attributes.get(BORDER_ATTRIBUTE) != border:
        output.set_attributes(**{BORDER_ATTRIBUTE: border})
    block = block_shape or default_block_shape(output.write_shape, volume_shape=output.shape)
    job = Job(
        name=JOB,
        grid=Grid(output.roi_voxels, Coordinate(block)),
        start_worker=partial(_start, source, mask, output, options.threshold),
        identity={
            "probabilities": source.fingerprint(),
            "threshold": options.threshold,
            "mask": None if mask is None else mask.fingerprint(),
        },
        state_dir=state_dir(output),
    )
    return job, output


def _open_mask(path: str, source: Volume) -> Volume:
    mask = open_grey(path)
    check_same_voxel_size(mask, source, "probabilities")
    if mask.roi_voxels.intersect(source.roi_voxels).empty:
        raise DataError(
            explain(
                f"the place of {path}",
                f"{format_roi(mask.roi_voxels)} voxels",
                f"an overlap with the probabilities' region {format_roi(source.roi_voxels)}",
                "Correct its offset",
            )
        )
    return mask


def _start(source: Volume, mask: Volume | None, output: Volume, threshold: float) -> BlockFunction:
    return partial(_segment_block, source, mask, output, threshold)


def _segment_block(
    source: Volume, mask: Volume | None, output: Volume, threshold: float, block: Block
) -> None:
    found = reaches(source.read_voxels(block.write_roi), threshold)
    if mask is not None:
        found &= mask.read_voxels(block.write_roi, beyond="constant") != 0
    output.write_voxels(block.write_roi, np.where(found, np.uint32(FOREGROUND), np.uint32(0)))
