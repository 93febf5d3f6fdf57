"""Affinities from instance labels: which pairs of voxels belong to one object.

Channel c at voxel v is the edge between v and ``v + offsets[c]`` (z, y, x): 1 where both voxels carry the
same id and that id is not 0, else 0. This is the convention of waterz, mwatershed and PyTorch Connectomics.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from incasem.compiled import compiled
from incasem.errors import ConfigError, DataError, explain
from incasem.geometry import Coordinate

NEAREST = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
"""The edges to the nearest voxels before, as published."""

_UNSIGNED: dict[int, type[np.unsignedinteger[Any]]] = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


def reach(offsets: Sequence[Sequence[int]]) -> tuple[Coordinate, Coordinate]:
    """Return the voxels of labels (z, y, x) needed before and after a box so that all its edges are known.

    Border erosion needs its own steps in y and x on both sides besides.

    Raises:
        ConfigError: ``offsets`` are not edges.
    """
    vectors = _edges(offsets)
    before = [max(0, -min(vector[axis] for vector in vectors)) for axis in range(3)]
    after = [max(0, max(vector[axis] for vector in vectors)) for axis in range(3)]
    return Coordinate(before), Coordinate(after)


def affinity_targets(
    labels_ZYX: NDArray[Any],
    offsets: Sequence[Sequence[int]] = NEAREST,
    *,
    ignored_ids: Sequence[int] = (),
    mask_ZYX: NDArray[Any] | None = None,
    border_erosion: int = 0,
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return the edges of a box of labels, and which of them are known.

    Args:
        labels_ZYX: object ids of any integer type, at least 0; 0 is background.
        offsets: K edges (z, y, x, voxels), none of them zero.
        ignored_ids: ids that tell nothing: edges that begin or end in them do not count. They are looked up
            before borders are eroded, so that the eroded voxels count although 0 may be in the list.
        mask_ZYX: nonzero where labels count; None: everywhere.
        border_erosion: steps of `erode_borders`.

    Returns:
        the affinities, uint8 (K, Z, Y, X), 0 or 1, and where they are valid, bool (K, Z, Y, X): both voxels
        lie inside the box, count, and are not ignored. Affinities that are not valid are 0.

    Raises:
        DataError: labels that are no integers, or negative, or of another shape than the mask.
        ConfigError: ``offsets`` are not edges.
    """
    vectors = _edges(offsets)
    labels_ZYX = as_ids(labels_ZYX)
    counted_ZYX = _counted(labels_ZYX, ignored_ids, mask_ZYX)
    if border_erosion:
        labels_ZYX = erode_borders(labels_ZYX, border_erosion)
    affinities_KZYX = np.empty((len(vectors), *labels_ZYX.shape), np.uint8)
    valid_KZYX = np.empty(affinities_KZYX.shape, np.uint8)
    for channel, vector in enumerate(vectors):
        _compare(labels_ZYX, counted_ZYX, *vector, affinities_KZYX[channel], valid_KZYX[channel])
    return affinities_KZYX, valid_KZYX.view(np.bool_)


def erode_borders(labels_ZYX: NDArray[Any], steps: int) -> NDArray[Any]:
    """Return labels with the borders between objects made background, as published.

    A voxel becomes 0 where the window of ``2 * steps + 1`` voxels along y and x about it (3 × 3 for one
    step, within its section, cut off at the border of the box) holds two different ids other than 0. So
    objects that touch lose ``steps`` voxels each; one that has only background beside it loses none.

    Source: K. Lee's thesis, A.1.4, as in PyTorch Connectomics (`LABEL_EROSION`), which reflects the window at
    the box's border: that shows no ids other than those inside, and so does the same.

    Args:
        labels_ZYX: object ids of any integer type, at least 0.
        steps: at least 0; 0 changes nothing.

    Raises:
        DataError: labels that are no integers, or negative.
    """
    ids_ZYX = as_ids(labels_ZYX)
    if steps <= 0:
        return labels_ZYX
    eroded_ZYX = np.empty_like(ids_ZYX)
    _erode(ids_ZYX, steps, np.iinfo(ids_ZYX.dtype).max, eroded_ZYX)
    return eroded_ZYX.view(labels_ZYX.dtype.newbyteorder("="))


def _edges(offsets: Sequence[Sequence[int]]) -> list[tuple[int, int, int]]:
    vectors = [tuple(offset) for offset in offsets]
    right = all(len(v) == 3 and any(v) and all(float(step).is_integer() for step in v) for v in vectors)
    if not vectors or not right:
        raise ConfigError(
            explain(
                "task.offsets",
                [list(vector) for vector in vectors],
                "a list of [z, y, x] in whole voxels, none of them [0, 0, 0]",
                "Take for instance " + str([list(offset) for offset in NEAREST]),
            )
        )
    return [(int(z), int(y), int(x)) for z, y, x in vectors]


def as_ids(labels_ZYX: NDArray[Any]) -> NDArray[Any]:
    """Return labels as contiguous unsigned integers of the same width."""
    labels_ZYX = np.asarray(labels_ZYX)
    if labels_ZYX.dtype.kind not in "bui" or labels_ZYX.ndim != 3:
        raise DataError(
            explain(
                "labels",
                f"{labels_ZYX.dtype} of {labels_ZYX.ndim} dimensions",
                "object ids of an integer type, three-dimensional (z, y, x)",
                "Convert the dataset",
            )
        )
    if labels_ZYX.dtype.kind == "i" and labels_ZYX.size and (least := labels_ZYX.min()) < 0:
        raise DataError(
            explain(
                "an object id", least, "0 (background) and above", "Give the objects in the labels other ids"
            )
        )
    native = labels_ZYX.astype(labels_ZYX.dtype.newbyteorder("="), order="C", copy=False)
    return native.view(_UNSIGNED[native.dtype.itemsize])


def _counted(
    ids_ZYX: NDArray[Any], ignored_ids: Sequence[int], mask_ZYX: NDArray[Any] | None
) -> NDArray[np.uint8]:
    """Return 1 where labels count, (Z, Y, X); empty where all of them do."""
    limit = np.iinfo(ids_ZYX.dtype).max
    ignored = np.array(sorted({id_ for id_ in ignored_ids if 0 <= id_ <= limit}), ids_ZYX.dtype)
    if mask_ZYX is None and not ignored.size:
        return np.empty((0, 0, 0), np.uint8)
    if mask_ZYX is None:
        counted_ZYX = np.ones(ids_ZYX.shape, np.uint8)
    else:
        mask_ZYX = np.asarray(mask_ZYX)
        if mask_ZYX.shape != ids_ZYX.shape:
            raise DataError(
                explain(
                    "shape of the mask", mask_ZYX.shape, f"{ids_ZYX.shape}, as the labels", "Cut both alike"
                )
            )
        counted_ZYX = (mask_ZYX != 0).view(np.uint8)
    if ignored.size:
        _leave_out(ids_ZYX.reshape(-1), ignored, counted_ZYX.reshape(-1))
    return counted_ZYX


@compiled
def _leave_out(ids: Any, ignored: Any, counted: Any) -> None:
    """Set ``counted`` to 0 where the id is one of ``ignored`` (sorted). Ids come in runs."""
    last, known = ids.dtype.type(0), False
    is_ignored = False
    for i in range(ids.size):
        if not known or ids[i] != last:
            last, known = ids[i], True
            place = np.searchsorted(ignored, last)
            is_ignored = place < ignored.size and ignored[place] == last
        if is_ignored:
            counted[i] = 0


@compiled
def _compare(ids: Any, counted: Any, dz: int, dy: int, dx: int, affinities: Any, valid: Any) -> None:
    """Fill one channel; ``counted`` is empty where all voxels count."""
    size_z, size_y, size_x = ids.shape
    begin_x, end_x = max(0, -dx), min(size_x, size_x - dx)
    background = ids.dtype.type(0)
    for z in range(size_z):
        for y in range(size_y):
            edges, known = affinities[z, y], valid[z, y]
            other_z, other_y = z + dz, y + dy
            edges[:] = 0
            known[:] = 0
            if not (0 <= other_z < size_z and 0 <= other_y < size_y) or begin_x >= end_x:
                continue
            here = ids[z, y, begin_x:end_x]
            there = ids[other_z, other_y, begin_x + dx : end_x + dx]
            edges, known = edges[begin_x:end_x], known[begin_x:end_x]
            if counted.size == 0:
                for i in range(here.size):
                    edges[i] = np.uint8((here[i] == there[i]) & (here[i] != background))
                    known[i] = 1
            else:
                counted_here = counted[z, y, begin_x:end_x]
                counted_there = counted[other_z, other_y, begin_x + dx : end_x + dx]
                for i in range(here.size):
                    known[i] = counted_here[i] & counted_there[i]
                    edges[i] = known[i] & np.uint8((here[i] == there[i]) & (here[i] != background))


@compiled
def _erode(ids: Any, steps: int, largest: Any, eroded: Any) -> None:
    """Compare the least and the largest id of each window, background left out; first along x, then y."""
    size_z, size_y, size_x = ids.shape
    least = np.empty((size_y, size_x), ids.dtype)
    most = np.empty((size_y, size_x), ids.dtype)
    low, high = np.empty(size_x, ids.dtype), np.empty(size_x, ids.dtype)
    # numba makes floats of mixed 64-bit integers: all constants have the type of the ids.
    zero, none = ids.dtype.type(0), ids.dtype.type(largest)  # as an id, it is the largest anyway
    for z in range(size_z):
        for y in range(size_y):
            row = ids[z, y]
            for x in range(size_x):
                least[y, x] = row[x] if row[x] != zero else none
                most[y, x] = row[x]
            for step in range(1, min(steps, size_x - 1) + 1):
                for x in range(size_x - step):
                    least[y, x] = min(least[y, x], row[x + step] if row[x + step] != zero else none)
                    most[y, x] = max(most[y, x], row[x + step])
                for x in range(step, size_x):
                    least[y, x] = min(least[y, x], row[x - step] if row[x - step] != zero else none)
                    most[y, x] = max(most[y, x], row[x - step])
        for y in range(size_y):
            low[:] = least[y]
            high[:] = most[y]
            for other in range(max(0, y - steps), min(size_y, y + steps + 1)):
                for x in range(size_x):
                    low[x] = min(low[x], least[other, x])
                    high[x] = max(high[x], most[other, x])
            for x in range(size_x):
                eroded[z, y, x] = ids[z, y, x] if low[x] == high[x] else zero
