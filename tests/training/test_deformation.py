"""The random geometry: orientation, bounds of what is read, rotation, jitter, shifted sections."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from incasem.config.augmentation import (
    Augmentation,
    Elastic,
    Misalignment,
    Rotation,
    Scaling,
    ShiftedSections,
    Simple,
)
from incasem.geometry import Coordinate, Roi
from incasem.training.deformation import Orientation, draw_deformation
from incasem.training.misalignment import draw_misalignment

SHAPES = st.tuples(*(st.integers(1, 40) for _ in range(3)))
ORIENTATIONS = st.builds(
    Orientation, st.sampled_from(list(itertools.permutations(range(3)))), st.tuples(*[st.booleans()] * 3)
)
STRAIGHT = {"rotation_degrees": (0, 0), "shift_probability": 0}
OPTIONAL = {
    "rotation": Rotation(probability=1, degrees_y=(-90, 90), degrees_x=(-20, 50)),
    "scaling": Scaling(probability=1, factor=(0.5, 2)),
    "shifted_sections": ShiftedSections(probability=0.3, axis=1),
    "misalignment": Misalignment(probability=0.8, axis=2, max_voxels=6),
}


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


def all_moved(drawn, shape):
    """Positions (3, …) of every voxel of the box, each by the field of its piece."""
    found = np.full((3, *shape), np.nan)
    for part, field in drawn.pieces(Roi((0, 0, 0), shape)):
        found[:, *part.to_slices()] = all_positions(field, shape)[:, *part.to_slices()]
    assert np.isfinite(found).all()
    return found


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
    more = data.draw(st.sampled_from([{}, OPTIONAL]))
    drawn = draw_deformation(
        Coordinate(shape), Augmentation(elastic=chosen, **more), np.random.default_rng(seed), (4, 1, 2)
    )
    begin = [data.draw(st.integers(0, size - 1)) for size in shape]
    region = Roi(begin, [data.draw(st.integers(1, size - b)) for b, size in zip(begin, shape, strict=True)])
    inside = all_moved(drawn, shape)[:, *region.to_slices()]
    source = drawn.source_roi(region)
    for axis in range(3):
        assert inside[axis].min() >= source.begin[axis] + 1
        assert np.floor(inside[axis].max()) + 1 < source.end[axis]
        # … and is not much larger than that; one voxel of the sample is up to 8 of the volume with `more`,
        # and sections that lie 5 voxels off may not be the outermost ones.
        spare = (64 + 16 * subsample) if more else (8 + 2 * subsample)
        assert inside[axis].min() < source.begin[axis] + spare
        assert inside[axis].max() > source.end[axis] - spare


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


def test_rotation_turns_about_the_centre():
    still = Elastic(jitter_sigma=(0, 0, 0), shift_probability=0)
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


def test_the_jitter_has_its_strength_and_its_smoothness():
    elastic = Elastic(control_point_spacing=(32, 32, 32), jitter_sigma=(0, 2, 4), **STRAIGHT)
    rng = np.random.default_rng(0)
    shape = Coordinate(96, 96, 96)
    at_corner = []
    for _ in range(200):
        field = draw_deformation(shape, Augmentation(elastic=elastic, simple=None), rng).field
        at_corner.append(field.displacement[:, 0, 0, 0])
        assert np.abs(np.diff(field.displacement, axis=3)).max() < 2  # voxels a voxel: no folds of note
    assert np.std(at_corner, axis=0) == pytest.approx([0, 2, 4], rel=0.2)


def test_sections_shift_together_with_all_after_them():
    still = Elastic(jitter_sigma=(0, 0, 0), rotation_degrees=(0, 0))
    drawn = draw_deformation(
        Coordinate(200, 3, 3), Augmentation(elastic=still, simple=None), np.random.default_rng(0)
    )
    position = all_positions(drawn.field, (200, 3, 3))
    np.testing.assert_array_equal(position[0, :, 1, 1], np.arange(200))
    for axis in (1, 2):
        steps = np.diff(position[axis, :, 1, 1])
        assert set(np.unique(steps)) <= {-2, -1, 0, 1, 2}
        assert 0 < np.count_nonzero(steps) < 30


def test_a_patch_smaller_than_the_control_points_only_moves():
    settings_ = Augmentation(simple=None, elastic=Elastic(**STRAIGHT))
    drawn = draw_deformation(Coordinate(8, 8, 8), settings_, np.random.default_rng(0))
    assert np.ptp(drawn.field.displacement, axis=(1, 2, 3)) == pytest.approx([0, 0, 0], abs=1e-5)
    assert np.abs(drawn.field.displacement).max() > 0


def test_optional_kinds_change_nothing_that_is_drawn_for_the_published_ones():
    shape = Coordinate(9, 10, 11)
    for seed in range(20):
        plain = draw_deformation(shape, Augmentation(), np.random.default_rng(seed))
        more = draw_deformation(shape, Augmentation(**OPTIONAL), np.random.default_rng(seed))
        assert more.orientation == plain.orientation
        still = {"scaling": Scaling(probability=1, factor=(1, 1))}
        same = draw_deformation(shape, Augmentation(**still), np.random.default_rng(seed))
        np.testing.assert_array_equal(same.field.displacement, plain.field.displacement)
        for table, other in zip(plain.field.tables, same.field.tables, strict=True):
            np.testing.assert_array_equal(table, other)


@given(st.integers(0, 10_000), st.booleans(), st.tuples(*[st.sampled_from([1.0, 2.0, 5.0])] * 3))
@settings(deadline=None, max_examples=60)
def test_a_rotated_sample_is_rigid_in_nanometres(seed, with_elastic, voxel_size):
    """Lengths from the centre, in nm, are those of the sample, whatever was flipped."""
    shape = (9, 13, 11)
    settings_ = Augmentation(
        elastic=Elastic(jitter_sigma=(0, 0, 0), **STRAIGHT) if with_elastic else None,
        simple=Simple(transpose_only=()),
        rotation=Rotation(probability=1, degrees_y=(-180, 180), degrees_x=(-180, 180)),
    )
    drawn = draw_deformation(Coordinate(shape), settings_, np.random.default_rng(seed), voxel_size)
    centre = [(size - 1) / 2 for size in shape]
    size_nm = np.array(voxel_size).reshape(3, 1, 1, 1)
    middle = np.array(centre).reshape(3, 1, 1, 1)
    moved = (all_positions(drawn.field, shape) - middle) * size_nm
    straight = (np.indices(shape) - middle) * size_nm
    np.testing.assert_allclose((moved**2).sum(0), (straight**2).sum(0), rtol=1e-3, atol=1e-2)
    assert np.abs(moved - straight).max() > 0


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.25])
def test_scaling_magnifies_about_the_centre(factor):
    shape = (7, 12, 9)
    settings_ = Augmentation(
        elastic=None, simple=None, scaling=Scaling(probability=1, factor=(factor, factor))
    )
    found = all_positions(
        draw_deformation(Coordinate(shape), settings_, np.random.default_rng(0)).field, shape
    )
    for axis, size in enumerate(shape):
        centre = (size - 1) / 2
        np.testing.assert_allclose(
            found[axis] - centre, (np.indices(shape)[axis] - centre) / factor, atol=1e-4
        )


def test_transposed_anisotropic_samples_rotate_in_their_own_voxels():
    """The axis that runs along the volume's z has the length of z, wherever it was transposed to."""
    settings_ = Augmentation(elastic=None, rotation=Rotation(probability=1, degrees_y=(90, 90)))
    settings_ = settings_.model_copy(update={"simple": Simple()})
    shape, voxel_size = (9, 9, 9), np.array([4.0, 1.0, 1.0]).reshape(3, 1, 1, 1)
    for seed in range(20):
        drawn = draw_deformation(Coordinate(shape), settings_, np.random.default_rng(seed), (4, 1, 1))
        positions = (all_positions(drawn.field, shape) - 4) * voxel_size
        steps = [np.diff(positions, axis=axis + 1) for axis in range(3)]
        lengths = sorted(float(np.linalg.norm(step.reshape(3, -1)[:, 0])) for step in steps)
        # A rigid turn keeps one step of 4 nm and two of 1 nm, and right angles between them.
        np.testing.assert_allclose(lengths, [1, 1, 4], atol=1e-3)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("all_after", [False, True])
def test_optional_shifts_move_whole_sections_in_their_plane(axis, all_after):
    shape = (40, 41, 42)
    settings_ = Augmentation(
        elastic=None,
        shifted_sections=ShiftedSections(probability=0.3, axis=axis, max_voxels=3, all_after=all_after),
    )
    plain = Augmentation(elastic=None)
    for seed in range(5):
        drawn = draw_deformation(Coordinate(shape), settings_, np.random.default_rng(seed))
        straight = draw_deformation(Coordinate(shape), plain, np.random.default_rng(seed))
        off = all_positions(drawn.field, shape) - all_positions(straight.field, shape)
        by_section = np.moveaxis(off, axis + 1, 1).reshape(3, shape[axis], -1)
        assert (np.ptp(by_section, axis=2) == 0).all()
        steps = by_section[:, :, 0]
        if all_after:
            assert (steps[:, shape[axis] // 2] == 0).all()
            steps = np.diff(steps, axis=1)
        across = straight.orientation.axes.index(axis)  # the volume's axis that runs across the sections
        assert (steps[across] == 0).all()
        assert np.abs(steps).max() == 3
        assert 0.1 < (steps != 0).any(axis=0).mean() < 0.6


def misaligned(shape, seed, **chosen):
    """Where voxels of a misaligned box lie, less where they would lie, and the deformation."""
    chosen = Misalignment(**({"probability": 1, "max_voxels": 6} | chosen))
    plain = Augmentation(elastic=None)
    drawn = draw_deformation(
        Coordinate(shape), plain.model_copy(update={"misalignment": chosen}), np.random.default_rng(seed)
    )
    straight = draw_deformation(Coordinate(shape), plain, np.random.default_rng(seed))
    return all_moved(drawn, shape) - all_positions(straight.field, shape), straight


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_all_sections_after_one_are_shifted_alike(axis):
    shape, sizes, places = (12, 13, 14), set(), set()
    for seed in range(30):
        off, straight = misaligned(shape, seed, axis=axis, rotations=0, slips=0)
        by_section = np.moveaxis(off, axis + 1, 1).reshape(3, shape[axis], -1)
        assert (np.ptp(by_section, axis=2) == 0).all()
        steps = by_section[:, :, 0]
        assert not steps[:, shape[axis] // 2].any()
        assert not steps[straight.orientation.axes.index(axis)].any()
        jumps = np.flatnonzero(np.diff(steps, axis=1).any(axis=0))
        assert jumps.size <= 1  # 0 where the shift that was drawn is none
        places |= set(jumps.tolist())
        sizes |= set(np.abs(steps).max(axis=1).tolist())
    assert max(sizes) == 6
    assert len(places) > 6


def test_a_slip_moves_one_section_alone():
    for seed in range(20):
        off, _ = misaligned((12, 13, 14), seed, slips=1, rotations=seed % 2)
        assert off.any(axis=(0, 2, 3)).sum() <= 1


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_turned_sections_stay_rigid_and_their_corners_move_by_no_more_than_asked(axis):
    shape, largest = (20, 21, 22), 0.0
    for seed in range(30):
        off, straight = misaligned(shape, seed, axis=axis, rotations=1, slips=0)
        positions = off + all_positions(straight.field, shape)
        across = straight.orientation.axes.index(axis)
        np.testing.assert_allclose(off[across], 0, atol=1e-5)
        by_section = np.moveaxis(off, axis + 1, 1).reshape(3, shape[axis], -1)
        moves = np.abs(by_section).max(axis=(0, 2)) > 1e-4
        assert np.count_nonzero(np.diff(moves)) == 1
        assert not moves[shape[axis] // 2]
        furthest = np.linalg.norm(off, axis=0).max()
        assert furthest <= 6 + 1e-3
        largest = max(largest, furthest)
        for along in range(3):
            if along != axis:
                steps = np.linalg.norm(np.diff(positions, axis=along + 1), axis=0)
                np.testing.assert_allclose(steps, 1, atol=1e-3)
    assert largest > 5


def test_as_many_samples_are_misaligned_as_asked():
    rng = np.random.default_rng(0)
    chosen = Misalignment(probability=0.3, rotations=0.25, slips=0.6, max_voxels=1000)
    drawn = [draw_misalignment(Coordinate(50, 40, 40), chosen, rng) for _ in range(3000)]
    hit = [one for one in drawn if one is not None]
    assert len(hit) / 3000 == pytest.approx(0.3, abs=0.03)
    assert np.mean([one.angle != 0 for one in hit]) == pytest.approx(0.25, abs=0.05)
    assert np.mean([one.end - one.begin == 1 for one in hit]) == pytest.approx(0.6, abs=0.06)


def test_a_single_section_has_nothing_to_be_misaligned_with():
    assert (
        draw_misalignment(Coordinate(1, 9, 9), Misalignment(probability=1), np.random.default_rng(0)) is None
    )
