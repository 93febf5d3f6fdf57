"""Smooth random fields, evaluated exactly on any box of the grid.

A field is a cubic B-spline over a coarse lattice of random coefficients. The spline is a product of three
one-dimensional ones, so x and y are expanded while z is still coarse, and each z slice then costs four
multiplications a voxel. Values do not depend on the box that is asked for: slabs and boxes fit together.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Axes = tuple[Array, Array, Array]


class SmoothField:
    """A random scalar field, twice continuously differentiable and bounded.

    Args:
        rng: source of the coefficients.
        begin_nm, end_nm: the box (z, y, x) in which it will be evaluated.
        scale_nm: distance of the lattice points; structures are about twice as large.
        amplitude: the field lies within ±``amplitude`` (typically within half of it).
    """

    def __init__(
        self,
        rng: np.random.Generator,
        begin_nm: Sequence[float] | NDArray[np.floating],
        end_nm: Sequence[float] | NDArray[np.floating],
        scale_nm: float,
        amplitude: float = 1.0,
    ) -> None:
        self._begin = np.asarray(begin_nm, dtype=np.float64)
        self._scale = scale_nm
        extent = np.asarray(end_nm, dtype=np.float64) - self._begin
        counts = np.maximum(extent, 0) // scale_nm + 5
        coefficients = np.clip(rng.standard_normal(counts.astype(int), dtype=np.float32) * 0.75, -1, 1)
        self._coefficients = coefficients * np.float32(amplitude)

    def __call__(self, z_nm: Array, y_nm: Array, x_nm: Array) -> Array:
        """Return the field (float32, z, y, x) on the product of three coordinate vectors (nm)."""
        values = _expand(self._coefficients, 2, *self._taps(x_nm, 2))
        values = _expand(values, 1, *self._taps(y_nm, 1))
        first, weights = self._taps(z_nm, 0)
        out = np.empty((len(z_nm), *values.shape[1:]), dtype=np.float32)
        for plane, k, w in zip(out, first, weights, strict=True):
            np.multiply(values[k], w[0], out=plane)
            for tap in (1, 2, 3):
                plane += values[k + tap] * w[tap]
        return out

    def _taps(self, position_nm: Array, axis: int) -> tuple[NDArray[np.intp], Array]:
        at = (np.asarray(position_nm, dtype=np.float64) - self._begin[axis]) / self._scale
        at = np.clip(at, 0, self._coefficients.shape[axis] - 4)
        first = np.minimum(at.astype(np.intp), self._coefficients.shape[axis] - 4)
        t = at - first
        weights = np.stack(
            [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], axis=1
        )
        return first, (weights / 6).astype(np.float32)


def _expand(values: Array, axis: int, first: NDArray[np.intp], weights: Array) -> Array:
    shape = [1, 1, 1]
    shape[axis] = -1
    out = np.take(values, first, axis=axis) * weights[:, 0].reshape(shape)
    for tap in (1, 2, 3):
        out += np.take(values, first + tap, axis=axis) * weights[:, tap].reshape(shape)
    return out


def smooth_walk(rng: np.random.Generator, count: int, scale: float) -> Array:
    """Return a smooth random sequence (float32, ``count``) of unit order, varying over ``scale`` steps."""
    field = SmoothField(rng, (0, 0, 0), (max(count, 1), 0, 0), scale)
    zero = np.zeros(1, dtype=np.float32)
    return field(np.arange(count, dtype=np.float32), zero, zero)[:, 0, 0]
