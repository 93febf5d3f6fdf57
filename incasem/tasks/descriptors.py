"""Local shape descriptors: what an object looks like about each of its voxels.

For a voxel v of an object, with Gaussian weights about v (standard deviation sigma, cut off at 3 sigma) on
the object's voxels alone, there are ten numbers from 0 to 1; all are 0 in the background:

- 0, 1, 2: offset (z, y, x) of the object's weighted mean from v, ``offset / sigma / 2 + 1/2``;
- 3, 4, 5: its weighted variance along z, y, x, ``variance / sigma²``;
- 6, 7, 8: correlation of zy, zx, yx, ``r / 2 + 1/2``;
- 9: size, the share of the weight that falls on the object.

Source: Sheridan et al., "Local shape descriptors for neuron segmentation", Nature Methods 20, 2023. Learnt
beside affinities, they make these better.

Each object is done by itself, within its bounding box, in separable passes: the moments of order 0, 1 and 2
about v along z, then those along y, then those along x, which gives the ten moments of up to order 2 (1
weight, 3 means, 6 products). Counting from v keeps float32 exact enough, wherever the object lies. Rows of
voxels without the object are left out.

With ``downsample`` f the moments are those of cells of f voxels, each with its share of the object. A voxel
takes those about the middle of its cell; offset and size are carried on from there to the voxel, to first
order: moved by d, Gaussian weights move the mean by ``covariance * d / sigma²`` and change the weight by
``mean * d / sigma²`` of itself.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from incasem.compiled import compiled
from incasem.errors import ConfigError, explain
from incasem.geometry import Coordinate
from incasem.tasks.affinity_targets import as_ids

NUM_DESCRIPTORS = 10
REACH_SIGMAS = 3.0
"""Beyond it a voxel does not count."""

_LEAST_VARIANCE = 1e-3
"""Voxels². Where the object does not extend along an axis, nothing correlates with it."""
_CELLS_PER_SIGMA = 4.0


def context_voxels(sigma_voxels: Sequence[float]) -> Coordinate:
    """Return the voxels (z, y, x) of labels on each side of a box that its descriptors depend on."""
    return Coordinate(int(np.ceil(REACH_SIGMAS * sigma)) for sigma in sigma_voxels)


def default_downsample(sigma_voxels: Sequence[float]) -> Coordinate:
    """Return how many voxels of each axis may be a cell: at least 4 cells a sigma are left."""
    return Coordinate(max(1, int(sigma / _CELLS_PER_SIGMA)) for sigma in sigma_voxels)


def local_shape_descriptors(
    labels_ZYX: NDArray[Any],
    sigma_voxels: Sequence[float],
    downsample: Sequence[int] | None = None,
    *,
    context: Sequence[int] = (0, 0, 0),
) -> NDArray[np.float32]:
    """Return the descriptors of a box, float32 (10, Z, Y, X) in [0, 1]; see the module's description.

    Beyond the labels nothing is known of the objects: descriptors are those of the whole volume only
    `context_voxels` away from their border. Memory besides the result: some 6 bytes a voxel of labels, and 4
    a cell of the largest object's bounding box.

    Args:
        labels_ZYX: object ids of any integer type, at least 0; 0 is background.
        sigma_voxels: standard deviation along z, y, x.
        downsample: voxels (z, y, x) of a cell, counted from the first voxel of the labels; None:
            `default_downsample`; (1, 1, 1) is exact.
        context: voxels (z, y, x) of labels on each side that are looked at, but not described.

    Raises:
        DataError: labels that are no integers, or negative.
        ConfigError: sigma or downsample is not above 0.
    """
    cell = tuple(default_downsample(sigma_voxels) if downsample is None else downsample)
    if len(tuple(sigma_voxels)) != 3 or len(cell) != 3 or min(*sigma_voxels, *cell) <= 0:
        raise ConfigError(
            explain(
                "task.descriptor_sigma_nm",
                f"{list(sigma_voxels)} voxels in cells of {list(cell)}",
                "three numbers above 0 (z, y, x)",
                "Correct it",
            )
        )
    index_ZYX, count = _consecutive(as_ids(labels_ZYX))
    inner = [max(0, size - 2 * c) for size, c in zip(index_ZYX.shape, context, strict=True)]
    descriptors = np.zeros((NUM_DESCRIPTORS, *inner), np.float32)
    if count and descriptors.size:
        sigma = np.array(sigma_voxels, np.float64) / cell
        weights = [_weights(axis_sigma) for axis_sigma in sigma]
        boxes = np.empty((count, 2, 3), np.int64)
        _bounding_boxes(index_ZYX, boxes)
        begin, end = np.array(context), np.array(context) + inner
        arguments: list[Any] = [index_ZYX, boxes, np.array(cell), begin, end, *weights, sigma, descriptors]
        _describe(*arguments)
    return descriptors


def _consecutive(ids_ZYX: NDArray[Any]) -> tuple[NDArray[np.int32], int]:
    """Return ids 0 … n with 0 the background, and n. Ids come in runs, which are few."""
    flat = ids_ZYX.reshape(-1)
    if not flat.size:
        return np.zeros(ids_ZYX.shape, np.int32), 0
    begins = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    unique, of_run = np.unique(flat[begins], return_inverse=True)
    numbers = np.arange(unique.size) + (0 if unique[0] == 0 else 1)
    runs = np.diff(np.append(begins, flat.size))
    index = np.repeat(numbers[of_run].astype(np.int32), runs)
    return index.reshape(ids_ZYX.shape), int(numbers[-1])


def _weights(sigma_cells: float) -> NDArray[np.float32]:
    """Return the weights of the moments 0, 1 and 2 at distances -r … r, (3, 2 r + 1)."""
    radius = int(np.ceil(REACH_SIGMAS * sigma_cells))
    distance = np.arange(-radius, radius + 1)
    gauss = np.exp(-0.5 * (distance / sigma_cells) ** 2)
    gauss[np.abs(distance) > REACH_SIGMAS * sigma_cells] = 0
    gauss /= gauss.sum()
    return np.stack([gauss, gauss * distance, gauss * distance**2]).astype(np.float32)


@compiled
def _bounding_boxes(index: Any, boxes: Any) -> None:
    """Fill (n, begin and end, zyx) of the objects 1 … n."""
    boxes[:, 0] = index.size
    boxes[:, 1] = 0
    for z in range(index.shape[0]):
        for y in range(index.shape[1]):
            for x in range(index.shape[2]):
                which = index[z, y, x] - 1
                if which < 0:
                    continue
                place = (z, y, x)
                for axis in range(3):
                    boxes[which, 0, axis] = min(boxes[which, 0, axis], place[axis])
                    boxes[which, 1, axis] = max(boxes[which, 1, axis], place[axis] + 1)


@compiled
def _describe(
    index: Any, boxes: Any, cell: Any, begin: Any, end: Any, weights_z: Any, weights_y: Any, weights_x: Any,
    sigma: Any, output: Any,
) -> None:  # fmt: skip
    """Fill ``output`` (10, Z, Y, X), which are the voxels ``begin`` … ``end``, object by object.

    ``sigma`` is in cells; cells of an object are counted from the first one of its bounding box.
    """
    for which in range(boxes.shape[0]):
        box = boxes[which]
        # What is written of the object; its cells are those of ``corner`` and after.
        low, high = np.maximum(box[0], begin), np.minimum(box[1], end)
        if (low >= high).any():
            continue
        corner = box[0] // cell
        size = (box[1] - 1) // cell + 1 - corner
        share = np.zeros((size[0], size[1], size[2]), np.float32)
        _shares(index, which + 1, box, cell, corner, share)
        first, last = _rows(share)
        moments_z = np.zeros((3, size[1], size[2]), np.float32)
        moments_y = np.zeros((6, size[2]), np.float32)
        moments = np.zeros((13, size[2]), np.float32)
        for z in range(low[0] // cell[0] - corner[0], (high[0] - 1) // cell[0] + 1 - corner[0]):
            _moments_z(share, first, last, z, weights_z, moments_z)
            for y in range(low[1] // cell[1] - corner[1], (high[1] - 1) // cell[1] + 1 - corner[1]):
                left = max(first[z, y], low[2] // cell[2] - corner[2])
                right = min(last[z, y], (high[2] - 1) // cell[2] + 1 - corner[2])
                if left < right:
                    _moments_y(moments_z, y, weights_y, moments_y)
                    _moments_x(moments_y, left, right, weights_x, moments)
                    _finish(moments, left, right, cell, sigma)
                    at = (corner[0] + z, corner[1] + y, corner[2])
                    _write(index, which + 1, low, high, cell, at, sigma, moments, begin, output)


@compiled
def _shares(index: Any, own: int, box: Any, cell: Any, begin: Any, share: Any) -> None:
    """Fill the share of each cell that is of the object."""
    one = np.float32(1.0 / (cell[0] * cell[1] * cell[2]))
    for z in range(box[0, 0], box[1, 0]):
        for y in range(box[0, 1], box[1, 1]):
            row = share[z // cell[0] - begin[0], y // cell[1] - begin[1]]
            if cell[2] == 1:
                for x in range(box[0, 2], box[1, 2]):
                    row[x - begin[2]] += one * np.float32(index[z, y, x] == own)
            else:
                for x in range(box[0, 2], box[1, 2]):
                    if index[z, y, x] == own:
                        row[x // cell[2] - begin[2]] += one


@compiled
def _rows(share: Any) -> Any:
    """Return for each row (z, y) where the object begins and ends along x; 0, 0 where it is not."""
    first = np.zeros(share.shape[:2], np.int64)
    last = np.zeros(share.shape[:2], np.int64)
    for z in range(share.shape[0]):
        for y in range(share.shape[1]):
            for x in range(share.shape[2]):
                if share[z, y, x] > 0:
                    if last[z, y] == 0:
                        first[z, y] = x
                    last[z, y] = x + 1
    return first, last


@compiled
def _moments_z(share: Any, first: Any, last: Any, z: int, weights: Any, moments: Any) -> None:
    """Fill the moments 0, 1 and 2 along z about the section ``z``, (3, Y, X)."""
    radius = weights.shape[1] // 2
    moments[:] = 0
    for other in range(max(0, z - radius), min(share.shape[0], z + radius + 1)):
        w0, w1, w2 = weights[:, other - z + radius]
        for y in range(share.shape[1]):
            begin, end = first[other, y], last[other, y]
            row = share[other, y, begin:end]
            m0, m1, m2 = moments[0, y, begin:end], moments[1, y, begin:end], moments[2, y, begin:end]
            for x in range(row.size):
                m0[x] += w0 * row[x]
                m1[x] += w1 * row[x]
                m2[x] += w2 * row[x]


@compiled
def _moments_y(along_z: Any, y: int, weights: Any, moments: Any) -> None:
    """Fill the moments of a row by orders along z and y: 00, 10, 20, 01, 11, 02; (6, X)."""
    radius = weights.shape[1] // 2
    moments[:] = 0
    for other in range(max(0, y - radius), min(along_z.shape[1], y + radius + 1)):
        w0, w1, w2 = weights[:, other - y + radius]
        a0, a1, a2 = along_z[0, other], along_z[1, other], along_z[2, other]
        for x in range(a0.size):
            moments[0, x] += w0 * a0[x]
            moments[1, x] += w0 * a1[x]
            moments[2, x] += w0 * a2[x]
            moments[3, x] += w1 * a0[x]
            moments[4, x] += w1 * a1[x]
            moments[5, x] += w2 * a0[x]


@compiled
def _moments_x(row: Any, begin: int, end: int, weights: Any, moments: Any) -> None:
    """Fill the cells ``begin`` … ``end`` of a row: weight; z, y, x; zz, yy, xx; zy, zx, yx."""
    size = row.shape[1]
    radius = weights.shape[1] // 2
    moments[:, begin:end] = 0
    for step in range(-radius, radius + 1):
        low, high = max(begin, -step), min(end, size - step)
        if low >= high:
            continue
        w0, w1, w2 = weights[:, step + radius]
        near, sums = row[:, low + step : high + step], moments[:, low:high]
        for x in range(high - low):
            sums[0, x] += w0 * near[0, x]
            sums[1, x] += w0 * near[1, x]
            sums[2, x] += w0 * near[3, x]
            sums[3, x] += w1 * near[0, x]
            sums[4, x] += w0 * near[2, x]
            sums[5, x] += w0 * near[5, x]
            sums[6, x] += w2 * near[0, x]
            sums[7, x] += w0 * near[4, x]
            sums[8, x] += w1 * near[1, x]
            sums[9, x] += w1 * near[3, x]


@compiled
def _finish(moments: Any, begin: int, end: int, cell: Any, sigma: Any) -> None:
    """Turn sums in cells into means and covariances in units of sigma, and append the correlations."""
    z, y, x = np.float32(1 / sigma[0]), np.float32(1 / sigma[1]), np.float32(1 / sigma[2])
    least = (_LEAST_VARIANCE / (cell * sigma) ** 2).astype(np.float32)
    scales = np.array([z, y, x, z * z, y * y, x * x, z * y, z * x, y * x], np.float32)
    for i in range(begin, end):
        weight = moments[0, i]
        if weight <= 0:
            continue
        m = moments[1:, i]
        for order in range(9):
            m[order] *= scales[order] / weight
        m[3] -= m[0] * m[0]
        m[4] -= m[1] * m[1]
        m[5] -= m[2] * m[2]
        m[6] -= m[0] * m[1]
        m[7] -= m[0] * m[2]
        m[8] -= m[1] * m[2]
        var_z, var_y, var_x = max(m[3], least[0]), max(m[4], least[1]), max(m[5], least[2])
        m[9] = m[6] / np.sqrt(var_z * var_y)
        m[10] = m[7] / np.sqrt(var_z * var_x)
        m[11] = m[8] / np.sqrt(var_y * var_x)


@compiled
def _write(
    index: Any, own: int, low: Any, high: Any, cell: Any, at: Any, sigma: Any, moments: Any, begin: Any,
    output: Any,
) -> None:  # fmt: skip
    """Write the descriptors of the object's voxels in the row of cells ``at``, inside ``low`` … ``high``."""
    half, one = np.float32(0.5), np.float32(1)
    for z in range(max(low[0], at[0] * cell[0]), min(high[0], (at[0] + 1) * cell[0])):
        # From the voxel to the middle of its cell, in units of sigma.
        rest_z = np.float32((at[0] + 0.5 - (z + 0.5) / cell[0]) / sigma[0])
        for y in range(max(low[1], at[1] * cell[1]), min(high[1], (at[1] + 1) * cell[1])):
            rest_y = np.float32((at[1] + 0.5 - (y + 0.5) / cell[1]) / sigma[1])
            ids, described = index[z, y], output[:, z - begin[0], y - begin[1]]
            for x in range(low[2], high[2]):
                if ids[x] != own:
                    continue
                column = x // cell[2]
                rest_x = np.float32((column + 0.5 - (x + 0.5) / cell[2]) / sigma[2])
                m = moments[:, column - at[2]]
                to = x - begin[2]
                off_z = m[1] + rest_z - (m[4] * rest_z + m[7] * rest_y + m[8] * rest_x)
                off_y = m[2] + rest_y - (m[7] * rest_z + m[5] * rest_y + m[9] * rest_x)
                off_x = m[3] + rest_x - (m[8] * rest_z + m[9] * rest_y + m[6] * rest_x)
                size = m[0] * (one - m[1] * rest_z - m[2] * rest_y - m[3] * rest_x)
                described[0, to] = _clipped(off_z * half + half)
                described[1, to] = _clipped(off_y * half + half)
                described[2, to] = _clipped(off_x * half + half)
                described[3, to] = _clipped(m[4])
                described[4, to] = _clipped(m[5])
                described[5, to] = _clipped(m[6])
                described[6, to] = _clipped(m[10] * half + half)
                described[7, to] = _clipped(m[11] * half + half)
                described[8, to] = _clipped(m[12] * half + half)
                described[9, to] = _clipped(size)


@compiled
def _clipped(value: Any) -> Any:
    return min(max(value, np.float32(0)), np.float32(1))
