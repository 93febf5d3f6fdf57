import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from incasem.networks import channel_bce, channel_dice, channel_mse
from incasem.tasks.affinity_losses import CLIP_FRACTION, RegionLoss, balance_scale


def region(seed=0, shape=(3, 6, 7, 8)):
    rng = np.random.default_rng(seed)
    valid = rng.random(shape) > 0.2
    affinities = ((rng.random(shape) > 0.1) & valid).astype(np.uint8)
    return (rng.normal(size=shape) * 4).astype(np.float32), affinities, valid


def of_the_whole(logits, affinities, valid, clip=CLIP_FRACTION):
    """What the training computes for a sample that is the whole region."""
    scale = balance_scale(affinities, valid, clip)
    sample = [torch.from_numpy(array)[None] for array in (logits, affinities, scale)]
    return float(channel_bce(*sample)), float(channel_dice(*sample))


def test_both_kinds_of_edges_weigh_the_same_in_each_channel():
    _, affinities, valid = region()
    scale = balance_scale(affinities, valid)
    assert scale.dtype == np.float32
    assert not scale[~valid].any()
    for channel in range(3):
        ones = scale[channel][affinities[channel] == 1].sum()
        zeros = scale[channel][valid[channel] & (affinities[channel] == 0)].sum()
        assert ones == pytest.approx(zeros, rel=1e-5)


def test_the_balance_is_limited_and_can_be_switched_off():
    affinities, valid = np.ones((1, 10, 10, 10), np.uint8), np.ones((1, 10, 10, 10), bool)
    affinities[0, 0, 0, 0] = 0
    scale = balance_scale(affinities, valid)
    assert scale[0, 0, 0, 0] / scale[0, 1, 1, 1] == pytest.approx(19, rel=1e-5)
    np.testing.assert_array_equal(balance_scale(affinities, valid, None), valid.astype(np.float32))


@pytest.mark.parametrize("clip", [CLIP_FRACTION, None])
def test_a_region_has_the_loss_of_the_training(clip):
    logits, affinities, valid = region()
    bce, dice = of_the_whole(logits, affinities, valid, clip)
    loss = RegionLoss(3, clip, bce=2.0, dice=0.25)
    loss.add(logits, affinities, valid)
    assert loss.value() == pytest.approx(2 * bce + 0.25 * dice, rel=1e-5)


def test_descriptors_join_with_the_loss_of_the_training():
    rng = np.random.default_rng(3)
    logits, true = rng.normal(size=(10, 4, 5, 6)).astype(np.float32), rng.random((10, 4, 5, 6), np.float32)
    counted = rng.random((4, 5, 6)) > 0.4
    tensors = [torch.from_numpy(array)[None] for array in (logits, true, counted[None])]
    loss = RegionLoss(3, mse=0.5)
    loss.add_descriptors(logits, true, counted)
    assert loss.value() == pytest.approx(0.5 * float(channel_mse(*tensors)), rel=1e-5)


@settings(deadline=None, max_examples=30)
@given(cuts=st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(1, 7)))
def test_the_loss_does_not_depend_on_blocks(cuts):
    logits, affinities, valid = region(2)
    whole, parts = RegionLoss(3), RegionLoss(3)
    whole.add(logits, affinities, valid)
    halves = [(slice(None, cut), slice(cut, None)) for cut in cuts]
    for index in np.ndindex(2, 2, 2):
        place = (slice(None), *(half[i] for half, i in zip(halves, index, strict=True)))
        parts.add(logits[place], affinities[place], valid[place])
    assert parts.value() == pytest.approx(whole.value(), rel=1e-6)


def test_nothing_known_is_0_and_sure_networks_are_finite():
    loss = RegionLoss(1)
    assert loss.value() == 0
    loss.add(np.full((1, 2, 2, 2), np.nan), np.zeros((1, 2, 2, 2), np.uint8), np.zeros((1, 2, 2, 2), bool))
    assert loss.value() == 0
    loss.add(np.full((1, 2, 2, 2), 500.0), np.zeros((1, 2, 2, 2), np.uint8), np.ones((1, 2, 2, 2), bool))
    assert np.isfinite(loss.value())
