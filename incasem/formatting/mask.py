"""The foreground mask: where there is sample rather than empty resin or charging.

Published rule: grey values strictly between two limits; opening by a ball of 3 voxels and closing by a ball
of 2 against salt and pepper; holes of fewer than 100000 voxels filled, then objects of fewer than 100000
removed (both connected by faces). The published code does so within each chunk alone; here the result is that
of the whole volume at once, whatever the blocks: the filters get the context they reach for, and holes and
objects are measured across blocks.

At the volume's border, what lies beyond takes no part: it neither wears the mask away nor adds to it. Holes
and objects that the border cuts are judged by the part that is inside.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from incasem.blockwise import (
    Block,
    BlockFunction,
    Grid,
    Job,
    JobReport,
    default_block_shape,
    is_finished,
    run_in_process,
    run_stage,
)
from incasem.blockwise.components import Mask, mask_of, without_holes, without_small_objects
from incasem.errors import ConfigError, DataError, explain
from incasem.formatting._morphology import close_ball, open_ball
from incasem.formatting._outputs import (
    check_workers,
    create_like,
    dataset_path,
    open_grey,
    sole_command,
    state_dir,
)
from incasem.geometry import Coordinate
from incasem.volumes import Volume, create_volume

logger = logging.getLogger(__name__)

JOB = "mask"
FILTER_JOB = "filter greys"
_OPENING_VOXELS = 3
_CLOSING_VOXELS = 2
# Each opening and closing is an erosion and a dilation.
_REACH_VOXELS = 2 * (_OPENING_VOXELS + _CLOSING_VOXELS)
# Up to here starting workers for each of the passes takes longer than the passes.
_FEW_BLOCKS = 4


@dataclass(frozen=True)
class MaskOptions:
    """Which volume is masked, and how.

    Attributes:
        file: the container.
        dataset: grey values.
        out_dataset: output: uint8, 255 in the sample, 0 outside.
        chunk_shape: of the output, voxels z, y, x.
        min_gray_value: sample is brighter than this.
        max_gray_value: sample is darker than this.
        min_size_voxels: smaller holes are filled, smaller objects removed.
    """

    file: Path
    dataset: str
    out_dataset: str = "volumes/mask"
    chunk_shape: tuple[int, int, int] = (128, 128, 128)
    min_gray_value: float = 2
    max_gray_value: float = 180
    min_size_voxels: int = 100_000


def create_mask(options: MaskOptions, *, num_workers: int, progress: bool = True) -> JobReport:
    """Create a foreground mask, continuing an interrupted run.

    Raises:
        DataError: the input is missing, or the output exists and is another one.
        ConfigError: limits that leave no grey value.
        FailedBlocksError: blocks that could not be done, with the reason of each.
    """
    check_workers(num_workers)
    stage = prepare_mask(options)
    if is_finished(stage.write_job(), stage.output):
        return run_stage(stage.write_job(), stage.output, num_workers, progress)
    few = len(stage.grid) <= _FEW_BLOCKS
    began = time.monotonic()
    with sole_command(stage.write_job()):
        filtering = stage.filter_job()
        if few:
            run_in_process(filtering)
        else:
            run_stage(filtering, stage.filtered(), num_workers, progress)
        mask = stage.sized_mask(0 if few else num_workers, progress)
        report = run_stage(stage.write_job(mask), stage.output, num_workers, progress)
    return replace(report, seconds=time.monotonic() - began)


@dataclass(frozen=True)
class MaskStage:
    """The passes of a foreground mask and what they write to.

    Attributes:
        options: what is masked.
        source: grey values.
        output: the mask.
        grid: blocks of all passes.
    """

    options: MaskOptions
    source: Volume
    output: Volume
    grid: Grid

    @property
    def identity(self) -> dict[str, object]:
        """What determines the mask."""
        return {
            "source": self.source.fingerprint(),
            "min_gray_value": self.options.min_gray_value,
            "max_gray_value": self.options.max_gray_value,
            "min_size_voxels": self.options.min_size_voxels,
        }

    def filtered(self) -> Volume:
        """Create or reopen the mask before sizes are judged: scratch inside the output."""
        return create_volume(
            str(state_dir(self.output) / "filtered.zarr"),
            shape=self.output.shape,
            dtype=np.dtype(np.uint8),
            voxel_size=self.output.voxel_size,
            offset_nm=self.output.offset_nm,
            chunk_shape=self.output.write_shape,
            existing="resume",
        )

    def filter_job(self) -> Job:
        """Return the first pass: limits, opening, closing."""
        return Job(
            name=FILTER_JOB,
            grid=replace(self.grid, context=Coordinate([_REACH_VOXELS] * 3)),
            start_worker=partial(_start_filtering, self.source, self.filtered(), self.options),
            identity=self.identity,
            state_dir=state_dir(self.output) / "filtering",
        )

    def sized_mask(self, num_workers: int, progress: bool = False) -> Mask:
        """Judge holes and objects by their size in the whole volume.

        Args:
            num_workers: worker processes; 0 for this process.
            progress: whether to show progress lines.
        """
        size, folder = self.options.min_size_voxels, state_dir(self.output)
        common: dict[str, Any] = {"num_workers": num_workers, "progress": progress}
        solid = without_holes(
            mask_of(self.filtered()),
            self.grid,
            folder / "holes",
            max_voxels=size - 1,
            fill_at_border=True,
            identity=self.identity,
            **common,
        )
        return without_small_objects(
            solid, self.grid, folder / "objects", min_voxels=size, identity=self.identity, **common
        )

    def write_job(self, mask: Mask | None = None) -> Job:
        """Return the last pass, which writes ``mask``; without one, to ask whether it is finished."""
        return Job(
            name=JOB,
            grid=self.grid,
            start_worker=partial(_start_writing, mask, self.output),
            identity=self.identity,
            state_dir=state_dir(self.output),
        )


def prepare_mask(options: MaskOptions, block_shape: Sequence[int] | None = None) -> MaskStage:
    """Check everything, create the output, and return the passes that fill it.

    Args:
        options: what to mask.
        block_shape: voxels; None chooses one.
    """
    if not options.min_gray_value < options.max_gray_value:
        raise ConfigError(
            explain(
                "min_gray_value",
                options.min_gray_value,
                f"less than max_gray_value ({options.max_gray_value})",
                "Correct one of them",
            )
        )
    if options.min_size_voxels < 1:
        raise ConfigError(explain("min_size_voxels", options.min_size_voxels, "1 or more", "Correct it"))
    source = open_grey(dataset_path(options.file, options.dataset))
    if source.dtype.kind not in "uif":
        raise DataError(explain(f"the dtype of {source.path}", source.dtype, "grey values", "Choose another"))
    if source.dtype != np.uint8 and options.max_gray_value <= np.iinfo(np.uint8).max:
        logger.warning(
            "%s is %s: is max_gray_value %s meant for 8 bits?",
            source.path,
            source.dtype,
            options.max_gray_value,
        )
    output = create_like(
        dataset_path(options.file, options.out_dataset),
        source,
        job=JOB,
        dtype=np.dtype(np.uint8),
        chunk_shape=options.chunk_shape,
    )
    block = block_shape or default_block_shape(output.write_shape, volume_shape=output.shape)
    grid = Grid(output.roi_voxels, Coordinate(block))
    return MaskStage(options, source, output, grid)


def between(grey_ZYX: NDArray[Any], low: float, high: float) -> NDArray[np.bool_]:
    """Return where ``low < grey < high``, opened and closed; what lies beyond the array takes no part."""
    inside: NDArray[np.bool_] = (grey_ZYX > low) & (grey_ZYX < high)
    return close_ball(open_ball(inside, _OPENING_VOXELS), _CLOSING_VOXELS)


def _start_filtering(source: Volume, filtered: Volume, options: MaskOptions) -> BlockFunction:
    return partial(_filter_block, source, filtered, options)


def _filter_block(source: Volume, filtered: Volume, options: MaskOptions, block: Block) -> None:
    known = block.read_roi.intersect(source.roi_voxels)
    mask = between(source.read_voxels(known), options.min_gray_value, options.max_gray_value)
    begin = block.write_roi.begin - known.begin
    inner = tuple(slice(b, b + s) for b, s in zip(begin, block.write_roi.shape, strict=True))
    filtered.write_voxels(block.write_roi, mask[inner].astype(np.uint8))


def _start_writing(mask: Mask | None, output: Volume) -> BlockFunction:
    assert mask is not None, "the mask is made before it is written"
    read = mask()

    def write(block: Block) -> None:
        output.write_voxels(block.write_roi, np.where(read(block), np.uint8(255), np.uint8(0)))

    return write
