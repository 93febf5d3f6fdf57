"""The scene under construction: what every organelle is painted into.

Shapes are signed distances (nm, negative inside) of coordinates, never of pixels. The slices' drift and a
smooth warp are part of the coordinates, so the labels are exact for the drifted image without any
resampling. Organelles are painted one after the other; ``free`` keeps the distance to what is already
there, and cutting a new shape with it makes overlaps impossible.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from incasem.phantom.fields import Array, Axes, SmoothField, smooth_walk

Window = tuple[slice, slice, slice]

#: ``free`` is not known beyond this distance (nm); it only has to separate neighbours.
FAR_NM = 60.0
_WARP_NM = 45.0
_SLAB_VOXELS = 1 << 20

#: Values of ``Tissue.kind``.
NOTHING, ENVELOPE, RETICULUM = 0, 1, 2


class Tissue:
    """Stain density and labels of a box of tissue.

    Attributes:
        density_ZYX: stain, 0 = empty resin, 1 = darkest membrane (float32).
        free_ZYX: distance to the nearest painted object in nm, at most ``FAR_NM``, negative inside.
        kind_ZYX: nuclear envelope and ER (uint8).
        mito_ZYX, pore_ZYX: instance ids (uint32).
        gap_nm: distance that painted objects keep, about two voxels at least.
    """

    def __init__(
        self, shape_voxels: Sequence[int], voxel_size: Sequence[float], rng: np.random.Generator
    ) -> None:
        self.shape = tuple(shape_voxels)
        self.voxel_size = np.asarray(voxel_size, dtype=np.float64)
        self.extent_nm = self.voxel_size * self.shape
        self.gap_nm = max(12.0, 2.2 * float(self.voxel_size.max()))
        self.drift_nm = _drift(rng, self.shape[0]) * self.voxel_size[1:].astype(np.float32)
        self.slack_nm = _WARP_NM + float(np.abs(self.drift_nm).max(initial=0))
        self._warp = [SmoothField(rng, (0, 0, 0), self.extent_nm, 210.0, _WARP_NM) for _ in range(3)]
        self.density_ZYX = np.zeros(self.shape, dtype=np.float32)
        self.free_ZYX = np.full(self.shape, FAR_NM, dtype=np.float32)
        self.kind_ZYX = np.zeros(self.shape, dtype=np.uint8)
        self.mito_ZYX = np.zeros(self.shape, dtype=np.uint32)
        self.pore_ZYX = np.zeros(self.shape, dtype=np.uint32)

    @property
    def finest_nm(self) -> float:
        """Half-width (nm) below which a membrane would fall between voxels."""
        return 0.8 * float(self.voxel_size.max())

    def slabs(self) -> Iterator[Window]:
        """Cut the volume into windows of whole slices, so that temporary arrays stay small."""
        depth, height, width = self.shape
        thickness = max(1, _SLAB_VOXELS // max(1, height * width))
        for z in range(0, depth, thickness):
            yield slice(z, min(z + thickness, depth)), slice(0, height), slice(0, width)

    def window(self, begin_nm: NDArray[np.float64], end_nm: NDArray[np.float64]) -> Window | None:
        """Return the voxels that a shape within this box can reach; None if it is outside."""
        begin = np.maximum(np.floor((begin_nm - self.slack_nm) / self.voxel_size), 0).astype(int)
        end = np.minimum(np.ceil((end_nm + self.slack_nm) / self.voxel_size), self.shape).astype(int)
        if (begin >= end).any():
            return None
        z, y, x = (slice(int(b), int(e)) for b, e in zip(begin, end, strict=True))
        return z, y, x

    def axes_nm(self, window: Window) -> Axes:
        """Return the coordinate vectors (nm, voxel centres, neither drifted nor warped)."""
        z, y, x = (
            ((np.arange(w.start, w.stop) + 0.5) * v).astype(np.float32)
            for w, v in zip(window, self.voxel_size, strict=True)
        )
        return z, y, x

    def coordinates_nm(self, window: Window) -> Axes:
        """Return the tissue coordinates (nm; three float32 arrays z, y, x) that the voxels show."""
        z, y, x = self.axes_nm(window)
        warp_z, warp_y, warp_x = (field(z, y, x) for field in self._warp)
        drift = self.drift_nm[window[0]]
        warp_z += z[:, None, None]
        warp_y += y[None, :, None] + drift[:, 0, None, None]
        warp_x += x[None, None, :] + drift[:, 1, None, None]
        return warp_z, warp_y, warp_x

    def shown_at(self, places_nm: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the tissue coordinates (n × 3, nm) that places in the volume (n × 3, nm) show."""
        shown = places_nm.copy()
        for place, point in zip(places_nm, shown, strict=True):
            z, y, x = (np.array([p], dtype=np.float32) for p in place)
            point += [field(z, y, x)[0, 0, 0] for field in self._warp]
            row = int(np.clip(place[0] // self.voxel_size[0], 0, self.shape[0] - 1))
            point[1:] += self.drift_nm[row]
        return shown

    def room(self) -> tuple[Array, NDArray[np.float64]]:
        """Return the distance to the nearest object (nm) on a coarse lattice, and the lattice's spacing."""
        step = [max(1, min(round(40 / v), n // 16)) for n, v in zip(self.shape, self.voxel_size, strict=True)]
        clear = self.free_ZYX[:: step[0], :: step[1], :: step[2]] > 0
        spacing = self.voxel_size * step
        if clear.all():
            return np.full(clear.shape, float(self.extent_nm.max()), dtype=np.float32), spacing
        return ndimage.distance_transform_edt(clear, sampling=spacing).astype(np.float32), spacing


def _drift(rng: np.random.Generator, depth: int) -> Array:
    """Stage drift (voxels; depth × (y, x)): slow, with a rare jump of about a voxel."""
    slow = np.stack([smooth_walk(rng, depth, 40.0), smooth_walk(rng, depth, 40.0)], axis=1) * 3.0
    jitter = rng.standard_normal((depth, 2)) * 0.15
    jumps = (rng.random((depth, 1)) < 0.02) * rng.uniform(-1.2, 1.2, (depth, 2))
    drift = slow + jitter + np.cumsum(jumps, axis=0)
    return (drift - drift.mean(axis=0) if depth else drift).astype(np.float32)
