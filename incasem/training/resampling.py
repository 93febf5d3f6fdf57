"""One pass over a sample: each voxel is looked up once in the source, raw linearly, labels the nearest voxel.

The position in the source of the output voxel (z, y, x) is, for each source axis,

    p = from_z[z] + from_y[y] + from_x[x] + displacement(z, y, x)

The three tables hold what is exact and may jump: flips, transposes, shifts of sections. The displacement is
smooth, stored at every ``step``-th voxel of z and y and interpolated on the fly. All arrays of a sample go
through the same arithmetic, so a label stays on its raw voxel, to the last bit.

Raw data are done in bricks, so that the source stays in the cache whatever the orientation.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from incasem.compiled import compiled
from incasem.geometry import Coordinate

BRICK = 64  # voxels; edge of the part of the output that is done at a time


class PositionField(NamedTuple):
    """Where each voxel of an output region comes from; see the module's description.

    Args:
        tables: three float32 arrays (3, n) for z, y, x: what an index adds to the source position (z, y, x).
        displacement: float32 (3, nodes_z, nodes_y, X), source voxels; along z and y at every ``step``-th
            voxel from voxel 0 on, along x at every voxel, which lets the processor do many at once.
        step: distance of the displacement's nodes (voxels).
    """

    tables: tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]
    displacement: NDArray[np.float32]
    step: int


def resample_linear(
    source_ZYX: NDArray[Any], field: PositionField, origin: Coordinate, begin: Coordinate, shape: Coordinate
) -> NDArray[np.float32]:
    """Return the source's values at the positions of an output region, trilinearly interpolated.

    Args:
        source_ZYX: values of any real type.
        field: positions in some frame, none of them negative.
        origin: the source's first voxel in that frame.
        begin: first voxel of the output region in the field.
        shape: of the output region.

    The caller guarantees that every position lies inside the source with one voxel to spare.
    """
    output_ZYX = np.empty(tuple(shape), np.float32)
    places = (*field.tables, field.displacement, field.step, *origin, *begin)
    arguments: list[Any] = [np.ascontiguousarray(source_ZYX), *places, output_ZYX]
    _linear(*arguments)
    return output_ZYX


def nearest_voxels(
    source_shape: Sequence[int],
    field: PositionField,
    origin: Coordinate,
    begin: Coordinate,
    shape: Coordinate,
) -> NDArray[np.intp]:
    """Return the index into the flattened source of the voxel nearest to each position of an output region.

    Arguments as `resample_linear`. The indices serve every array of the same place: ``source.take(indices)``.
    """
    indices_ZYX = np.empty(tuple(shape), np.intp)
    places = (*field.tables, field.displacement, field.step, *origin, *begin)
    arguments: list[Any] = [*source_shape[1:], *places, indices_ZYX]
    _nearest(*arguments)
    return indices_ZYX


@compiled
def _row_positions(
    from_z: Any, from_y: Any, from_x: Any, displacement: Any, step: int, z: int, y: int, begin_x: int,
    row: Any,
) -> None:  # fmt: skip
    """Fill ``row`` (3, n) with the positions of the n voxels (z, y, begin_x…) of the field."""
    inverse = np.float32(1.0) / np.float32(step)
    node_z, node_y = z // step, y // step
    weight_z = np.float32(z - node_z * step) * inverse
    weight_y = np.float32(y - node_y * step) * inverse
    # The last node has no neighbour; its weight is 0, so it may stand for it.
    next_z = min(node_z + 1, displacement.shape[1] - 1)
    next_y = min(node_y + 1, displacement.shape[2] - 1)
    count = row.shape[1]
    end_x = begin_x + count
    for axis in range(3):
        base = from_z[axis, z] + from_y[axis, y]
        along_x = from_x[axis, begin_x:end_x]
        near_near = displacement[axis, node_z, node_y, begin_x:end_x]
        near_far = displacement[axis, node_z, next_y, begin_x:end_x]
        far_near = displacement[axis, next_z, node_y, begin_x:end_x]
        far_far = displacement[axis, next_z, next_y, begin_x:end_x]
        for i in range(count):
            near = near_near[i] + weight_y * (near_far[i] - near_near[i])
            far = far_near[i] + weight_y * (far_far[i] - far_near[i])
            row[axis, i] = base + along_x[i] + (near + weight_z * (far - near))


@compiled
def _linear(
    source: Any, from_z: Any, from_y: Any, from_x: Any, displacement: Any, step: int,
    origin_z: int, origin_y: int, origin_x: int, begin_z: int, begin_y: int, begin_x: int, output: Any,
) -> None:  # fmt: skip
    shape_z, shape_y, shape_x = output.shape
    flat = source.reshape(-1)
    along_y = np.intp(source.shape[2])
    along_z = np.intp(source.shape[1]) * along_y
    buffer = np.empty((3, BRICK), np.float32)
    for brick_z in range(0, shape_z, BRICK):
        for brick_y in range(0, shape_y, BRICK):
            for brick_x in range(0, shape_x, BRICK):
                count = min(BRICK, shape_x - brick_x)
                row = buffer[:, :count]
                for z in range(brick_z, min(brick_z + BRICK, shape_z)):
                    for y in range(brick_y, min(brick_y + BRICK, shape_y)):
                        _row_positions(
                            from_z, from_y, from_x, displacement, step,
                            z + begin_z, y + begin_y, brick_x + begin_x, row,
                        )  # fmt: skip
                        for i in range(count):
                            whole_z = np.int32(row[0, i])
                            whole_y = np.int32(row[1, i])
                            whole_x = np.int32(row[2, i])
                            rest_z = row[0, i] - np.float32(whole_z)
                            rest_y = row[1, i] - np.float32(whole_y)
                            rest_x = row[2, i] - np.float32(whole_x)
                            at = np.uint64((whole_z - origin_z) * along_z
                                           + (whole_y - origin_y) * along_y + whole_x - origin_x)  # fmt: skip
                            at_y = at + np.uint64(along_y)
                            at_z = at + np.uint64(along_z)
                            at_zy = at_z + np.uint64(along_y)
                            one = np.uint64(1)
                            a00 = np.float32(flat[at])
                            a00 += rest_x * (np.float32(flat[at + one]) - a00)
                            a01 = np.float32(flat[at_y])
                            a01 += rest_x * (np.float32(flat[at_y + one]) - a01)
                            a10 = np.float32(flat[at_z])
                            a10 += rest_x * (np.float32(flat[at_z + one]) - a10)
                            a11 = np.float32(flat[at_zy])
                            a11 += rest_x * (np.float32(flat[at_zy + one]) - a11)
                            a00 += rest_y * (a01 - a00)
                            a10 += rest_y * (a11 - a10)
                            output[z, y, brick_x + i] = a00 + rest_z * (a10 - a00)


@compiled
def _nearest(
    size_y: int, size_x: int, from_z: Any, from_y: Any, from_x: Any, displacement: Any, step: int,
    origin_z: int, origin_y: int, origin_x: int, begin_z: int, begin_y: int, begin_x: int, output: Any,
) -> None:  # fmt: skip
    shape_z, shape_y, shape_x = output.shape
    half = np.float32(0.5)
    buffer = np.empty((3, BRICK), np.float32)
    for z in range(shape_z):
        for y in range(shape_y):
            for brick_x in range(0, shape_x, BRICK):
                count = min(BRICK, shape_x - brick_x)
                row = buffer[:, :count]
                _row_positions(
                    from_z,
                    from_y,
                    from_x,
                    displacement,
                    step,
                    z + begin_z,
                    y + begin_y,
                    brick_x + begin_x,
                    row,
                )
                for i in range(count):
                    at_z = np.int32(row[0, i] + half) - origin_z
                    at_y = np.int32(row[1, i] + half) - origin_y
                    at_x = np.int32(row[2, i] + half) - origin_x
                    output[z, y, brick_x + i] = (at_z * size_y + at_y) * size_x + at_x


@compiled
def scale_and_clip(values: Any, scale: float, shift: float, low: float, high: float) -> None:
    """Replace each of the float32 ``values`` (C-contiguous, any shape) by ``clip(value * scale + shift)``."""
    flat = values.reshape(-1)
    factor, offset = np.float32(scale), np.float32(shift)
    lowest, highest = np.float32(low), np.float32(high)
    for i in range(flat.size):
        flat[i] = min(max(flat[i] * factor + offset, lowest), highest)


def warm_up(raw_types: Iterable[np.dtype[Any]]) -> None:
    """Compile the kernels for raw data of some types, or load them from numba's cache."""
    table, zero, one = np.zeros((3, 1), np.float32), Coordinate(0, 0, 0), Coordinate(1, 1, 1)
    field = PositionField((table, table, table), np.zeros((3, 1, 1, 1), np.float32), 1)
    for raw_type in raw_types:
        scale_and_clip(
            resample_linear(np.zeros((2, 2, 2), raw_type), field, zero, zero, one), 1.0, 0.0, 0.0, 1.0
        )
    nearest_voxels((1, 1, 1), field, zero, zero, one)
