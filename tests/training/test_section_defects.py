"""Defects of sections, each against a plain loop over the sections."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from incasem.config.augmentation import LowContrastSections, MissingSections, MotionBlur, ShiftedSections
from incasem.geometry import Coordinate
from incasem.training.section_defects import fade, lose, shifts, smear

SHAPES = st.tuples(*(st.integers(1, 9) for _ in range(3)))
AXES = st.integers(0, 2)


def grey(shape, seed):
    return np.random.default_rng(seed).random(shape, np.float32)


def as_sections(raw, axis):
    return [raw.take(index, axis=axis) for index in range(raw.shape[axis])]


def drawn_sections(count, probability, seed):
    """Which sections are hit: the first that each function draws."""
    rng = np.random.default_rng(seed)
    return rng.random(count) < probability, rng


@given(SHAPES, AXES, st.integers(0, 1000), st.floats(0, 1))
@settings(deadline=None)
def test_faint_sections_keep_their_mean(shape, axis, seed, probability):
    raw = grey(shape, seed)
    found = raw.copy()
    fade(found, LowContrastSections(probability=probability, axis=axis), np.random.default_rng(seed))
    hit, rng = drawn_sections(shape[axis], probability, seed)
    factors = rng.uniform(0.1, 0.5, shape[axis])
    assert 0 <= found.min() <= found.max() <= 1
    pairs = zip(as_sections(raw, axis), as_sections(found, axis), strict=True)
    for index, (before, after) in enumerate(pairs):
        if hit[index]:
            expected = before.mean() + (before - before.mean()) * factors[index]
            np.testing.assert_allclose(after, expected, atol=1e-6)
        else:
            np.testing.assert_array_equal(after, before)


@given(SHAPES, AXES, st.integers(0, 1000), st.floats(0, 1))
@settings(deadline=None)
def test_smeared_sections_are_means_along_one_of_their_axes(shape, axis, seed, probability):
    raw = grey(shape, seed)
    found = raw.copy()
    smear(found, MotionBlur(probability=probability, axis=axis, reach=(1, 3)), np.random.default_rng(seed))
    hit, rng = drawn_sections(shape[axis], probability, seed)
    reach = rng.integers(1, 3, shape[axis], endpoint=True)
    along = rng.integers(0, 2, shape[axis])
    for index, (before, after) in enumerate(
        zip(as_sections(raw, axis), as_sections(found, axis), strict=True)
    ):
        if not hit[index]:
            np.testing.assert_array_equal(after, before)
            continue
        lines = before if along[index] else before.T
        wide = int(reach[index])
        padded = np.pad(lines, ((0, 0), (wide, wide)), mode="reflect")
        expected = np.mean([padded[:, i : i + lines.shape[1]] for i in range(2 * wide + 1)], axis=0)
        np.testing.assert_allclose(after if along[index] else after.T, expected, atol=1e-6)


@pytest.mark.parametrize("fill", ["black", "mean", "repeat"])
@given(SHAPES, AXES, st.integers(0, 1000), st.floats(0, 1))
@settings(deadline=None, max_examples=50)
def test_missing_sections_are_filled_as_asked(fill, shape, axis, seed, probability):
    raw = grey(shape, seed)
    found = raw.copy()
    lose(found, MissingSections(probability=probability, axis=axis, fill=fill), np.random.default_rng(seed))
    lost, _ = drawn_sections(shape[axis], probability, seed)
    before, after = as_sections(raw, axis), as_sections(found, axis)
    left = [section for section, is_lost in zip(before, lost, strict=True) if not is_lost]
    last = left[0] if left else None
    for index, is_lost in enumerate(lost):
        if not is_lost:
            last = before[index]
            np.testing.assert_array_equal(after[index], before[index])
        elif fill == "black" or not left:
            assert not after[index].any()
        elif fill == "mean":
            np.testing.assert_allclose(after[index], np.mean(left), atol=1e-6)
        else:
            np.testing.assert_array_equal(after[index], last)


@given(SHAPES, AXES, st.integers(0, 1000), st.booleans())
@settings(deadline=None)
def test_shifts_are_whole_voxels_within_the_plane(shape, axis, seed, all_after):
    chosen = ShiftedSections(probability=0.5, axis=axis, max_voxels=3, all_after=all_after)
    found = shifts(Coordinate(shape), chosen, np.random.default_rng(seed))
    assert found.shape == (3, shape[axis])
    np.testing.assert_array_equal(found, np.round(found))
    assert not found[axis].any()
    hit, _ = drawn_sections(shape[axis], 0.5, seed)
    if all_after:
        assert not found[:, shape[axis] // 2].any()
        assert np.abs(np.diff(found, axis=1)).max(initial=0) <= 3
        assert not np.diff(found, axis=1)[:, ~hit[1:]].any()
    else:
        assert np.abs(found).max() <= 3
        assert not found[:, ~hit].any()


def test_as_many_sections_are_hit_as_asked():
    raw = np.random.default_rng(0).random((2000, 2, 2), np.float32)
    for change, chosen in (
        (fade, LowContrastSections(probability=0.1)),
        (lose, MissingSections(probability=0.1)),
        (smear, MotionBlur(probability=0.1)),
    ):
        found = raw.copy()
        change(found, chosen, np.random.default_rng(1))
        assert (found != raw).any(axis=(1, 2)).mean() == pytest.approx(0.1, abs=0.02)
