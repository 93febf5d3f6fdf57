"""Where a proofreader has to look at a merger or a split.

Not all of the volume is read for it: of each, one block is, that in which most of both its parts lie.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from incasem.blockwise import Grid
from incasem.metrics.offenders import Offender
from incasem.volumes import Volume

Tables = Iterable[tuple[int, NDArray[np.uint64]]]


@dataclass(frozen=True)
class Place:
    """A voxel of the absolute grid, z, y, x, and whether the two largest parts touch there.

    If they do, the voxel lies in the first part, beside the second one, near the middle of their contact in
    the block that was looked at. If they do not touch in it, the voxel lies in the second part.
    """

    voxel: tuple[int, int, int]
    contact: bool


def find_places(
    mergers: Sequence[Offender], splits: Sequence[Offender], tables: Tables, segmentation: Volume,
    labels: Volume, grid: Grid,
) -> list[Place]:  # fmt: skip
    """Return the place of each merger, then of each split.

    Args:
        mergers, splits: of one segmentation.
        tables: index of a block and its contingency table (n × 3: segment, object, voxels); read once.
        segmentation, labels: to look at.
        grid: the blocks.
    """
    wanted = [(merger, 0) for merger in mergers] + [(split, 1) for split in splits]
    blocks = _best_blocks(wanted, tables)
    places: dict[int, Place] = {}
    # Block by block: one that holds several of them is read once.
    for index in sorted(set(blocks)):
        roi = grid.write_roi(index)
        arrays = segmentation.read_voxels(roi), labels.read_voxels(roi)
        for number, (offender, side) in enumerate(wanted):
            if blocks[number] != index:
                continue
            own, other = arrays[side], arrays[1 - side]
            voxel, contact = _look(own == offender.id, other, [part for part, _ in offender.parts[:2]])
            z, y, x = (int(b + v) for b, v in zip(roi.begin, voxel, strict=True))
            places[number] = Place((z, y, x), contact)
    return [places[number] for number in range(len(wanted))]


def _best_blocks(wanted: Sequence[tuple[Offender, int]], tables: Tables) -> list[int]:
    """Return the block of each in which both parts have most voxels; if none has both, the second part."""
    best = [(-1, -1, -1)] * len(wanted)
    for index, table in tables:
        for number, (offender, side) in enumerate(wanted):
            rows = table[table[:, side] == np.uint64(offender.id)]
            first, second = (
                int(rows[rows[:, 1 - side] == np.uint64(part), 2].sum()) for part, _ in offender.parts[:2]
            )
            best[number] = max(best[number], (min(first, second), second, -index))
    return [-index for _, _, index in best]


def _look(inside: NDArray[np.bool_], other: NDArray[Any], parts: Sequence[int]) -> tuple[Any, bool]:
    first, second = (inside & (other == part) for part in parts)
    touching = np.argwhere(first & ndimage.binary_dilation(second))
    if len(touching):
        middle = touching.mean(axis=0)
        return touching[int(np.argmin(((touching - middle) ** 2).sum(axis=1)))], True
    there = np.argwhere(second)
    return there[len(there) // 2], False
