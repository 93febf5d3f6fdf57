"""Labels to export, and readers of precomputed volumes: others', or made from the format's description."""

import json
import math

import DracoPy
import numpy as np
import tensorstore

from incasem.volumes import create_volume

VOXEL = (30, 6, 6)
OFFSET = (-3, 5, 10)
"""Voxels."""
FAR = 2**40


def neurites(shape, seed=0, far=FAR):
    """Labels that touch each other everywhere, with background between some of them."""
    from scipy import ndimage

    rng = np.random.default_rng(seed)
    fields = [ndimage.gaussian_filter(rng.random(shape), 4) for _ in range(5)]
    labels = np.argmax(fields, axis=0).astype(np.uint64)
    labels[labels > 0] += far
    return labels


def store(folder, array, voxel_size=VOXEL, offset=OFFSET, name="labels"):
    volume = create_volume(
        folder / "cell.zarr" / name, shape=array.shape, dtype=array.dtype, voxel_size=voxel_size,
        offset_nm=[o * v for o, v in zip(offset, voxel_size, strict=True)], chunk_shape=(16, 16, 16),
    )  # fmt: skip
    volume.write_voxels(volume.roi_voxels, array)
    return volume


def read(root, index):
    spec = {"driver": "neuroglancer_precomputed", "kvstore": f"file://{root}/", "scale_index": index}
    array = tensorstore.open(spec).result()
    return array.read().result()[..., 0].transpose(2, 1, 0), array


class Meshes:
    """An own reader of sharded multi-resolution meshes."""

    def __init__(self, folder):
        self.folder = folder
        self.info = json.loads((folder / "info").read_text())
        assert self.info["@type"] == "neuroglancer_multilod_draco"

    def stored(self, label):
        """The shard's bytes, and where the manifest lies; None where there is none."""
        spec = self.info["sharding"]
        minishard = label & ((1 << spec["minishard_bits"]) - 1)
        shard = (label >> spec["minishard_bits"]) & ((1 << spec["shard_bits"]) - 1)
        digits = math.ceil(spec["shard_bits"] / 4)
        file = self.folder / f"{format(shard, 'x').zfill(digits)}.shard"
        if not file.exists():
            return None
        content = file.read_bytes()
        header = 16 << spec["minishard_bits"]
        begin, end = np.frombuffer(content, "<u8", 2, 16 * minishard).tolist()
        table = np.frombuffer(content[header + begin : header + end], "<u8").reshape(3, -1)
        key, position = 0, header
        for step, gap, size in table.T.tolist():
            key, position = key + step, position + gap
            if key == label:
                return content, position, size
            position += size
        return None

    def levels(self, label):
        """For each level of detail: scale (nm), and a list of nodes with vertices (nm, x, y, z) and faces."""
        content, at, size = self.stored(label)
        manifest = content[at : at + size]
        chunk, origin = np.frombuffer(manifest, "<f4", 6).reshape(2, 3).astype(float)
        (lods,) = np.frombuffer(manifest, "<u4", 1, 24)
        place = 28
        detail = np.frombuffer(manifest, "<f4", lods, place)
        place += 4 * lods
        offsets = np.frombuffer(manifest, "<f4", 3 * lods, place).reshape(-1, 3).astype(float)
        place += 12 * lods
        counts = np.frombuffer(manifest, "<u4", lods, place)
        place += 4 * lods
        tables = []
        for count in counts:
            positions = np.frombuffer(manifest, "<u4", 3 * count, place).reshape(3, -1).T
            place += 12 * count
            tables.append((positions, np.frombuffer(manifest, "<u4", count, place).tolist()))
            place += 4 * count
        assert place == size
        data = at - sum(sum(sizes) for _, sizes in tables)
        result = []
        for lod, (positions, sizes) in enumerate(tables):
            nodes = []
            for position, length in zip(positions, sizes, strict=True):
                if length:
                    mesh = DracoPy.decode(content[data : data + length])
                    data += length
                    steps = np.rint(mesh.points).astype(int)
                    assert (steps == mesh.points).all()
                    assert steps.min() >= 0
                    assert steps.max() < 2**16
                    xyz = origin + offsets[lod] + chunk * 2**lod * (position + steps / (2**16 - 1))
                    nodes.append((tuple(position.tolist()), steps, xyz, mesh.faces))
                else:
                    nodes.append((tuple(position.tolist()), None, None, None))
            result.append((float(detail[lod]), nodes))
        return result


def joined(nodes):
    """Vertices (nm) and faces of a level, equal vertices being one: to a hundredth of a voxel."""
    points = np.concatenate([xyz for _, _, xyz, _ in nodes if xyz is not None])
    counts = np.cumsum([0, *(len(xyz) for _, _, xyz, _ in nodes if xyz is not None)])
    faces = np.concatenate(
        [f + c for (_, _, _, f), c in zip([n for n in nodes if n[2] is not None], counts, strict=False)]
    )
    _, first, inverse = np.unique(
        np.rint(points / np.array(VOXEL[::-1]) * 200), axis=0, return_index=True, return_inverse=True
    )
    return points[first], inverse.reshape(-1)[faces]


def volume_of(points, faces):
    a, b, c = (points[faces[:, k]] for k in range(3))
    return np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6


def is_closed(faces):
    """Each edge belongs to as many triangles one way as the other."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).astype(np.int64)
    size = faces.max() + 1
    there, count = np.unique(edges[:, 0] * size + edges[:, 1], return_counts=True)
    back, count_back = np.unique(edges[:, 1] * size + edges[:, 0], return_counts=True)
    return np.array_equal(there, back) and np.array_equal(count, count_back)
