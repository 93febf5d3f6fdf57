"""Which neurite a voxel belongs to: the nearest one, and how much nearer it is than the next."""

from collections.abc import Iterator
from itertools import product

import numpy as np
from numpy.typing import NDArray

from incasem.compiled import compiled
from incasem.phantom.fields import Array, Axes
from incasem.phantom.neurites import Neurites
from incasem.phantom.tissue import Tissue, Window

_BRICKS = (64, 12)  # voxels along x; along z and y as many as are as long


def share_out(tissue: Tissue, neurites: Neurites) -> tuple[NDArray[np.uint32], Array]:
    """Give each voxel to the neurite whose surface is nearest (within: to that deepest around it).

    Segments that cannot be nearest anywhere in a brick of voxels are left out there, first for large
    bricks, then for small ones, so a voxel is compared with a dozen segments, and no boundary is approximate.

    Returns:
        ids (uint32, z, y, x; 1…), and the distance to the next neurite's surface minus that to its own
        (nm, float32, z, y, x; 0 at the boundary of two neurites).
    """
    ids = np.zeros(tissue.shape, np.uint32)
    lead = np.zeros(tissue.shape, np.float32)
    for window in tissue.slabs():
        at_nm = tissue.coordinates_nm(window)
        for large in _bricks(at_nm[0].shape, _sides(tissue, _BRICKS[0])):
            coarse = _cut(at_nm, large)
            some = _candidates(neurites, coarse)
            for small in _bricks(coarse[0].shape, _sides(tissue, _BRICKS[1])):
                brick = _cut(coarse, small)
                few = _candidates(some, brick)
                owner, ahead = _nearest(few, brick)
                ids[window][large][small] = owner
                lead[window][large][small] = ahead
    return ids, lead


def _sides(tissue: Tissue, side: int) -> tuple[int, ...]:
    return tuple(max(1, round(side * float(tissue.voxel_size[2] / v))) for v in tissue.voxel_size)


def _bricks(shape: tuple[int, ...], sides: tuple[int, ...]) -> Iterator[Window]:
    starts = [range(0, n, s) for n, s in zip(shape, sides, strict=True)]
    for z, y, x in product(*starts):
        yield slice(z, z + sides[0]), slice(y, y + sides[1]), slice(x, x + sides[2])


def _cut(at_nm: Axes, window: Window) -> Axes:
    return at_nm[0][window], at_nm[1][window], at_nm[2][window]


def _candidates(neurites: Neurites, at_nm: Axes) -> Neurites:
    """Return the segments that may be nearest or next nearest somewhere in a brick."""
    low = np.array([axis.min() for axis in at_nm], np.float64)
    high = np.array([axis.max() for axis in at_nm], np.float64)
    centre, half = (low + high) / 2, float(np.sqrt((((high - low) / 2) ** 2).sum())) + 1e-3
    axes = neurites.ends_nm - neurites.begins_nm
    offsets = centre - neurites.begins_nm
    squared = np.maximum((axes**2).sum(axis=1), 1e-9)
    along = np.clip((offsets * axes).sum(axis=1) / squared, 0, 1)
    away = np.sqrt(((offsets - along[:, None] * axes) ** 2).sum(axis=1))
    # A surface is nowhere nearer than by the thicker end, nowhere farther than by the thinner one.
    nearest = away - half - np.maximum(neurites.begin_radii_nm, neurites.end_radii_nm)
    farthest = away + half - np.minimum(neurites.begin_radii_nm, neurites.end_radii_nm)
    first = int(np.argmin(farthest))
    others = neurites.owners != neurites.owners[first]
    bound = float(farthest[others].min()) if others.any() else np.inf
    keep = nearest <= bound
    return Neurites(*(column[keep] for column in neurites))


def _nearest(neurites: Neurites, at_nm: Axes) -> tuple[NDArray[np.uint32], Array]:
    owner = np.empty(at_nm[0].shape, np.uint32)
    lead = np.empty(at_nm[0].shape, np.float32)
    z, y, x = (np.ascontiguousarray(axis).reshape(-1) for axis in at_nm)
    begins, ends = neurites.begins_nm.astype(np.float32), neurites.ends_nm.astype(np.float32)
    radii = np.stack([neurites.begin_radii_nm, neurites.end_radii_nm], axis=1).astype(np.float32)
    _compare(z, y, x, begins, ends - begins, radii, neurites.owners, owner.reshape(-1), lead.reshape(-1))
    return owner, lead


@compiled
def _compare(
    z_nm: Array, y_nm: Array, x_nm: Array, begins_nm: Array, axes_nm: Array, radii_nm: Array,
    owners: NDArray[np.int32], owner: NDArray[np.uint32], lead: Array,
) -> None:  # fmt: skip
    """Fill in the owner (1…) of each voxel and its lead (nm); segments of one owner follow each other."""
    for i in range(z_nm.size):
        first = second = np.float32(1e6)
        own, best = np.float32(1e6), np.int32(-1)
        for k in range(owners.size):
            dz, dy, dx = z_nm[i] - begins_nm[k, 0], y_nm[i] - begins_nm[k, 1], x_nm[i] - begins_nm[k, 2]
            az, ay, ax = axes_nm[k, 0], axes_nm[k, 1], axes_nm[k, 2]
            squared = az * az + ay * ay + ax * ax
            t = np.float32(0)
            if squared > 0:
                t = min(max((dz * az + dy * ay + dx * ax) / squared, np.float32(0)), np.float32(1))
            dz, dy, dx = dz - t * az, dy - t * ay, dx - t * ax
            radius = radii_nm[k, 0] + t * (radii_nm[k, 1] - radii_nm[k, 0])
            own = min(own, np.sqrt(dz * dz + dy * dy + dx * dx) - radius)
            if k + 1 == owners.size or owners[k + 1] != owners[k]:
                if own < first:
                    first, second, best = own, first, owners[k]
                elif own < second:
                    second = own
                own = np.float32(1e6)
        owner[i] = best + 1
        lead[i] = min(second - first, np.float32(1000))
