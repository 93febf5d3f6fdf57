"""In float64 a rewrite must give what the original gives, to rounding."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from incasem.networks.rewrites import (
    paired_weights,
    phase_convolution,
    phase_weights,
    transposed_weights,
)

_FACTORS = st.tuples(*[st.sampled_from([1, 2, 2, 3, 4])] * 3)


def _random(*shape, seed):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def _error(result, expected):
    assert result.shape == expected.shape
    return float((result - expected).abs().max() / expected.abs().max())


@st.composite
def _crops(draw):
    """Return factor, low-resolution size, crop's begin and size (z, y, x): any parity."""
    factor = draw(_FACTORS)
    low = tuple(draw(st.integers(3, 6)) for _ in factor)
    begin = tuple(draw(st.integers(0, n * f - 3)) for n, f in zip(low, factor, strict=True))
    size = tuple(draw(st.integers(3, n * f - b)) for n, f, b in zip(low, factor, begin, strict=True))
    return factor, low, begin, size


@settings(deadline=None, max_examples=80)
@given(
    case=_crops(), channels=st.tuples(*[st.integers(1, 3)] * 3), learnt=st.booleans(), seed=st.integers(0, 99)
)
def test_phases_equal_upsampling_cropping_and_convolving(case, channels, learnt, seed):
    factor, low_shape, begin, size = case
    maps_in, maps_up, maps_out = channels if learnt else (channels[0], channels[0], channels[2])
    low = _random(2, maps_in, *low_shape, seed=seed)
    weight = _random(maps_out, maps_up, 3, 3, 3, seed=seed + 1)
    up, up_bias = _random(maps_in, maps_up, *factor, seed=seed + 2), _random(maps_up, seed=seed + 3)
    if learnt:
        upsampled = functional.conv_transpose3d(low, up, up_bias, stride=factor)
    else:
        upsampled = functional.interpolate(low, scale_factor=tuple(map(float, factor)), mode="nearest")
    crop = upsampled[(..., *(slice(b, b + s) for b, s in zip(begin, size, strict=True)))]
    expected = functional.conv3d(crop, weight)

    phases, bias = phase_weights(weight, factor, (up, up_bias) if learnt else None)
    shape = [s - 2 for s in size]
    result = phase_convolution(low, phases, factor, begin, shape) + bias.reshape(1, -1, 1, 1, 1)
    assert _error(result, expected) <= 1e-12


@settings(deadline=None, max_examples=40)
@given(factor=_FACTORS, low_shape=st.tuples(*[st.integers(3, 5)] * 3), seed=st.integers(0, 99))
def test_transposed_convolution_equals_upsampling_and_convolving(factor, low_shape, seed):
    low, weight = _random(1, 2, *low_shape, seed=seed), _random(3, 2, 3, 3, 3, seed=seed + 1)
    upsampled = functional.interpolate(low, scale_factor=tuple(map(float, factor)), mode="nearest")
    expected = functional.conv3d(upsampled, weight)

    kernel = transposed_weights(phase_weights(weight, factor).weight, factor)
    whole = functional.conv_transpose3d(low, kernel, stride=factor)
    begin = [k - f for k, f in zip(kernel.shape[2:], factor, strict=True)]
    inside = whole[(..., *(slice(b, b + s) for b, s in zip(begin, expected.shape[2:], strict=True)))]
    assert _error(inside, expected) <= 1e-12


def test_two_taps_a_phase_replace_three():
    assert phase_weights(_random(4, 5, 3, 3, 3, seed=0), (1, 2, 4)).weight.shape == (8 * 4, 5, 3, 2, 2)


@pytest.mark.parametrize("shape", [(3, 3, 4), (5, 4, 10)])
def test_pairs_equal_single_voxels(shape):
    raw = _random(2, 1, *shape, seed=0)
    weight, bias = _random(3, 1, 3, 3, 3, seed=1), _random(3, seed=2)
    paired = functional.conv3d(
        raw.reshape(2, *shape[:2], -1, 2).permute(0, 4, 1, 2, 3), *paired_weights(weight, bias)
    )
    split = paired.unflatten(1, (2, 3)).permute(0, 2, 3, 4, 5, 1).flatten(4)
    assert _error(split, functional.conv3d(raw, weight, bias)) <= 1e-12
