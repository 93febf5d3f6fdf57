"""Surfaces of the labels in a box, which fit those of the neighbouring boxes exactly.

Marching cubes (Lewiner et al., "Efficient implementation of marching cubes' cases with topological
guarantees", 2003; scikit-image) over *cells*, cubes between the centres of 2 × 2 × 2 voxels. A cell belongs
to one box, and its triangles depend on its own corners and the voxels next to them only: surfaces of boxes
put together are the surface of the whole.

Voxels have steps. Where a surface crosses an edge of a cell is read off a slightly blurred label, while which
edges it crosses is read off the label itself: steps are smoothed, thin parts do not vanish, and no vertex
leaves its cell. Places are whole numbers, `STEPS` to a voxel, so that two boxes never differ by a rounding.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

STEPS = 256
"""Vertex positions to a voxel."""
CONTEXT = 1
"""Voxels beyond the outermost corners of cells that are looked at."""
_LEAST = 8
"""Of the blurred label, -64 (outside) to 64: a surface stays away from the centres of voxels. The crossing is
at p / q with q of at most 128, of which multiples of 1 / STEPS are never half way: rounding is the same in
all boxes."""

Surface = tuple[int, NDArray[np.int64], NDArray[np.uint32]]


def surfaces(labels_ZYX: NDArray[np.unsignedinteger]) -> Iterator[Surface]:
    """Yield the surface of each label but 0 that has triangles in a box of cells.

    Args:
        labels_ZYX: the corners of the cells with `CONTEXT` voxels around them: for n cells n + 3 voxels an
            axis.

    Yields:
        id; vertices, x, y, z, in 1 / `STEPS` voxels from the centre of the first corner, int64 (vertices, 3);
        faces, seen from outside counterclockwise, (triangles, 3). Vertices are in no particular order.
    """
    from scipy import ndimage

    ids, numbers = np.unique(labels_ZYX, return_inverse=True)
    first = int(ids[0] == 0)
    places = ndimage.find_objects(numbers.reshape(labels_ZYX.shape).astype(np.int32) + 1 - first)
    for label, place in zip(ids[first:], places, strict=True):
        made = _surface(labels_ZYX, label, place)
        if made is not None:
            yield int(label), *made


def _surface(
    labels_ZYX: NDArray[np.unsignedinteger], label: np.unsignedinteger, place: tuple[slice, ...]
) -> tuple[NDArray[np.int64], NDArray[np.uint32]] | None:
    from skimage.measure import marching_cubes

    # Corners of cells that the label may cross: one voxel more than the label on each side, within the box.
    low = [max(CONTEXT, s.start - 1) for s in place]
    high = [min(n - CONTEXT, s.stop + 1) for s, n in zip(place, labels_ZYX.shape, strict=True)]
    if any(h - b < 2 for b, h in zip(low, high, strict=True)):
        return None
    around = tuple(slice(b - CONTEXT, h + CONTEXT) for b, h in zip(low, high, strict=True))
    inside = labels_ZYX[around] == label
    field = _field(inside)
    core = inside[1:-1, 1:-1, 1:-1]
    if core.all() or not core.any():
        return None
    vertices, faces, _, _ = marching_cubes(field, 0.0)
    steps = np.rint(vertices * STEPS).astype(np.int64) + (np.array(low) - CONTEXT) * STEPS
    # Mirrored by the change from z, y, x to x, y, z, which turns the faces round; so does the order of
    # corners.
    return steps[:, ::-1], np.ascontiguousarray(faces, dtype=np.uint32)


def _field(inside: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return how far inside (above 0) or outside each voxel is; one voxel less on each side."""
    blurred = inside.astype(np.int8)
    for axis in range(3):
        n = blurred.shape[axis]
        before, middle, after = (blurred.take(range(k, n - 2 + k), axis) for k in range(3))
        blurred = before + 2 * middle + after
    signed = 2 * blurred.astype(np.int16) - 64
    core = inside[1:-1, 1:-1, 1:-1]
    return np.where(core, np.maximum(signed, _LEAST), np.minimum(signed, -_LEAST)).astype(np.float32)
