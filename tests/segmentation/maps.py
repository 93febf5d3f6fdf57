"""Small affinity maps and fragments for the tests of the stages after the fragments."""

import numpy as np

from incasem.phantom.affinities import AffinityPhantom
from incasem.segmentation.affinity_map import open_affinities
from incasem.volumes import create_volume

VOXEL_SIZE = (4, 2, 2)
BEGIN = (3, -2, 5)
LONG = ((-1, 0, 0), (0, -1, 0), (0, 0, -1), (0, -3, 2), (2, 0, 0))


def store(path, array, begin=BEGIN, chunks=(4, 4, 4), **attributes):
    """Store an array at a place; return the volume."""
    volume = create_volume(
        path, shape=array.shape, dtype=array.dtype, voxel_size=VOXEL_SIZE, chunk_shape=chunks,
        offset_nm=tuple(b * v for b, v in zip(begin, VOXEL_SIZE, strict=True)), attributes=attributes,
    )  # fmt: skip
    volume.write_voxels(volume.roi_voxels, array)
    return volume


def random_blobs(shape, seed=0, cells=3, background=0.1):
    """Return ids of cubes with ragged borders, some of them background; large gaps between the ids."""
    rng = np.random.default_rng(seed)
    grid = np.indices(shape) + rng.integers(0, 2, (3, *shape))
    cell = np.ravel_multi_index(tuple(grid // cells), tuple((np.array(shape) + 1) // cells + 1))
    ids = rng.permutation(cell.max() + 1).astype(np.uint64) + np.uint64(1)
    ids[rng.random(ids.size) < background] = 0
    return ids[cell]


def random_map(channels, shape, seed=0):
    """Return affinities that are all alike likely."""
    return np.random.default_rng(seed).integers(0, 256, (channels, *shape)).astype(np.uint8)


def stored_pair(folder, shape, seed=0, offsets=LONG, **kwargs):
    """Store random affinities and fragments; return the map, the fragments, and both arrays."""
    affinities, ids = random_map(len(offsets), shape, seed), random_blobs(shape, seed, **kwargs)
    store(folder / "a.zarr/affinities", affinities, offsets=[list(o) for o in offsets])
    fragments = store(folder / "a.zarr/own_fragments", ids)
    return open_affinities(folder / "a.zarr/affinities"), fragments, affinities, ids


def phantom(shape, seed=0, spacing=12.0, noise=0.25):
    """Return affinities (3, z, y, x; those that leave the volume are 0) and neurites, ids 1, 2, …"""
    affinities, ids = AffinityPhantom(seed, spacing, noise=noise).block((0, 0, 0), shape)
    for axis in range(3):
        np.moveaxis(affinities[axis], axis, 0)[0] = 0
    return affinities, np.unique(ids, return_inverse=True)[1].reshape(shape).astype(np.uint64) + np.uint64(1)


def plain_edges(affinities, ids, offsets, near=(0, 1, 2)):
    """Return the region graph edge by edge: (u, v) → [contact, affinities]."""
    graph = {}
    for c, offset in enumerate(offsets):
        for here in np.ndindex(*ids.shape):
            there = tuple(int(i) for i in np.add(here, offset))
            if not all(0 <= t < s for t, s in zip(there, ids.shape, strict=True)):
                continue
            a, b = int(ids[here]), int(ids[there])
            if a and b and a != b:
                entry = graph.setdefault((min(a, b), max(a, b)), [0, []])
                entry[0] += c in near
                entry[1].append(int(affinities[(c, *here)]))
    return graph
