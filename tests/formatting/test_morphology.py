import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.morphology import ball

from incasem.formatting import _morphology as morphology


def random_mask(shape, filling, seed):
    noise = np.random.default_rng(seed).random(shape)
    return ndimage.uniform_filter(noise, 3) < np.quantile(ndimage.uniform_filter(noise, 3), filling)


masks = st.builds(
    random_mask, st.tuples(*[st.integers(1, 24)] * 3), st.floats(0.02, 0.98), st.integers(0, 1000)
)


@settings(max_examples=60, deadline=None)
@given(mask=masks, radius=st.integers(0, 4))
def test_ball(mask, radius):
    np.testing.assert_array_equal(
        morphology.dilate_ball(mask, radius), ndimage.binary_dilation(mask, ball(radius))
    )
    np.testing.assert_array_equal(
        morphology.erode_ball(mask, radius), ndimage.binary_erosion(mask, ball(radius), border_value=1)
    )


@settings(max_examples=60, deadline=None)
@given(mask=masks, steps=st.integers(1, 9))
def test_cross(mask, steps):
    np.testing.assert_array_equal(
        morphology.dilate_cross(mask, steps), ndimage.binary_dilation(mask, iterations=steps)
    )
    np.testing.assert_array_equal(
        morphology.erode_cross(mask, steps), ndimage.binary_erosion(mask, iterations=steps, border_value=1)
    )


def test_no_step_changes_nothing():
    mask = random_mask((9, 9, 9), 0.5, 1)
    np.testing.assert_array_equal(morphology.dilate_cross(mask, 0), mask)
    np.testing.assert_array_equal(morphology.erode_cross(mask, 0), mask)


@pytest.mark.parametrize("steps", [70, 300])
def test_long_reach_does_not_overflow(steps):
    mask = np.zeros((1, 1, 400), bool)
    mask[0, 0, 0] = True
    assert morphology.dilate_cross(mask, steps).sum() == steps + 1
