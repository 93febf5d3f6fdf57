"""Equalise the histogram of a volume by CLAHE, block by block (see `incasem.formatting.clahe`).

Two passes over the volume. The first counts each block's voxels by tile and grey value; a tile's histogram is
the sum of what the blocks that touch it have counted, so no voxel is counted twice although tiles lie across
blocks. The second equalises each block with the maps of the tiles around it.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from incasem.formatting._outputs import (
    check_workers,
    create_like,
    dataset_path,
    open_grey,
    sole_command,
    state_dir,
)
from incasem.geometry import Coordinate, Roi
from incasem.volumes import Volume, create_volume

if TYPE_CHECKING:
    from incasem.formatting.clahe import Clahe

JOB = "equalize"
COUNT_JOB = "count greys"
# Counting a gigavoxel takes a few seconds, starting workers one: up to there it is done in this process.
_FEW_BLOCKS = 64


@dataclass(frozen=True)
class EqualizeOptions:
    """Which volume is equalised, and how.

    Attributes:
        file: the container.
        dataset: uint8 or uint16 grey values.
        out_dataset: output, same dtype, size and place.
        chunk_shape: of the output, voxels z, y, x.
        kernel_size: side of a tile, voxels.
        clip_limit: largest share of a tile's voxels in one bin.
    """

    file: Path
    dataset: str = "volumes/raw"
    out_dataset: str = "volumes/raw_equalized_0.02"
    chunk_shape: tuple[int, int, int] = (128, 128, 128)
    kernel_size: int = 128
    clip_limit: float = 0.02


@dataclass(frozen=True)
class _Tiling:
    """Which tiles the counting blocks touch, and where each block's counts lie.

    Attributes:
        shape: the volume's, voxels.
        block_shape: of a counting block, voxels.
        settings: kernel and clip limit.
    """

    shape: tuple[int, ...]
    block_shape: tuple[int, ...]
    settings: "Clahe"

    def block_range(self, axis: int, index: int) -> tuple[int, int]:
        """First and last + 1 voxel of a counting block."""
        size = self.block_shape[axis]
        return index * size, min((index + 1) * size, self.shape[axis])

    def blocks(self, axis: int) -> int:
        """Counting blocks along an axis."""
        return -(-self.shape[axis] // self.block_shape[axis])

    def slots(self, axis: int) -> int:
        """Tiles for which a block has room: the most that any block touches."""
        return max(
            len(self.settings.tiles_counted(*self.block_range(axis, i))) for i in range(self.blocks(axis))
        )

    def sources(self, axis: int, begin: int, end: int) -> tuple[slice, NDArray[np.int64]]:
        """Where the histograms of the tiles mixed for ``[begin, end)`` come from.

        Returns:
            the slots to read, and a matrix tiles × slots of 0 and 1 that sums them. Tiles beyond
            the last one with voxels repeat it.
        """
        settings, kernel, slots = self.settings, self.settings.kernel, self.slots(axis)
        last = settings.tiles_counted(0, self.shape[axis])[-1]
        tiles = [min(tile, last) for tile in settings.tiles_mixed(begin, end)]
        first_voxel = max(0, tiles[0] * kernel - kernel // 2)
        end_voxel = min(self.shape[axis], tiles[-1] * kernel - kernel // 2 + kernel)
        first, past = first_voxel // self.block_shape[axis], -(-end_voxel // self.block_shape[axis])
        matrix = np.zeros((len(tiles), (past - first) * slots), np.int64)
        for block in range(first, past):
            for slot, tile in enumerate(settings.tiles_counted(*self.block_range(axis, block))):
                for row, wanted in enumerate(tiles):
                    matrix[row, (block - first) * slots + slot] = tile == wanted
        return slice(first * slots, past * slots), matrix


def equalize_histogram(options: EqualizeOptions, *, num_workers: int, progress: bool = True) -> JobReport:
    """Equalise a volume, continuing an interrupted run.

    Raises:
        DataError: the input is missing or not uint8/uint16, or the output exists and is another one.
        ConfigError: kernel size or clip limit out of range.
        FailedBlocksError: blocks that could not be done, with the reason of each.
    """
    check_workers(num_workers)
    stage = prepare_equalization(options)
    if is_finished(stage.equalize, stage.output):
        return run_stage(stage.equalize, stage.output, num_workers, progress)
    began = time.monotonic()
    with sole_command(stage.equalize):
        count = stage.count()
        if len(count.grid) <= _FEW_BLOCKS:
            run_in_process(count)
        else:
            run_stage(count, stage.counts(), num_workers, progress)
        report = run_stage(stage.equalize, stage.output, num_workers, progress)
    return replace(report, seconds=time.monotonic() - began)


@dataclass(frozen=True)
class Equalization:
    """The two jobs of an equalisation and what they write to."""

    source: Volume
    output: Volume
    tiling: _Tiling
    equalize: Job

    def counts(self) -> Volume:
        """Create or reopen the counts: a scratch volume inside the output, removed with its marks."""
        slots = [self.tiling.slots(axis) for axis in range(3)]
        return create_volume(
            _counts_path(self.output),
            shape=(256, *(self.tiling.blocks(axis) * slots[axis] for axis in range(3))),
            dtype=np.dtype(np.uint32),
            voxel_size=(1.0, 1.0, 1.0),
            axes=("c", "z", "y", "x"),
            chunk_shape=(256, *slots),
            existing="resume",
        )

    def count(self) -> Job:
        """Return the job of the first pass."""
        return Job(
            name=COUNT_JOB,
            grid=Grid(self.source.roi_voxels, Coordinate(self.tiling.block_shape)),
            start_worker=partial(_start_counting, self.source, self.counts(), self.tiling),
            identity={
                "source": self.source.fingerprint(),
                "kernel_size": self.tiling.settings.kernel,
                # Counts lie by block, so here the cut does matter.
                "block_shape": list(self.tiling.block_shape),
            },
            state_dir=state_dir(self.output) / "counting",
        )


def prepare_equalization(options: EqualizeOptions, block_shape: Sequence[int] | None = None) -> Equalization:
    """Check everything, create the output, and return the jobs that fill it.

    Args:
        options: what to equalise.
        block_shape: of both passes (voxels); None chooses one.
    """
    from incasem.formatting.clahe import Clahe, check_dtype

    settings = Clahe(options.kernel_size, options.clip_limit)
    source = open_grey(dataset_path(options.file, options.dataset))
    check_dtype(source.dtype, source.path)
    output = create_like(
        dataset_path(options.file, options.out_dataset),
        source,
        job=JOB,
        dtype=source.dtype,
        chunk_shape=options.chunk_shape,
    )
    # The counting blocks follow the chunks that are read, the others those that are written.
    counting = block_shape or default_block_shape(source.chunk_shape, volume_shape=source.shape)
    writing = block_shape or default_block_shape(output.write_shape, volume_shape=output.shape)
    tiling = _Tiling(tuple(source.shape), tuple(int(b) for b in counting), settings)
    job = Job(
        name=JOB,
        grid=Grid(output.roi_voxels, Coordinate(writing)),
        start_worker=partial(_start_equalizing, source, output, tiling),
        identity={
            "source": source.fingerprint(),
            "kernel_size": settings.kernel,
            "clip_limit": settings.clip_limit,
        },
        state_dir=state_dir(output),
    )
    return Equalization(source, output, tiling, job)


def _counts_path(output: Volume) -> str:
    return str(state_dir(output) / "counts.zarr")


def _start_counting(source: Volume, counts: Volume, tiling: _Tiling) -> BlockFunction:
    return partial(_count_block, source, counts, tiling)


def _count_block(source: Volume, counts: Volume, tiling: _Tiling, block: Block) -> None:
    from incasem.formatting.clahe import count_block

    local = block.write_roi - source.roi_voxels.begin
    found = count_block(source.read_voxels(block.write_roi), local.begin, tiling.settings)
    slots = Coordinate(tiling.slots(axis) for axis in range(3))
    room_BZYX = np.zeros((256, *slots), np.uint32)
    room_BZYX[:, : found.shape[0], : found.shape[1], : found.shape[2]] = np.moveaxis(found, -1, 0)
    position = Coordinate(b // s for b, s in zip(local.begin, tiling.block_shape, strict=True))
    counts.write_voxels(Roi(position * slots, slots), room_BZYX)


def _start_equalizing(source: Volume, output: Volume, tiling: _Tiling) -> BlockFunction:
    from incasem.volumes import open_volume

    return partial(_equalize_block, source, open_volume(_counts_path(output)), output, tiling)


def _equalize_block(source: Volume, counts: Volume, output: Volume, tiling: _Tiling, block: Block) -> None:
    from incasem.formatting.clahe import equalize_block, maps_of_tiles

    local = block.write_roi - source.roi_voxels.begin
    histograms = _histograms(counts, tiling, local)
    maps = maps_of_tiles(histograms, tiling.settings)
    array = source.read_voxels(block.write_roi)
    output.write_voxels(block.write_roi, equalize_block(array, local.begin, maps, tiling.settings))


def _histograms(counts: Volume, tiling: _Tiling, local: Roi) -> NDArray[Any]:
    """Sum the counts of the tiles that are mixed in a block; ZYXB."""
    parts = [tiling.sources(axis, local.begin[axis], local.end[axis]) for axis in range(3)]
    begin = [slots.start for slots, _ in parts]
    shape = [slots.stop - slots.start for slots, _ in parts]
    summed = counts.read_voxels(Roi(begin, shape)).astype(np.int64)
    # Each product takes the first spatial axis away and appends it as tiles: BZYX becomes BYXZ, BXZY, BZYX.
    for _, matrix in parts:
        summed = np.tensordot(summed, matrix, axes=(1, 1))
    return np.moveaxis(summed, 0, -1)
