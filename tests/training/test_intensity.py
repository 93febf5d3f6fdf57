"""Grey values: each kind against plain numpy, within range, seeded, off where its probability is 0."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from incasem.config.augmentation import Blur, Contrast, Gamma, Noise, ShotNoise
from incasem.training import intensity

SHAPES = st.tuples(*(st.integers(1, 9) for _ in range(3)))
KINDS = {
    "gamma": lambda p: (intensity.bend, {"settings": Gamma(probability=p)}),
    "contrast": lambda p: (intensity.stretch, {"settings": Contrast(probability=p)}),
    "blur": lambda p: (intensity.blur, {"settings": Blur(probability=p, axes=(0, 1, 2))}),
    "noise": lambda p: (
        intensity.add_noise,
        {"gaussian": Noise(probability=p), "shot": ShotNoise(probability=0)},
    ),
    "shot_noise": lambda p: (
        intensity.add_noise,
        {"gaussian": Noise(probability=0), "shot": ShotNoise(probability=p)},
    ),
}


def grey(shape, seed=0):
    """Random values that hold both ends of the range."""
    raw = np.random.default_rng(seed).random(shape, np.float32)
    raw.flat[0], raw.flat[-1] = 0, 1
    return raw


def changed(name, raw, seed, probability=1.0):
    change, options = KINDS[name](probability)
    result = raw.copy()
    change(result, rng=np.random.default_rng(seed), **options)
    return result


@pytest.mark.parametrize("name", KINDS)
@given(SHAPES, st.integers(0, 1000))
@settings(deadline=None, max_examples=25)
def test_values_stay_in_range_and_depend_on_the_seed_alone(name, shape, seed):
    raw = grey(shape, seed)
    found = changed(name, raw, seed)
    assert found.dtype == np.float32
    assert 0 <= found.min() <= found.max() <= 1
    np.testing.assert_array_equal(found, changed(name, raw, seed))


@pytest.mark.parametrize("name", KINDS)
def test_another_seed_is_another_image_and_probability_0_is_none(name):
    raw = grey((6, 7, 8))
    assert (changed(name, raw, 0) != changed(name, raw, 1)).any()
    for seed in range(20):
        np.testing.assert_array_equal(changed(name, raw, seed, probability=0), raw)


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_happens_as_often_as_asked(name):
    raw = grey((3, 4, 5))
    happened = [(changed(name, raw, seed, probability=0.3) != raw).any() for seed in range(500)]
    assert np.mean(happened) == pytest.approx(0.3, abs=0.07)


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0])
def test_gamma_is_a_power(exponent):
    raw = grey((5, 6, 7))
    found = raw.copy()
    intensity.bend(found, Gamma(probability=1, exponent=(exponent, exponent)), np.random.default_rng(0))
    np.testing.assert_allclose(found, raw.astype(np.float64) ** exponent, atol=1e-6)


def test_contrast_is_about_the_mean():
    raw = grey((5, 6, 7)) * 0.2 + 0.4
    found = raw.copy()
    chosen = Contrast(probability=1, factor=(1.5, 1.5), brightness=(0.1, 0.1))
    intensity.stretch(found, chosen, np.random.default_rng(0))
    np.testing.assert_allclose(found, raw.mean() + (raw - raw.mean()) * 1.5 + 0.1, atol=1e-6)


@pytest.mark.parametrize("axes", [(1, 2), (0,), (2, 0, 1)])
@pytest.mark.parametrize("sigma", [0.5, 1.3])
def test_blur_is_a_plain_weighted_sum(axes, sigma):
    raw = grey((9, 10, 11))
    found = raw.copy()
    intensity.blur(found, Blur(probability=1, sigma=(sigma, sigma), axes=axes), np.random.default_rng(0))
    expected = raw.astype(np.float64)
    reach = int(intensity.BLUR_SIGMAS * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    for axis in axes:
        padded = np.pad(expected, [(reach, reach) if a == axis else (0, 0) for a in range(3)], mode="reflect")
        parts = [padded.take(range(i, i + raw.shape[axis]), axis=axis) for i in range(2 * reach + 1)]
        expected = sum(w * part for w, part in zip(weights / weights.sum(), parts, strict=True))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_noise_is_the_generators_own_times_its_strength():
    raw = grey((4, 5, 6)) * 0.2 + 0.4
    found = raw.copy()
    gaussian, shot = Noise(probability=1, sigma=(0.03, 0.03)), ShotNoise(probability=1, electrons=(400, 400))
    intensity.add_noise(found, gaussian, shot, np.random.default_rng(3))
    rng = np.random.default_rng(3)
    rng.random(), rng.uniform(), rng.random(), rng.uniform()  # whether, how much, whether, how much
    normal = np.stack([rng.standard_normal(plane.shape, np.float32) for plane in raw])
    np.testing.assert_allclose(found, raw + normal * np.sqrt(0.03**2 + raw / 400), atol=1e-6)


@pytest.mark.parametrize(("grey_value", "electrons"), [(0.25, 100), (0.5, 100), (0.5, 1000)])
def test_shot_noise_has_mean_and_variance_of_counted_electrons(grey_value, electrons):
    raw = np.full((32, 64, 64), grey_value, np.float32)
    shot = ShotNoise(probability=1, electrons=(electrons, electrons))
    intensity.add_noise(raw, Noise(probability=0), shot, np.random.default_rng(0))
    counted = np.random.default_rng(1).poisson(grey_value * electrons, raw.shape) / electrons
    assert raw.mean() == pytest.approx(counted.mean(), rel=0.01)
    assert raw.std() == pytest.approx(counted.std(), rel=0.02)


def test_factors_are_as_often_doubled_as_halved():
    rng = np.random.default_rng(0)
    drawn = np.array([intensity.log_uniform((0.5, 2.0), rng) for _ in range(4000)])
    assert drawn.min() >= 0.5
    assert drawn.max() <= 2
    assert (drawn > 1).mean() == pytest.approx(0.5, abs=0.03)
