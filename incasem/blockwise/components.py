"""Connected components of a whole volume, in blocks and exactly.

Two passes of jobs and one small sum in between:

1. each block is labelled alone; sizes, first voxels and the labels on its faces are stored (a table, not
   a volume of labels);
2. neighbouring blocks compare their faces: pairs of touching pieces, across edges and corners as well
   where the connectivity asks for it;
3. union-find over all pairs (`scipy.sparse.csgraph`) gives each piece the number of its component.

Whoever wants the labels of a block labels it again and looks the numbers up: labelling costs less than
writing and reading a volume of labels. Memory: a block, and the tables (17 bytes a piece).

Components are numbered 1, 2, … in the order in which a scan of the region meets them, as
`scipy.ndimage.label` numbers those of a whole volume; so neither the partition nor the numbers depend on
the blocks.

`without_small_objects` and `without_holes` build on it. They take and return *masks*, which are recipes for
reading one block of a mask, so that they can be chained and written by any job in the end.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from incasem.blockwise._touching import (
    Pieces,
    label_block,
    load_pieces,
    pieces_of,
    save,
    touching_pieces,
)
from incasem.blockwise.engine import run_in_process, run_job
from incasem.blockwise.grid import Block, Grid
from incasem.blockwise.job import BlockFunction, Job
from incasem.errors import DataError
from incasem.geometry import Roi, format_roi

__all__ = [
    "ComponentTable",
    "Mask",
    "MaskReader",
    "label_components",
    "mask_of",
    "without_holes",
    "without_small_objects",
]

MaskReader: TypeAlias = Callable[[Block], NDArray[np.bool_]]
"""Returns the mask in a block's write ROI: bool, z, y, x."""

Mask: TypeAlias = Callable[[], MaskReader]
"""Opens a mask; called once in each worker. Picklable, as a job's ``start_worker`` is."""


class Readable(Protocol):
    """What a mask is read from: a `Volume`, or anything that reads like one."""

    def read_voxels(self, roi_voxels: Roi) -> NDArray[Any]:
        """Return the voxels of a region of the absolute grid; z, y, x."""
        ...


def mask_of(volume: Readable, where: Callable[[NDArray[Any]], NDArray[np.bool_]] = np.asarray) -> Mask:
    """Return the mask of the voxels of a volume for which ``where`` is true, by default those not 0."""

    def open_mask() -> MaskReader:
        return lambda block: where(volume.read_voxels(block.write_roi)).astype(bool, copy=False)

    return open_mask


@dataclass(frozen=True)
class ComponentTable:
    """The components of a mask on a grid: how many, how large, and which piece belongs to which.

    Attributes:
        folder: where the table is stored; it pickles as this path.
        grid: the blocks that the pieces belong to.
        connectivity: see `label_components`.
    """

    folder: Path
    grid: Grid
    connectivity: int

    @property
    def count(self) -> int:
        """Number of components."""
        return self.sizes.size - 1

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """Voxels of each component; index 0 stands for outside and is 0."""
        return np.load(self.folder / "sizes.npy", mmap_mode="r")

    @cached_property
    def touches_border(self) -> NDArray[np.bool_]:
        """Whether each component reaches the border of the region; False for index 0."""
        return np.load(self.folder / "touches_border.npy", mmap_mode="r")

    @cached_property
    def _component_of_piece(self) -> NDArray[np.int64]:
        return np.load(self.folder / "component_of_piece.npy", mmap_mode="r")

    @cached_property
    def _first_piece(self) -> NDArray[np.int64]:
        return np.load(self.folder / "first_piece.npy", mmap_mode="r")

    def __getstate__(self) -> dict[str, Any]:
        """Leave the opened arrays out: the other process opens its own."""
        return {"folder": self.folder, "grid": self.grid, "connectivity": self.connectivity}

    def label(self, mask_ZYX: NDArray[np.bool_], block: Block) -> NDArray[np.int64]:
        """Return the component of each voxel of a block, 0 outside the mask; z, y, x.

        Args:
            mask_ZYX: the mask in the block's write ROI, as it was when the table was made.
            block: a block of ``grid``.

        Raises:
            DataError: the mask has changed since.
        """
        return self.look_up(mask_ZYX, block, np.arange(self.count + 1))

    def look_up(self, mask_ZYX: NDArray[np.bool_], block: Block, values: NDArray[Any]) -> NDArray[Any]:
        """Return, for each voxel of a block, the value of its component; see `label`.

        Args:
            mask_ZYX: the mask in the block's write ROI.
            block: a block of ``grid``.
            values: one value a component, ``count + 1`` of them; index 0 is for outside.
        """
        labels, pieces = label_block(mask_ZYX, self.connectivity)
        first, end = self._first_piece[block.index : block.index + 2]
        if pieces != end - first:
            raise DataError(
                f"the mask in block {format_roi(block.write_roi)} has {pieces} pieces and had {end - first} "
                "when its components were found; the data changed in between. "
                f"Delete {self.folder} and start again."
            )
        table = np.empty(pieces + 1, values.dtype)
        table[0] = values[0]
        table[1:] = values[self._component_of_piece[first:end]]
        return table[labels]


def label_components(
    mask: Mask,
    grid: Grid,
    folder: Path,
    *,
    connectivity: int = 6,
    identity: Mapping[str, object],
    num_workers: int,
    progress: bool = True,
) -> ComponentTable:
    """Find the connected components of a mask.

    Args:
        mask: the mask; ``grid`` must have no context.
        grid: the region and its blocks.
        folder: where tables and marks are kept, until the caller has used them and removes the folder.
        connectivity: 6 (faces), 18 (edges too) or 26 (corners too); in each section (z) by itself 4 (faces)
            or 8 (edges too).
        identity: everything that determines the mask; an interrupted run of the same identity is continued.
        num_workers: worker processes; 0 does it in this process, without marks.
        progress: whether to show progress lines.

    Raises:
        ConfigError: another connectivity.
        FailedBlocksError, DataError: as `run_job`.
    """
    label_block(np.zeros((1, 1, 1), bool), connectivity)  # refuses a senseless connectivity at once
    folder = Path(folder)
    identity = {"mask": dict(identity), "connectivity": connectivity}
    durable = num_workers > 0  # without marks there is nothing that could outlive the data
    for name, start in (
        ("label components", partial(_start_labelling, mask, grid, folder / "pieces", connectivity, durable)),
        ("join components", partial(_start_matching, grid, folder, connectivity, durable)),
    ):
        job = Job(name, grid, start, identity, folder / name.split()[0])
        if num_workers == 0:
            run_in_process(job)
        else:
            run_job(job, num_workers=num_workers, progress=progress)
    _join(grid, folder)
    return ComponentTable(folder, grid, connectivity)


def _start_labelling(mask: Mask, grid: Grid, folder: Path, connectivity: int, durable: bool) -> BlockFunction:
    read = mask()

    def label(block: Block) -> None:
        labels, count = label_block(read(block), connectivity)
        save(folder / f"{block.index}.npz", pieces_of(labels, count, block, grid), durable=durable)

    return label


def _start_matching(grid: Grid, folder: Path, connectivity: int, durable: bool) -> BlockFunction:
    def match(block: Block) -> None:
        touching = touching_pieces(grid, block, folder / "pieces", connectivity)
        pairs: Pieces = {str(index): pairs for index, pairs in touching if len(pairs)}
        save(folder / "pairs" / f"{block.index}.npz", pairs, durable=durable)

    return match


def _join(grid: Grid, folder: Path) -> None:
    """Number the components, and store what `ComponentTable` reads."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    first_piece, sizes, first, at_border = _all_pieces(grid, folder / "pieces")
    pairs = _all_pairs(grid, folder / "pairs", first_piece)
    number = int(first_piece[-1])
    graph = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(number, number))
    count, component = connected_components(graph, directed=False) if number else (0, np.zeros(0, int))
    earliest = np.full(count, np.iinfo(np.int64).max)
    np.minimum.at(earliest, component, first)
    rank = np.empty(count, np.int64)
    rank[np.argsort(earliest)] = np.arange(1, count + 1)
    component = rank[component]
    total = np.zeros(count + 1, np.int64)
    np.add.at(total, component, sizes)
    touches = np.zeros(count + 1, bool)
    touches[component[at_border]] = True
    np.save(folder / "first_piece.npy", first_piece)
    np.save(folder / "component_of_piece.npy", component)
    np.save(folder / "sizes.npy", total)
    np.save(folder / "touches_border.npy", touches)


def _all_pieces(grid: Grid, folder: Path) -> tuple[NDArray[Any], ...]:
    """Pieces of all blocks: the number before each block, sizes, first voxels, whether at the border."""
    columns: dict[str, list[NDArray[Any]]] = {"sizes": [], "first": [], "at_border": []}
    for index in range(len(grid)):
        with load_pieces(folder, index) as pieces:
            for name, column in columns.items():
                column.append(pieces[name])
    counts = [len(sizes) for sizes in columns["sizes"]]
    return (np.concatenate([[0], np.cumsum(counts)]), *(np.concatenate(c) for c in columns.values()))


def _all_pairs(grid: Grid, folder: Path, first_piece: NDArray[Any]) -> NDArray[np.int64]:
    """Pairs of touching pieces of all blocks, counted over the whole region from 0."""
    found = [np.zeros((0, 2), np.int64)]
    for index in range(len(grid)):
        with load_pieces(folder, index) as pairs:
            for neighbour in pairs:
                found.append(pairs[neighbour] - 1 + first_piece[[index, int(neighbour)]])
    return np.concatenate(found)


@dataclass(frozen=True)
class _Changed:
    """A mask with the components of ``table`` switched where ``switch`` (a file, one bool each) says so."""

    mask: Mask
    table: ComponentTable
    switch: Path
    of_background: bool

    def __call__(self) -> MaskReader:
        read, switch = self.mask(), np.load(self.switch)

        def read_changed(block: Block) -> NDArray[np.bool_]:
            mask = read(block)
            parts = ~mask if self.of_background else mask
            return mask ^ self.table.look_up(parts, block, switch)

        return read_changed


def without_small_objects(
    mask: Mask,
    grid: Grid,
    folder: Path,
    *,
    min_voxels: int,
    connectivity: int = 6,
    identity: Mapping[str, object],
    num_workers: int,
    progress: bool = True,
) -> Mask:
    """Return the mask without its objects of fewer than ``min_voxels`` voxels; see `label_components`.

    Equal to `skimage.morphology.remove_small_objects` of the whole volume.
    """
    table = label_components(
        mask,
        grid,
        folder,
        connectivity=connectivity,
        identity=identity,
        num_workers=num_workers,
        progress=progress,
    )
    return _switched(mask, table, table.sizes < min_voxels, of_background=False)


def without_holes(
    mask: Mask,
    grid: Grid,
    folder: Path,
    *,
    max_voxels: int | None = None,
    fill_at_border: bool = False,
    connectivity: int = 6,
    identity: Mapping[str, object],
    num_workers: int,
    progress: bool = True,
) -> Mask:
    """Return the mask with its holes filled; see `label_components`.

    With the defaults equal to `scipy.ndimage.binary_fill_holes` of the whole volume; with
    ``max_voxels = area_threshold - 1`` and ``fill_at_border`` to `skimage.morphology.remove_small_holes`.

    Args:
        mask: the mask.
        grid: the region and its blocks.
        folder: where tables and marks are kept.
        max_voxels: larger holes stay; None fills holes of any size.
        fill_at_border: whether background that reaches the border of the region counts as a hole too; needs
            ``max_voxels``.
        connectivity: see `label_components`; of the *background*.
        identity: everything that determines the mask.
        num_workers: worker processes; 0 does it in this process.
        progress: whether to show progress lines.
    """
    if fill_at_border and max_voxels is None:
        raise ValueError("fill_at_border without max_voxels would fill everything")
    table = label_components(
        partial(_inverted, mask),
        grid,
        folder,
        connectivity=connectivity,
        identity={"background of": dict(identity)},
        num_workers=num_workers,
        progress=progress,
    )
    fill = np.ones(table.count + 1, bool) if max_voxels is None else table.sizes <= max_voxels
    return _switched(
        mask, table, fill if fill_at_border else fill & ~table.touches_border, of_background=True
    )


def _inverted(mask: Mask) -> MaskReader:
    read = mask()
    return lambda block: ~read(block)


def _switched(mask: Mask, table: ComponentTable, which: NDArray[np.bool_], *, of_background: bool) -> Mask:
    which = np.array(which)
    which[0] = False
    path = table.folder / "switch.npy"
    np.save(path, which)
    return _Changed(mask, table, path, of_background)
