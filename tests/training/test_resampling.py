"""The resampling kernels against numpy and scipy."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from incasem.geometry import Coordinate
from incasem.training import resampling
from incasem.training.resampling import PositionField, nearest_voxels, resample_linear, scale_and_clip

ZERO = Coordinate(0, 0, 0)
SHAPES = st.tuples(*(st.integers(1, 9) for _ in range(3)))


def straight_field(shape, axes=(0, 1, 2), flips=(False, False, False), step=4):
    """The field of a flip and transpose, whose source has ``shape[axes[a]]`` voxels along axis a."""
    tables = [np.zeros((3, size), np.float32) for size in shape]
    for source_axis, (along, flip) in enumerate(zip(axes, flips, strict=True)):
        positions = np.arange(shape[along])
        tables[along][source_axis] = positions[::-1] if flip else positions
    nodes = [-(-(size - 1) // step) + 1 for size in shape[:2]]
    return PositionField(tuple(tables), np.zeros((3, *nodes, shape[2]), np.float32), step)


def random_field(shape, step, rng, size=3.0):
    """A field with positions inside [margin, …]: random displacement and random jumps."""
    field = straight_field(shape, step=step)
    tables = [table + rng.uniform(0, size, table.shape).astype(np.float32) for table in field.tables]
    displacement = rng.uniform(0, size, field.displacement.shape).astype(np.float32)
    return PositionField(tuple(tables), displacement, step)


def positions(field, begin, shape):
    """The positions of a region, in float64, by a plain interpolation."""
    z, y, x = (np.arange(b, b + s) for b, s in zip(begin, shape, strict=True))
    along_z, along_y = np.meshgrid(z / field.step, y / field.step, indexing="ij")
    result = np.empty((3, *shape))
    for axis in range(3):
        tables = [t[axis].astype(np.float64) for t in field.tables]
        result[axis] = tables[0][z][:, None, None] + tables[1][y][:, None] + tables[2][x]
        for column, at in enumerate(x):
            nodes = field.displacement[axis, :, :, at].astype(np.float64)
            result[axis, :, :, column] += ndimage.map_coordinates(
                nodes, [along_z, along_y], order=1, mode="nearest"
            )
    return result


@given(SHAPES, st.sampled_from(list(itertools.permutations(range(3)))), st.tuples(*[st.booleans()] * 3))
@settings(deadline=None)
def test_flips_and_transposes_are_exact(shape, axes, flips):
    source_shape = tuple(shape[axis] for axis in axes)
    source = np.random.default_rng(0).integers(0, 256, source_shape, dtype=np.uint8)
    expected = source[tuple(slice(None, None, -1 if flip else 1) for flip in flips)]
    expected = expected.transpose(np.argsort(axes))
    field = straight_field(shape, axes, flips)
    padded = np.pad(source, ((0, 1),) * 3)  # the voxel to spare
    np.testing.assert_array_equal(resample_linear(padded, field, ZERO, ZERO, Coordinate(shape)), expected)
    indices = nearest_voxels(source_shape, field, ZERO, ZERO, Coordinate(shape))
    np.testing.assert_array_equal(source.take(indices), expected)


@given(SHAPES, st.integers(1, 5), st.sampled_from([np.uint8, np.uint16, np.float32]), st.integers(0, 1000))
@settings(deadline=None, max_examples=60)
def test_raw_is_what_scipy_interpolates(shape, step, dtype, seed):
    rng = np.random.default_rng(seed)
    field = random_field(shape, step, rng)
    source = (rng.random(tuple(size + 14 for size in shape)) * 255).astype(dtype)
    at = positions(field, ZERO, shape)
    expected = ndimage.map_coordinates(source.astype(np.float64), at, order=1)
    found = resample_linear(source, field, ZERO, ZERO, Coordinate(shape))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=2e-2)


@given(SHAPES, st.integers(1, 5), st.integers(0, 1000))
@settings(deadline=None, max_examples=60)
def test_labels_come_from_the_nearest_voxel(shape, step, seed):
    rng = np.random.default_rng(seed)
    field = random_field(shape, step, rng)
    source_shape = tuple(size + 14 for size in shape)
    indices = nearest_voxels(source_shape, field, ZERO, ZERO, Coordinate(shape))
    distance = np.stack(np.unravel_index(indices, source_shape)) - positions(field, ZERO, shape)
    assert np.abs(distance).max() <= 0.5 + 1e-4


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_a_region_is_the_same_as_in_the_whole_to_the_last_bit(data):
    shape = data.draw(st.tuples(*(st.integers(4, 12) for _ in range(3))))
    begin = Coordinate(data.draw(st.integers(0, size - 2)) for size in shape)
    end = Coordinate(data.draw(st.integers(b + 1, size)) for b, size in zip(begin, shape, strict=True))
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    field = random_field(shape, data.draw(st.integers(1, 4)), rng)
    source = rng.random(tuple(size + 14 for size in shape)).astype(np.float32)
    inside = tuple(slice(b, e) for b, e in zip(begin, end, strict=True))
    whole = resample_linear(source, field, ZERO, ZERO, Coordinate(shape))
    np.testing.assert_array_equal(resample_linear(source, field, ZERO, begin, end - begin), whole[inside])
    # … also where the source is cut otherwise.
    origin = Coordinate(min(b, 1) for b in begin)
    cut = source[tuple(slice(o, None) for o in origin)]
    np.testing.assert_array_equal(resample_linear(cut, field, origin, begin, end - begin), whole[inside])
    indices = nearest_voxels(source.shape, field, ZERO, ZERO, Coordinate(shape))
    part = nearest_voxels(cut.shape, field, origin, begin, end - begin)
    np.testing.assert_array_equal(cut.take(part), source.take(indices)[inside])


def test_more_than_one_brick():
    shape = (3, 70, 2 * resampling.BRICK + 5)
    rng = np.random.default_rng(0)
    field = random_field(shape, 4, rng)
    source = (rng.random(tuple(size + 14 for size in shape)) * 255).astype(np.uint8)
    expected = ndimage.map_coordinates(source.astype(np.float64), positions(field, ZERO, shape), order=1)
    np.testing.assert_allclose(
        resample_linear(source, field, ZERO, ZERO, Coordinate(shape)), expected, atol=2e-2
    )


def test_scale_and_clip_works_in_place():
    values = np.array([[0.0, 0.5, 1.0]], np.float32)
    scale_and_clip(values, 2.0, -0.5, 0.0, 1.0)
    np.testing.assert_allclose(values, [[0.0, 0.5, 1.0]])
    scale_and_clip(values, 2.0, -1.0, -1.0, 1.0)
    np.testing.assert_allclose(values, [[-1.0, 0.0, 1.0]])


def test_warm_up_takes_every_raw_type():
    resampling.warm_up({np.dtype(np.uint8), np.dtype(np.float32)})


@pytest.mark.parametrize("order", ["C", "F"])
def test_the_source_may_lie_in_memory_in_any_order(order):
    source = np.asarray(np.random.default_rng(0).random((5, 6, 7)), order=order)
    field = straight_field((4, 5, 6))
    found = resample_linear(source, field, ZERO, ZERO, Coordinate(4, 5, 6))
    np.testing.assert_allclose(found, source[:-1, :-1, :-1], rtol=1e-6)
