"""The exclusion zone around object boundaries, left out when a segmentation is scored.

Published rule: the zone is what dilation of the labels adds and what their erosion takes away, with the cross
of six neighbours, once a voxel of width. So a background voxel lies in the zone if an object is at most
``exclude_voxels_outwards`` moves along axes away, an object's voxel if background is at most
``exclude_voxels_inwards`` moves away. All objects count as one: two that touch have no boundary between them.

Two differences from the published code, on purpose: a width of 0 gives no zone on that side (there, all of a
block), and the volume's border is no boundary (there, objects cut by it get a zone along it):
what lies beyond is not known.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from incasem.blockwise import Block, BlockFunction, Grid, Job, JobReport, default_block_shape, run_stage
from incasem.errors import ConfigError, DataError, explain
from incasem.formatting._morphology import dilate_cross, erode_cross
from incasem.formatting._outputs import check_workers, create_like, dataset_path, open_grey, state_dir
from incasem.geometry import Coordinate
from incasem.volumes import Volume

JOB = "metric mask"
_MOST_VOXELS = 1000


@dataclass(frozen=True)
class MetricMaskOptions:
    """Which labels get an exclusion zone, and how wide it is.

    Attributes:
        file: the container.
        dataset: labels; every nonzero voxel belongs to an object.
        out_dataset: output: uint8, 0 in the zone, 255 elsewhere.
        chunk_shape: of the output, voxels z, y, x.
        exclude_voxels_outwards: width of the zone around objects, voxels; 0 for none.
        exclude_voxels_inwards: width of the zone inside objects, voxels; 0 for none.
    """

    file: Path
    dataset: str
    out_dataset: str
    chunk_shape: tuple[int, int, int] = (128, 128, 128)
    exclude_voxels_outwards: int = 4
    exclude_voxels_inwards: int = 4


def create_metric_mask(options: MetricMaskOptions, *, num_workers: int, progress: bool = True) -> JobReport:
    """Create a metric mask, continuing an interrupted run.

    Raises:
        DataError: the labels are missing or no integers, or the output exists and is another one.
        ConfigError: a width below 0.
        FailedBlocksError: blocks that could not be done, with the reason of each.
    """
    check_workers(num_workers)
    job, output = prepare_metric_mask(options)
    return run_stage(job, output, num_workers, progress)


def prepare_metric_mask(
    options: MetricMaskOptions, block_shape: Sequence[int] | None = None
) -> tuple[Job, Volume]:
    """Check everything, create the output, and return the job that fills it.

    Args:
        options: labels and widths.
        block_shape: voxels; None chooses one.
    """
    widths = {
        "exclude_voxels_outwards": options.exclude_voxels_outwards,
        "exclude_voxels_inwards": options.exclude_voxels_inwards,
    }
    for name, width in widths.items():
        if not 0 <= width <= _MOST_VOXELS:
            raise ConfigError(explain(name, width, f"0 to {_MOST_VOXELS} voxels", "Usual are 1 to 4"))
    labels = open_grey(dataset_path(options.file, options.dataset))
    if labels.dtype.kind not in "uib":
        raise DataError(
            explain(
                f"the dtype of {labels.path}", labels.dtype, "integers (labels)", "Choose the labels dataset"
            )
        )
    output = create_like(
        dataset_path(options.file, options.out_dataset),
        labels,
        job=JOB,
        dtype=np.dtype(np.uint8),
        chunk_shape=options.chunk_shape,
    )
    block = block_shape or default_block_shape(output.write_shape, volume_shape=output.shape)
    outwards, inwards = widths.values()
    job = Job(
        name=JOB,
        grid=Grid(output.roi_voxels, Coordinate(block), Coordinate([max(outwards, inwards)] * 3)),
        start_worker=partial(_start, labels, output, outwards, inwards),
        identity={"labels": labels.fingerprint(), **widths},
        state_dir=state_dir(output),
    )
    return job, output


def keep_zone_free(labels_ZYX: NDArray[np.integer], outwards: int, inwards: int) -> NDArray[np.uint8]:
    """Return 0 for voxels in the exclusion zone of ``labels_ZYX``, 255 for all others."""
    objects = labels_ZYX != 0
    zone = dilate_cross(objects, outwards) & ~erode_cross(objects, inwards)
    return np.where(zone, np.uint8(0), np.uint8(255))


def _start(labels: Volume, output: Volume, outwards: int, inwards: int) -> BlockFunction:
    return partial(_mask_block, labels, output, outwards, inwards)


def _mask_block(labels: Volume, output: Volume, outwards: int, inwards: int, block: Block) -> None:
    known = block.read_roi.intersect(labels.roi_voxels)
    mask = keep_zone_free(labels.read_voxels(known), outwards, inwards)
    begin = block.write_roi.begin - known.begin
    inner = tuple(slice(b, b + s) for b, s in zip(begin, block.write_roi.shape, strict=True))
    output.write_voxels(block.write_roi, mask[inner])
