"""Surfaces of labels, made when a label is selected.

The label is looked for at a resolution at which the whole volume is small; its box there is then read as
finely as a mesh of bearable size allows. Labels that are thinner than the coarse voxels may be missed.
"""

import math
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse

from incasem.errors import DataError
from incasem.viewing.pyramid import Factor, Pyramid

OVERVIEW_VOXELS = 2**24
"""Of the whole volume, in which labels are looked for."""
OBJECT_VOXELS = 2**24
"""Of the box around one label, which is meshed."""
READ_LIMIT = 2**31
"""Voxels that may be read to make the overview: a terabyte needs a pyramid."""
_SLAB = 64
_SMOOTHING = 10


@dataclass(frozen=True)
class Mesh:
    """A surface.

    Attributes:
        vertices_nm: from the corner of what is shown; shape (vertices, 3), x, y, z.
        faces: vertex numbers; shape (triangles, 3).
    """

    vertices_nm: NDArray[np.float32]
    faces: NDArray[np.uint32]


class LabelMeshes:
    """The surfaces of a pyramid's labels. May be asked from several threads."""

    def __init__(self, pyramid: Pyramid) -> None:
        """Prepare; nothing is read."""
        self._pyramid = pyramid
        self._lock = threading.Lock()
        self._overview: tuple[Factor, NDArray[Any]] | None = None

    def mesh(self, label: int) -> Mesh | None:
        """Return the surface of a label, or None where there is no such label.

        Raises:
            DataError: the volume is too large to look for it; or it cannot be read.
        """
        if self._pyramid.num_channels is not None:
            raise DataError(f"{self._pyramid.path} has channels: choose one, as in [0], to get surfaces.")
        with self._lock:
            factor, overview = self._made_overview()
        box = _box(overview == label)
        if box is None:
            return None
        fine, low, high = self._refined(factor, box)
        inside = _in_slabs(self._pyramid, fine, low, high) == label
        if not inside.any():
            return None
        return _surface(inside, low, fine, self._pyramid)

    def _made_overview(self) -> tuple[Factor, NDArray[Any]]:
        if self._overview is None:
            factor = self._pyramid.finest_within(OVERVIEW_VOXELS, READ_LIMIT)
            if factor is None:
                raise DataError(
                    f"{self._pyramid.path} is too large to look for a label's surface without coarser "
                    "levels. Make them with scale_pyramid.py, or show a part, as in labels[0:500, 0:500]."
                )
            shape = self._pyramid.shape_at(factor)
            self._overview = factor, _in_slabs(self._pyramid, factor, (0, 0, 0), shape)
        return self._overview

    def _refined(self, coarse: Factor, box: tuple[slice, ...]) -> tuple[Factor, Factor, Factor]:
        """Return the finest factor at which the box is small enough, and the box at this factor."""
        candidates = sorted(
            {
                (f[0] * 2**k, f[1] * 2**k, f[2] * 2**k)
                for f in (level.factor for level in self._pyramid.levels)
                for k in range(max(1, round(math.log2(max(coarse))) + 1))
            },
            key=math.prod,
        )
        for factor in candidates:
            shape = self._pyramid.shape_at(factor)
            # One coarse voxel more on each side: sampling may have missed the label's rim.
            low = [max(0, (s.start - 1) * c // f) for s, c, f in zip(box, coarse, factor, strict=True)]
            high = [
                min(n, -(-(s.stop + 1) * c // f))
                for s, c, f, n in zip(box, coarse, factor, shape, strict=True)
            ]
            if math.prod(h - b for b, h in zip(low, high, strict=True)) <= OBJECT_VOXELS:
                return factor, (low[0], low[1], low[2]), (high[0], high[1], high[2])
        return coarse, (0, 0, 0), self._pyramid.shape_at(coarse)


def _in_slabs(pyramid: Pyramid, factor: Factor, low: Factor, high: Factor) -> NDArray[Any]:
    """Return a box, read in slabs so that the voxels of finer levels do not all lie in memory at once."""
    result = np.empty([e - b for b, e in zip(low, high, strict=True)], pyramid.dtype)
    step = max(1, _SLAB // factor[0])
    for z in range(low[0], high[0], step):
        end = min(z + step, high[0])
        result[z - low[0] : end - low[0]] = pyramid.read(
            factor, (z, *low[1:]), (end, *high[1:]), average=False
        )
    return result


def _box(inside: NDArray[np.bool_]) -> tuple[slice, ...] | None:
    found = ndimage.find_objects(inside.view(np.int8), max_label=1)
    return found[0] if found else None


def _surface(inside: NDArray[np.bool_], low: Factor, factor: Factor, pyramid: Pyramid) -> Mesh:
    from skimage.measure import marching_cubes

    # A rim of nothing closes the surface where the label meets the volume's end. The surface goes half way
    # between the centres of voxels inside and outside, that is along the voxels' faces.
    vertices, faces, _, _ = marching_cubes(np.pad(inside, 1).astype(np.float32), 0.5)
    steps_nm = np.array(pyramid.voxel_size) * factor
    vertices_nm = (_smoothed(vertices, faces) - 1 + 0.5 + np.array(low)) * steps_nm
    return Mesh(
        np.ascontiguousarray(vertices_nm[:, ::-1], dtype=np.float32),
        np.ascontiguousarray(faces, dtype=np.uint32),
    )


def _smoothed(vertices: NDArray[Any], faces: NDArray[Any]) -> NDArray[Any]:
    """Return the vertices with the steps of voxels smoothed away, and the volume kept.

    Taubin, "A signal processing approach to fair surface design", SIGGRAPH 1995: moves towards the mean
    of the neighbours and back in turns.
    """
    pairs = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    pairs = np.concatenate([pairs, pairs[:, ::-1]])
    ones = np.ones(len(pairs), np.float32)
    neighbours = sparse.csr_matrix((ones, (pairs[:, 0], pairs[:, 1])), shape=(len(vertices),) * 2)
    counts = np.maximum(np.asarray(neighbours.sum(axis=1)), 1)
    for _ in range(_SMOOTHING):
        for step in (0.5, -0.53):
            vertices = vertices + step * (neighbours @ vertices / counts - vertices)
    return vertices


def encode_mesh(mesh: Mesh, unit_nm: float) -> bytes:
    """Return a mesh in neuroglancer's single-resolution format, little-endian, in units of ``unit_nm``."""
    vertices = (mesh.vertices_nm.astype(np.float64) / unit_nm).astype("<f4")
    return b"".join(
        (np.uint32(len(vertices)).tobytes(), vertices.tobytes(), mesh.faces.astype("<u4").tobytes())
    )
