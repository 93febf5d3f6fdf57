"""F1 of the boundaries of a partition: does the segmentation draw its borders where the truth has them?

A boundary voxel is one with a face neighbour of another id. It is right where the other partition has a
boundary voxel within a tolerance. Counts add up over blocks, which need context (`reach`) around them.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from incasem.compiled import compiled

Array = NDArray[Any]
Offsets = NDArray[np.int64]


@dataclass(frozen=True)
class BoundaryScores:
    """Agreement of boundaries.

    ``precision`` is the share of the segmentation's boundary voxels near one of the truth, ``recall`` the
    other way round, ``f1`` their harmonic mean. Where a partition has no boundary at all its share is 1.
    """

    precision: float
    recall: float
    f1: float


def ball_offsets(tolerance_nm: float, voxel_size: Sequence[float]) -> Offsets:
    """Return the voxels (n × 3: z, y, x) within a distance of (0, 0, 0), nearest first."""
    # A hair more, so that a tolerance of three voxels of 0.1 nm takes in the third.
    radius = tolerance_nm * (1 + 1e-9)
    spans = [range(-math.floor(radius / v), math.floor(radius / v) + 1) for v in voxel_size]
    found = sorted(
        (sum((o * v) ** 2 for o, v in zip(offset, voxel_size, strict=True)), offset)
        for offset in itertools.product(*spans)
    )
    return np.array([offset for square, offset in found if square <= radius**2], np.int64)


def reach(offsets: Offsets) -> tuple[int, int, int]:
    """Return the context (voxels a side) that `count_boundaries` needs around a block."""
    z, y, x = (int(n) + 1 for n in np.abs(offsets).max(axis=0))
    return z, y, x


def boundaries(ids_ZYX: Array) -> NDArray[np.bool_]:
    """Return the voxels with a face neighbour of another id within the array (three axes, or fewer)."""
    found = np.zeros(ids_ZYX.shape, np.bool_)
    _mark_boundaries(np.atleast_3d(ids_ZYX), np.atleast_3d(found))
    return found


def count_boundaries(
    segmentation: NDArray[np.bool_], truth: NDArray[np.bool_], counted: NDArray[np.bool_], offsets: Offsets
) -> NDArray[np.int64]:
    """Count the boundary voxels of a block.

    Args:
        segmentation: its `boundaries` in the block and `reach` of context around it.
        truth: the same of the truth.
        counted: voxels of the block itself that count.
        offsets: of the tolerance, from `ball_offsets`.

    Returns:
        Four numbers: of the segmentation's boundary voxels all and right ones, of the truth's the same.
    """
    context = np.array(reach(offsets), np.int64)
    return np.array(
        [
            *_count_near(segmentation, truth, counted, offsets, context),
            *_count_near(truth, segmentation, counted, offsets, context),
        ],
        np.int64,
    )


def boundary_scores(counts: Sequence[int] | NDArray[np.int64]) -> BoundaryScores:
    """Return the scores of added up counts of `count_boundaries`."""
    found, right, true, met = (int(n) for n in counts)
    precision = right / found if found else 1.0
    recall = met / true if true else 1.0
    total = precision + recall
    return BoundaryScores(precision, recall, 2 * precision * recall / total if total else 0.0)


@compiled
def _mark_boundaries(ids_ZYX: Array, found: NDArray[np.bool_]) -> None:
    depth, height, width = ids_ZYX.shape
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                here = ids_ZYX[z, y, x]
                if x + 1 < width and ids_ZYX[z, y, x + 1] != here:
                    found[z, y, x] = found[z, y, x + 1] = True
                if y + 1 < height and ids_ZYX[z, y + 1, x] != here:
                    found[z, y, x] = found[z, y + 1, x] = True
                if z + 1 < depth and ids_ZYX[z + 1, y, x] != here:
                    found[z, y, x] = found[z + 1, y, x] = True


@compiled
def _count_near(
    own: NDArray[np.bool_], other: NDArray[np.bool_], counted: NDArray[np.bool_], offsets: Offsets,
    context: Offsets,
) -> tuple[int, int]:  # fmt: skip
    """Return how many counted voxels of ``own`` there are, and how many have one of ``other`` near."""
    found = right = 0
    depth, height, width = counted.shape
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                k, j, i = z + context[0], y + context[1], x + context[2]
                if not own[k, j, i] or not counted[z, y, x]:
                    continue
                found += 1
                for n in range(offsets.shape[0]):
                    if other[k + offsets[n, 0], j + offsets[n, 1], i + offsets[n, 2]]:
                        right += 1
                        break
    return found, right
