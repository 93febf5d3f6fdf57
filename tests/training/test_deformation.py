"""The random geometry: orientation, bounds of what is read, rotation, jitter, shifted sections."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from incasem.config.training import Augmentation, Elastic, Simple
from incasem.geometry import Coordinate, Roi
from incasem.training import deformation
from incasem.training.deformation import Orientation, draw_deformation

SHAPES = st.tuples(*(st.integers(1, 40) for _ in range(3)))
ORIENTATIONS = st.builds(
    Orientation, st.sampled_from(list(itertools.permutations(range(3)))), st.tuples(*[st.booleans()] * 3)
)


def all_positions(field, shape):
    """Positions (3, …) of every voxel of the box, interpolated plainly."""
    result = sum(
        table.reshape(3, *(-1 if a == axis else 1 for a in range(3))).astype(np.float64)
        for axis, table in enumerate(field.tables)
    )
    z, y, x = np.meshgrid(*(np.arange(size) for size in shape), indexing="ij")
    moved = [
        ndimage.map_coordinates(
            c.astype(np.float64), [z / field.step, y / field.step, x], order=1, mode="nearest"
        )
        for c in field.displacement
    ]
    return result + np.stack(moved)


@given(ORIENTATIONS, ORIENTATIONS, SHAPES)
def test_orientations_compose(nearer, farther, shape):
    array = np.arange(np.prod(shape)).reshape(shape)

    def source_of(orientation, output):
        """The array in the farther frame that the orientation turns into ``output``."""
        return output.transpose(orientation.axes)[
            tuple(slice(None, None, -1 if flip else 1) for flip in orientation.flips)
        ]

    np.testing.assert_array_equal(
        source_of(nearer.then(farther), array), source_of(farther, source_of(nearer, array))
    )


@given(ORIENTATIONS, SHAPES, st.data())
def test_regions_turn_with_their_arrays(orientation, shape, data):
    begin = [data.draw(st.integers(0, size - 1)) for size in shape]
    end = [data.draw(st.integers(b + 1, size)) for b, size in zip(begin, shape, strict=True)]
    region = Roi(begin, [e - b for b, e in zip(begin, end, strict=True)])
    marked = np.zeros(shape, bool)
    marked[region.to_slices()] = True
    turned = marked.transpose(orientation.axes)[
        tuple(slice(None, None, -1 if flip else 1) for flip in orientation.flips)
    ]
    found = orientation.region(region, Coordinate(shape))
    assert turned[found.to_slices()].all()
    assert turned.sum() == found.size


@given(SHAPES, st.integers(0, 10_000), st.integers(1, 5), st.data())
@settings(deadline=None, max_examples=60)
def test_the_source_region_holds_every_position_with_a_voxel_to_spare(shape, seed, subsample, data):
    elastic = Elastic(control_point_spacing=(4, 8, 16), jitter_sigma=(1, 2, 3), subsample=subsample)
    chosen = data.draw(st.sampled_from([elastic, None]))
    drawn = draw_deformation(Coordinate(shape), Augmentation(elastic=chosen), np.random.default_rng(seed))
    begin = [data.draw(st.integers(0, size - 1)) for size in shape]
    region = Roi(begin, [data.draw(st.integers(1, size - b)) for b, size in zip(begin, shape, strict=True)])
    inside = all_positions(drawn.field, shape)[:, *region.to_slices()]
    source = drawn.source_roi(region)
    for axis in range(3):
        assert inside[axis].min() >= source.begin[axis] + 1
        assert np.floor(inside[axis].max()) + 1 < source.end[axis]
        # … and is not much larger than that.
        assert inside[axis].min() < source.begin[axis] + 8 + 2 * subsample
        assert inside[axis].max() > source.end[axis] - 8 - 2 * subsample


def test_without_augmentation_nothing_moves():
    drawn = draw_deformation(
        Coordinate(5, 6, 7), Augmentation(elastic=None, simple=None), np.random.default_rng(0)
    )
    expected = np.stack(np.meshgrid(*(np.arange(size) for size in (5, 6, 7)), indexing="ij"))
    np.testing.assert_array_equal(all_positions(drawn.field, (5, 6, 7)), expected)


def test_only_the_listed_axes_are_transposed():
    settings_ = Augmentation(elastic=None, simple=Simple(transpose_only=(1, 2)))
    rng = np.random.default_rng(0)
    seen = {draw_deformation(Coordinate(4, 4, 4), settings_, rng).orientation for _ in range(300)}
    assert {orientation.axes for orientation in seen} == {(0, 1, 2), (0, 2, 1)}
    assert {orientation.flips for orientation in seen} == set(itertools.product((False, True), repeat=3))


def test_all_orientations_are_equally_likely():
    rng = np.random.default_rng(1)
    settings_ = Augmentation(elastic=None)
    counts: dict[Orientation, int] = {}
    for _ in range(4800):
        orientation = draw_deformation(Coordinate(2, 2, 2), settings_, rng).orientation
        counts[orientation] = counts.get(orientation, 0) + 1
    assert len(counts) == 48
    assert min(counts.values()) > 50
    assert max(counts.values()) < 160


def test_rotation_turns_about_the_centre(monkeypatch):
    monkeypatch.setattr(deformation, "SHIFT_PROBABILITY", 0.0)
    still = Elastic(jitter_sigma=(0, 0, 0))
    shape = (5, 21, 33)
    drawn = draw_deformation(
        Coordinate(shape), Augmentation(elastic=still, simple=None), np.random.default_rng(3)
    )
    found = all_positions(drawn.field, shape)
    z, y, x = np.meshgrid(*(np.arange(size) - (size - 1) / 2 for size in shape), indexing="ij")
    np.testing.assert_allclose(found[0] - 2, z, atol=1e-4)
    moved_y, moved_x = found[1] - 10, found[2] - 16
    np.testing.assert_allclose(moved_y**2 + moved_x**2, y**2 + x**2, atol=2e-2)  # lengths are kept
    angle = np.angle((moved_x + 1j * moved_y) / np.where(x + 1j * y == 0, 1, x + 1j * y))
    assert np.ptp(angle[(x != 0) | (y != 0)]) < 1e-3
    assert 0 < angle.flat[0] <= np.pi / 2 + 1e-3


def test_the_jitter_has_its_strength_and_its_smoothness(monkeypatch):
    monkeypatch.setattr(deformation, "ROTATION_RADIANS", 0.0)
    monkeypatch.setattr(deformation, "SHIFT_PROBABILITY", 0.0)
    elastic = Elastic(control_point_spacing=(32, 32, 32), jitter_sigma=(0, 2, 4))
    rng = np.random.default_rng(0)
    shape = Coordinate(96, 96, 96)
    at_corner = []
    for _ in range(200):
        field = draw_deformation(shape, Augmentation(elastic=elastic, simple=None), rng).field
        at_corner.append(field.displacement[:, 0, 0, 0])
        assert np.abs(np.diff(field.displacement, axis=3)).max() < 2  # voxels a voxel: no folds of note
    assert np.std(at_corner, axis=0) == pytest.approx([0, 2, 4], rel=0.2)


def test_sections_shift_together_with_all_after_them(monkeypatch):
    monkeypatch.setattr(deformation, "ROTATION_RADIANS", 0.0)
    still = Elastic(jitter_sigma=(0, 0, 0))
    drawn = draw_deformation(
        Coordinate(200, 3, 3), Augmentation(elastic=still, simple=None), np.random.default_rng(0)
    )
    position = all_positions(drawn.field, (200, 3, 3))
    np.testing.assert_array_equal(position[0, :, 1, 1], np.arange(200))
    for axis in (1, 2):
        steps = np.diff(position[axis, :, 1, 1])
        assert set(np.unique(steps)) <= {-2, -1, 0, 1, 2}
        assert 0 < np.count_nonzero(steps) < 30


def test_a_patch_smaller_than_the_control_points_only_moves(monkeypatch):
    monkeypatch.setattr(deformation, "ROTATION_RADIANS", 0.0)
    monkeypatch.setattr(deformation, "SHIFT_PROBABILITY", 0.0)
    drawn = draw_deformation(Coordinate(8, 8, 8), Augmentation(simple=None), np.random.default_rng(0))
    assert np.ptp(drawn.field.displacement, axis=(1, 2, 3)) == pytest.approx([0, 0, 0], abs=1e-5)
    assert np.abs(drawn.field.displacement).max() > 0
