"""Cut-out boxes: where they lie and what fills them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from incasem.config.augmentation import Cutout
from incasem.training.occlusion import cut_out

SHAPES = st.tuples(*(st.integers(1, 20) for _ in range(3)))


def grey(shape, seed=0):
    return np.random.default_rng(seed).random(shape, np.float32)


def cut(raw, seed, **chosen):
    result = raw.copy()
    cut_out(result, Cutout(**{"probability": 1, **chosen}), np.random.default_rng(seed))
    return result


@given(SHAPES, st.integers(0, 1000))
@settings(deadline=None)
def test_a_box_has_its_size_and_the_mean_grey_and_nothing_else_changes(shape, seed):
    raw = grey(shape, seed)
    found = cut(raw, seed, boxes=(1, 1), smallest=(2, 3, 1), largest=(4, 3, 9))
    filled = found == np.float32(raw.mean(dtype=np.float64))
    (box,) = ndimage.find_objects(filled.astype(int))
    sides = [part.stop - part.start for part in box]
    for side, size, least, most in zip(sides, shape, (2, 3, 1), (4, 3, 9), strict=True):
        assert min(least, size) <= side <= min(most, size)
    assert filled[box].all()
    found[box] = raw[box]
    np.testing.assert_array_equal(found, raw)


def test_boxes_reach_every_border_and_as_many_boxes_as_asked_are_seen():
    raw = grey((12, 12, 12))
    hidden, counts = np.zeros(raw.shape, bool), set()
    for seed in range(400):
        changed = cut(raw, seed, boxes=(1, 3), smallest=(2, 2, 2), largest=(3, 3, 3)) != raw
        hidden |= changed
        counts.add(ndimage.label(changed, np.ones((3, 3, 3)))[1])
    for axis in range(3):
        assert hidden.any(axis=tuple({0, 1, 2} - {axis})).all()
    assert counts == {1, 2, 3}


def test_cut_out_is_seeded_and_off_at_probability_0():
    raw = grey((20, 20, 20))
    np.testing.assert_array_equal(cut(raw, 3), cut(raw, 3))
    assert (cut(raw, 3) != cut(raw, 4)).any()
    happened = [(cut(raw, seed, probability=0.3) != raw).any() for seed in range(400)]
    assert np.mean(happened) == pytest.approx(0.3, abs=0.08)
    for seed in range(20):
        np.testing.assert_array_equal(cut(raw, seed, probability=0), raw)
