"""Connected components, one block at a time: what a block knows of its own pieces, and which pieces touch.

A *piece* is the part of a component inside one block, found by labelling the block alone. Pieces are
counted 1, 2, … within their block, in the order in which a scan of the block meets them.
"""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from incasem.blockwise.grid import Block, Grid
from incasem.errors import ConfigError, explain

__all__ = ["REACH", "Pieces", "label_block", "load_pieces", "pieces_of", "save", "touching_pieces"]

REACH = {4: 1, 8: 2, 6: 1, 18: 2, 26: 3}
"""How many axes two neighbouring voxels may differ in, for each connectivity."""

_IN_SECTION = (4, 8)
"""Of these, neighbours lie in one section (one z)."""

Pieces: TypeAlias = dict[str, NDArray[Any]]
"""``sizes`` (voxels), ``first`` (place of the first voxel in a scan of the whole region) and ``at_border``,
one value a piece; and the labels on the six faces of the block: ``face_00`` … ``face_21`` (axis, side)."""


def label_block(mask_ZYX: NDArray[np.bool_], connectivity: int) -> tuple[NDArray[np.int32], int]:
    """Return the pieces of one block (0 is outside), and how many there are.

    Raises:
        ConfigError: a connectivity that is none of `REACH`.
    """
    from scipy import ndimage

    if connectivity not in REACH:
        allowed = "6, 18 or 26; 4 or 8 within sections"
        raise ConfigError(explain("connectivity", connectivity, allowed, "Choose one of them"))
    neighbours = ndimage.generate_binary_structure(3, REACH[connectivity])
    if connectivity in _IN_SECTION:
        neighbours[[0, 2]] = False
    return ndimage.label(mask_ZYX, neighbours)


def pieces_of(labels_ZYX: NDArray[np.int32], count: int, block: Block, region: Grid) -> Pieces:
    """Measure the pieces of one block."""
    roi, total = block.write_roi, region.total_roi
    sizes = np.zeros(count + 1, np.int64)
    first = np.zeros(count + 1, np.int64)
    at_border = np.zeros(count + 1, bool)
    begin = [int(b - t) for b, t in zip(roi.begin, total.begin, strict=True)]
    _, height, width = (int(s) for s in total.shape)
    in_plane = np.add.outer(
        (begin[1] + np.arange(roi.shape[1], dtype=np.int64)) * width,
        begin[2] + np.arange(roi.shape[2], dtype=np.int64),
    ).ravel()
    for z in reversed(range(roi.shape[0])):
        plane = labels_ZYX[z].ravel()
        sizes += np.bincount(plane, minlength=count + 1)
        # Of several values for one index the last is kept; backwards, that is the scan's first.
        first[plane[::-1]] = (in_plane + (begin[0] + z) * height * width)[::-1]
    pieces: Pieces = {}
    for axis, side in itertools.product(range(3), range(2)):
        face = labels_ZYX.take([-1 if side else 0], axis=axis).squeeze(axis)
        pieces[f"face_{axis}{side}"] = face
        outermost = roi.end[axis] == total.end[axis] if side else roi.begin[axis] == total.begin[axis]
        if outermost:
            at_border[np.unique(face)] = True
    pieces |= {"sizes": sizes[1:], "first": first[1:], "at_border": at_border[1:]}
    return pieces


def touching_pieces(
    grid: Grid, block: Block, folder: Path, connectivity: int
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yield the later neighbours of a block, each with the pairs of touching pieces.

    Args:
        grid: the blocks.
        block: whose neighbours are looked at; only later ones, so that each pair is seen once.
        folder: where `save` stored the pieces.
        connectivity: one of `REACH`.

    Yields:
        Index of the neighbour, and pairs (piece of the block, piece of the neighbour), shape (n, 2).
    """
    reach, in_section = REACH[connectivity], connectivity in _IN_SECTION
    place = np.array(np.unravel_index(block.index, grid.shape))
    with load_pieces(folder, block.index) as own:
        for direction in itertools.product((-1, 0, 1), repeat=3):
            neighbour = place + direction
            if direction <= (0, 0, 0) or np.count_nonzero(direction) > reach:
                continue
            if in_section and direction[0]:
                continue
            if (neighbour < 0).any() or (neighbour >= grid.shape).any():
                continue
            index = int(np.ravel_multi_index(tuple(neighbour), grid.shape))
            with load_pieces(folder, index) as other:
                yield index, _pairs(own, other, direction, reach, in_section)


def _pairs(
    own: Any, other: Any, direction: tuple[int, ...], reach: int, in_section: bool
) -> NDArray[np.int64]:
    axis = next(a for a in range(3) if direction[a])
    near, far = own[f"face_{axis}1"], other[f"face_{axis}0"]
    shifts = []
    for position, across in enumerate(a for a in range(3) if a != axis):
        step = direction[across]
        shifts.append((0,) if step or (in_section and across == 0) else (-1, 0, 1))
        if step:  # the neighbour lies across an edge or a corner: of the faces, only that rim counts
            near = near.take([-1 if step > 0 else 0], axis=position)
            far = far.take([0 if step > 0 else -1], axis=position)
    found = [np.zeros((0, 2), np.int64)]
    for shift in itertools.product(*shifts):
        if np.count_nonzero(direction) + np.count_nonzero(shift) > reach:
            continue
        a = near[tuple(slice(max(0, -s), near.shape[i] - max(0, s)) for i, s in enumerate(shift))]
        b = far[tuple(slice(max(0, s), far.shape[i] - max(0, -s)) for i, s in enumerate(shift))]
        both = (a > 0) & (b > 0)
        found.append(_unique_pairs(a[both].astype(np.int64), b[both].astype(np.int64)))
    pairs = np.concatenate(found)
    return _unique_pairs(pairs[:, 0], pairs[:, 1])


def _unique_pairs(a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.int64]:
    if a.size == 0:
        return np.zeros((0, 2), np.int64)
    base = int(b.max()) + 1
    return np.stack(np.divmod(np.unique(a * base + b), base), axis=1)


def load_pieces(folder: Path, index: int) -> Any:
    """Open the stored arrays of one block; a context manager and a mapping, read when asked."""
    return np.load(folder / f"{index}.npz")


def save(path: Path, arrays: Pieces, *, durable: bool) -> None:
    """Store arrays in a file that is there whole or not at all; ``durable`` waits for the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    with temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
        file.flush()
        if durable:
            os.fsync(file.fileno())
    temporary.replace(path)
