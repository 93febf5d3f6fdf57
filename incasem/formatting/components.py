"""Object ids of a mask: its connected components, numbered, in 3D or in each section by itself.

What turns annotated membranes into the ids that affinities are learnt from: each piece of what is *not*
membrane is an object. In stacks of thick sections nothing says which piece goes on where in the next section;
there, ``per_section`` makes objects of one section each, whose ids are unique in the whole volume.

Ids are 1, 2, … in the order in which a scan of the volume meets the objects, whatever the blocks.
"""

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
    run_stage,
)
from incasem.blockwise.components import ComponentTable, Mask, label_components, mask_of
from incasem.errors import ConfigError, DataError, explain
from incasem.formatting._outputs import (
    check_workers,
    create_output,
    dataset_path,
    open_grey,
    sole_command,
    state_dir,
)
from incasem.geometry import Coordinate
from incasem.volumes import Volume

JOB = "components"
COUNT_ATTRIBUTE = "num_objects"
"""Attribute of the output: how many objects there are, which is also the largest id."""

_IN_VOLUME, _IN_SECTION = (6, 18, 26), (4, 8)
# Up to here starting workers for each of the passes takes longer than the passes.
_FEW_BLOCKS = 4


@dataclass(frozen=True)
class ComponentOptions:
    """Which labels are taken apart, and how.

    Attributes:
        file: container of the labels.
        dataset: labels; all values but 0 are one mask.
        out_dataset: output: uint64 ids, 0 for background.
        out_file: container of the output, Zarr or N5; None: ``file``.
        invert: number what is 0 in the labels instead.
        per_section: take each section (z) by itself.
        connectivity: which neighbours are of one object: 6, 18 or 26; ``per_section`` 4 or 8; None: those
            that share a face, 6 or 4.
        min_size: objects of fewer voxels become background.
        chunk_shape: of the output, voxels z, y, x.
    """

    file: Path
    dataset: str
    out_dataset: str
    out_file: Path | None = None
    invert: bool = False
    per_section: bool = False
    connectivity: int | None = None
    min_size: int = 0
    chunk_shape: tuple[int, int, int] = (128, 128, 128)

    @property
    def neighbours(self) -> int:
        """The connectivity that is asked for.

        Raises:
            ConfigError: there is none like this.
        """
        allowed = _IN_SECTION if self.per_section else _IN_VOLUME
        if self.connectivity is None:
            return allowed[0]
        if self.connectivity not in allowed:
            where = "with --per_section" if self.per_section else "without --per_section"
            numbers = ", ".join(map(str, allowed))
            raise ConfigError(
                explain("connectivity", self.connectivity, f"{numbers} ({where})", "Choose one of them")
            )
        return self.connectivity


def write_components(
    options: ComponentOptions, *, num_workers: int, progress: bool = True
) -> tuple[JobReport, int]:
    """Write the ids, continuing an interrupted run; return what was done, and the number of objects.

    Raises:
        ConfigError: a setting that is not possible.
        DataError: no labels, or the output exists and is another one.
        FailedBlocksError: blocks that could not be done, with the reason of each.
    """
    check_workers(num_workers)
    stage = prepare_components(options)
    if is_finished(stage.write_job(), stage.output):
        report = run_stage(stage.write_job(), stage.output, num_workers, progress)
        return report, int(stage.output.attributes[COUNT_ATTRIBUTE])
    began = time.monotonic()
    with sole_command(stage.write_job()):
        table = stage.find(0 if len(stage.grid) <= _FEW_BLOCKS else num_workers, progress)
        ids = numbers(table, options.min_size)
        count = int(ids.max())
        stage.output.set_attributes(**{COUNT_ATTRIBUTE: count})
        report = run_stage(stage.write_job(table, ids), stage.output, num_workers, progress)
    return replace(report, seconds=time.monotonic() - began), count


@dataclass(frozen=True)
class ComponentStage:
    """The passes that number objects.

    Attributes:
        options: what is numbered.
        labels: what the mask is made of.
        output: ids, uint64.
        grid: blocks of all passes.
    """

    options: ComponentOptions
    labels: Volume
    output: Volume
    grid: Grid

    @property
    def identity(self) -> dict[str, object]:
        """What determines the ids."""
        return {
            "labels": self.labels.fingerprint(),
            "invert": self.options.invert,
            "connectivity": self.options.neighbours,
            "min_size": self.options.min_size,
        }

    @property
    def mask(self) -> Mask:
        """What is numbered."""
        return mask_of(self.labels, _is_zero if self.options.invert else np.asarray)

    def find(self, num_workers: int, progress: bool = False) -> ComponentTable:
        """Find the objects; 0 workers do it in this process."""
        return label_components(
            self.mask,
            self.grid,
            state_dir(self.output) / "objects",
            connectivity=self.options.neighbours,
            identity=self.identity,
            num_workers=num_workers,
            progress=progress,
        )

    def write_job(self, table: ComponentTable | None = None, ids: NDArray[np.uint64] | None = None) -> Job:
        """Return the pass that writes ids; without them, to ask whether it is finished."""
        return Job(
            name=JOB,
            grid=self.grid,
            start_worker=partial(_start_writing, self.mask, table, ids, self.output),
            identity=self.identity,
            state_dir=state_dir(self.output),
        )


def prepare_components(options: ComponentOptions, block_shape: Sequence[int] | None = None) -> ComponentStage:
    """Check everything, create the output, and return the passes that fill it.

    Args:
        options: what to number.
        block_shape: voxels; None chooses one.
    """
    _ = options.neighbours  # refuses what cannot be before anything is created
    if options.min_size < 0:
        raise ConfigError(explain("min_size", options.min_size, "0 or more, voxels", "Correct it"))
    path = dataset_path(options.file, options.dataset)
    labels = open_grey(path)
    if labels.dtype.kind not in "uib":
        raise DataError(
            explain(f"the dtype of {path}", labels.dtype, "integers (labels)", "Choose the labels dataset")
        )
    out_path = dataset_path(options.out_file or options.file, options.out_dataset)
    if out_path == path:
        raise ConfigError(explain("the output dataset", path, "another one than the input", "Rename it"))
    output = create_output(
        out_path,
        job=JOB,
        shape=labels.shape,
        dtype=np.dtype(np.uint64),
        voxel_size=labels.voxel_size,
        offset_nm=labels.offset_nm,
        chunk_shape=options.chunk_shape,
    )
    block = block_shape or default_block_shape(output.write_shape, volume_shape=output.shape)
    return ComponentStage(options, labels, output, Grid(output.roi_voxels, Coordinate(block)))


def numbers(table: ComponentTable, min_size: int) -> NDArray[np.uint64]:
    """Return the id of each component: 0 for small ones, 1, 2, … for the others; index 0 is outside."""
    keep = np.asarray(table.sizes) >= max(min_size, 1)
    keep[0] = False
    return np.where(keep, np.cumsum(keep), 0).astype(np.uint64)


def _is_zero(values: NDArray[Any]) -> NDArray[np.bool_]:
    return np.asarray(values == 0)


def _start_writing(
    mask: Mask, table: ComponentTable | None, ids: NDArray[np.uint64] | None, output: Volume
) -> BlockFunction:
    assert table is not None, "objects are found before they are written"
    assert ids is not None
    read = mask()

    def write(block: Block) -> None:
        output.write_voxels(block.write_roi, table.look_up(read(block), block, ids))

    return write
