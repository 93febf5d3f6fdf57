"""One level of a pyramid from the next finer one: a window of voxels becomes one voxel.

The windows lie on the absolute grid: voxel i of the coarser level covers the voxels f·i … f·i + f − 1 of the
finer one, wherever the volume begins. At the volume's border a window holds only the voxels that exist, so
that the border is neither darkened nor lost, and the result does not depend on how the volume is cut.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from incasem.geometry import Coordinate, Roi

Method = Literal["mean", "stride", "majority"]
Factor = tuple[int, int, int]


def coarser_roi(roi_voxels: Roi, factor: Sequence[int]) -> Roi:
    """Return the region of the coarser level whose windows touch ``roi_voxels`` of the finer one."""
    begin = [b // f for b, f in zip(roi_voxels.begin, factor, strict=True)]
    end = [-(-e // f) for e, f in zip(roi_voxels.end, factor, strict=True)]
    return Roi(begin, [e - b for b, e in zip(begin, end, strict=True)])


def finer_roi(roi_voxels: Roi, factor: Sequence[int]) -> Roi:
    """Return the region of the finer level that the windows of ``roi_voxels`` cover."""
    return Roi(roi_voxels.begin * Coordinate(factor), roi_voxels.shape * Coordinate(factor))


def merge_windows(
    fine: NDArray[Any], missing: Sequence[tuple[int, int]], factor: Factor, method: Method
) -> NDArray[Any]:
    """Return one voxel for each window.

    Args:
        fine: voxels that exist, shape ([c,] z, y, x).
        missing: how many voxels the first and the last windows lack on each spatial axis.
        factor: edge of a window, z, y, x.
        method: ``mean``, rounded half up for integers; ``stride``, the window's first existing voxel;
            ``majority``, the most frequent value, of equally frequent ones the smallest that is not 0.

    Returns:
        Shape ([c,] z, y, x) and dtype of ``fine``.
    """
    if fine.ndim == 4:
        return np.stack([merge_windows(channel, missing, factor, method) for channel in fine])
    if method == "stride":
        return _first_voxels(fine, missing, factor)
    exists = np.pad(np.ones(fine.shape, bool), missing)
    fine = np.pad(fine, missing)
    if method == "mean":
        return _mean(_windows(fine, factor), _windows(exists, factor))
    return _majority(_windows(fine, factor), _windows(exists, factor))


def _first_voxels(fine: NDArray[Any], missing: Sequence[tuple[int, int]], factor: Factor) -> NDArray[Any]:
    index = []
    for size, (before, after), step in zip(fine.shape, missing, factor, strict=True):
        windows = (before + size + after) // step
        index.append(np.maximum(np.arange(windows) * step - before, 0))
    return fine[np.ix_(*index)]


def _windows(array: NDArray[Any], factor: Factor) -> NDArray[Any]:
    """Return the voxels of each window along a first axis: shape (fz·fy·fx, z, y, x)."""
    z, y, x = (size // step for size, step in zip(array.shape, factor, strict=True))
    fz, fy, fx = factor
    return array.reshape(z, fz, y, fy, x, fx).transpose(1, 3, 5, 0, 2, 4).reshape(fz * fy * fx, z, y, x)


def _mean(windows: NDArray[Any], exists: NDArray[np.bool_]) -> NDArray[Any]:
    count = exists.sum(axis=0, dtype=np.int64)
    if windows.dtype.kind == "f":
        return (windows.sum(axis=0, dtype=np.float64) / count).astype(windows.dtype)
    total = windows.sum(axis=0, dtype=np.int64)
    return ((2 * total + count) // (2 * count)).astype(windows.dtype)


def _majority(windows: NDArray[Any], exists: NDArray[np.bool_]) -> NDArray[Any]:
    order = None if exists.all() else np.argsort(windows, axis=0)
    if order is None:
        values, weights = np.sort(windows, axis=0), exists
    else:
        values, weights = (np.take_along_axis(a, order, axis=0) for a in (windows, exists))
    best = values[0].copy()
    run = weights[0].astype(np.int16)
    most = run.copy()
    for value, before, weight in zip(values[1:], values[:-1], weights[1:], strict=True):
        run = np.where(value == before, run, 0) + weight
        better = (run > most) | ((run == most) & (best == 0) & (run > 0))
        best[better] = value[better]
        most[better] = run[better]
    return best
