"""The watershed of `incasem.segmentation._basins`, written down voxel by voxel, and maps to try it on."""

from itertools import product

import numpy as np

from incasem.volumes import create_volume

STEPS = [(-1, 0, 0), (0, -1, 0), (0, 0, -1), (1, 0, 0), (0, 1, 0), (0, 0, 1)]


def plain_watershed(nearest, low=0, high=255, inside=None):
    """Follow the rule to the letter; `nearest` (3, z, y, x) in 255 steps, edges beyond the array ignored."""
    shape = nearest.shape[1:]
    inside = np.ones(shape, bool) if inside is None else inside
    around = {}  # voxel: {neighbour: edge}, in the order of the directions
    for voxel in product(*map(range, shape)):
        around[voxel] = {}
        for direction, step in enumerate(STEPS):
            other = tuple(int(a + b) for a, b in zip(voxel, step, strict=True))
            if min(other) < 0 or any(a >= s for a, s in zip(other, shape, strict=True)):
                continue
            edge = int(nearest[(direction % 3, *(voxel if direction < 3 else other))])
            if edge > low and inside[voxel] and inside[other]:
                around[voxel][other] = min(edge, high)
    strongest = {voxel: max(edges.values(), default=0) for voxel, edges in around.items()}
    level = {v: [u for u, a in edges.items() if a == strongest[v]] for v, edges in around.items()}
    way = {}  # of exits
    for voxel, others in level.items():
        up = [u for u in others if strongest[u] > strongest[voxel]]
        if up:
            way[voxel] = max(up, key=strongest.get)
    core_of, cores = {}, []
    for voxel in around:
        if strongest[voxel] and voxel not in way and voxel not in core_of:
            cores.append([voxel])
            core_of[voxel] = len(cores) - 1
            for member in cores[-1]:
                for other in level[member]:
                    if other not in way and other not in core_of:
                        core_of[other] = len(cores) - 1
                        cores[-1].append(other)
    leave = [next((u for v in sorted(core) for u in level[v] if u in way), None) for core in cores]

    def top(voxel):
        while True:
            if voxel in way:
                voxel = way[voxel]
            elif leave[core_of[voxel]] is not None:
                voxel = leave[core_of[voxel]]
            else:
                return core_of[voxel]

    numbers, labels = {}, np.zeros(shape, np.uint64)
    for voxel in around:
        if strongest[voxel]:
            labels[voxel] = numbers.setdefault(top(voxel), len(numbers) + 1)
    return labels


def store(path, values, offset_nm=(0, 0, 0), chunk_shape=(8, 8, 8), voxel_size=(4, 4, 4), **attributes):
    volume = create_volume(
        path, shape=values.shape, dtype=values.dtype, voxel_size=voxel_size,
        offset_nm=offset_nm, chunk_shape=chunk_shape, attributes=attributes,
    )  # fmt: skip
    volume.write_voxels(volume.roi_voxels, values)
    return volume


def same_partition(a, b):
    """Whether two labellings differ in their numbers only, background (0) included."""
    pairs = np.unique(np.stack([a.ravel().astype(np.int64), b.ravel().astype(np.int64)]), axis=1)
    firsts, seconds = pairs
    paired_zero = ((firsts == 0) == (seconds == 0)).all()
    return paired_zero and len(np.unique(firsts)) == len(np.unique(seconds)) == pairs.shape[1]
