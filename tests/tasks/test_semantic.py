"""Balance, loss, decoding and scores of semantic segmentation."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from incasem.errors import DataError
from incasem.tasks import grey_values, semantic_decoding, semantic_loss
from incasem.tasks.region_scores import background
from incasem.tasks.semantic import Semantic

SHAPE = (3, 4, 5)
TERMS = [
    semantic_loss.Terms(),
    semantic_loss.Terms(dice=0.7),
    semantic_loss.Terms(0, bce=1),
    semantic_loss.Terms(0, dice=2),
    semantic_loss.Terms(0.5, bce=0.7, dice=0.3),
]


def labels_and_mask(num_classes):
    return st.tuples(
        hnp.arrays(np.uint8, SHAPE, elements=st.integers(0, num_classes - 1)),
        hnp.arrays(np.uint8, SHAPE, elements=st.integers(0, 1)),
    )


@given(labels_and_mask(3))
def test_the_scale_is_the_published_formula_inside_the_mask_and_0_outside(drawn):
    labels, mask = drawn
    scale = semantic_loss.balance_scale(labels, mask, 3)
    assert scale.dtype == np.float32
    for index in np.ndindex(SHAPE):
        if not mask[index]:
            assert scale[index] == 0
            continue
        fraction = np.mean(labels[mask != 0] == labels[index])
        assert scale[index] == pytest.approx(1 / (3 * np.clip(fraction, 0.01, 0.99)), rel=1e-6)


def test_classes_weigh_the_same_unless_they_are_too_rare():
    labels = np.zeros((10, 10, 10), np.uint8)
    labels[:2] = 1
    scale = semantic_loss.balance_scale(labels, np.ones_like(labels), 2)
    assert scale[labels == 1].sum() == pytest.approx(scale[labels == 0].sum())
    labels[:] = 0
    labels[0, 0, 0] = 1  # 1 in 1000 counts as 1 in 100
    assert semantic_loss.balance_scale(labels, np.ones_like(labels), 2)[0, 0, 0] == pytest.approx(50)


def test_a_masked_out_block_has_no_weight():
    labels = np.ones(SHAPE, np.uint8)
    assert not semantic_loss.balance_scale(labels, np.zeros_like(labels), 2).any()


def test_a_class_beyond_num_classes_is_named():
    with pytest.raises(DataError, match=r"a class in the labels is 2; allowed: 0 to 1\..*num_classes"):
        semantic_loss.balance_scale(np.full(SHAPE, 2, np.uint8), np.ones(SHAPE, np.uint8), 2)


@settings(deadline=None, max_examples=30)
@given(labels_and_mask(3), st.integers(0, SHAPE[0]), st.integers(0, 2**32 - 1), st.sampled_from(TERMS))
def test_the_loss_of_a_region_is_the_training_loss_however_it_is_cut(drawn, cut, seed, terms):
    labels, mask = drawn
    weights = (1.0, 2.0, 0.5)
    logits = np.random.default_rng(seed).normal(0, 3, (3, *SHAPE)).astype(np.float32)
    accumulated = semantic_loss.RegionLoss(3, weights, terms=terms)
    for part in (slice(0, cut), slice(cut, None)):
        accumulated.add(logits[:, part], labels[part], mask[part])
    scale = semantic_loss.balance_scale(labels, mask, 3)
    whole = semantic_loss.loss(
        torch.from_numpy(logits)[None],
        torch.from_numpy(labels.astype(np.int64))[None],
        torch.from_numpy(scale)[None],
        weights,
        terms,
    )
    assert accumulated.value() == pytest.approx(float(whole), rel=1e-5, abs=1e-6)


def batch_of(samples, num_classes, seed=0):
    """Logits, labels and scales of some samples; the last one is masked out."""
    generator = torch.Generator().manual_seed(seed)
    shape = (samples, *SHAPE)
    logits = 3 * torch.randn((samples, num_classes, *SHAPE), generator=generator)
    labels = torch.randint(0, num_classes, shape, generator=generator)
    scale = torch.rand(shape, generator=generator) * (torch.rand(shape, generator=generator) > 0.3)
    scale[-1] = 0
    return logits, labels, scale


@pytest.mark.parametrize("terms", TERMS)
def test_the_parts_of_a_step_add_up_to_the_loss_and_gradient_of_one_batch(terms):
    logits, labels, scale = batch_of(4, 3)
    weights = (1.0, 2.0, 0.5)
    whole = logits.clone().requires_grad_(True)
    expected = semantic_loss.loss(whole, labels, scale, weights, terms)
    expected.backward()
    parts = logits.clone().requires_grad_(True)
    totals = semantic_loss.StepTotals.of([scale[:1], scale[1:]])
    losses = [
        semantic_loss.loss(parts[n], labels[n], scale[n], weights, terms, totals)
        for n in (slice(0, 1), slice(1, 4))
    ]
    sum(losses).backward()
    assert float(sum(losses).detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    torch.testing.assert_close(parts.grad, whole.grad, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("terms", TERMS)
@pytest.mark.parametrize("of_a_step", [False, True])
def test_a_masked_batch_gives_0_whatever_the_network_says(terms, of_a_step):
    logits, labels, scale = batch_of(1, 3)
    logits[:, :, 0] = float("nan")
    logits[:, :, 1] = float("inf")
    logits.requires_grad_(True)
    totals = semantic_loss.StepTotals.of([scale]) if of_a_step else None
    loss = semantic_loss.loss(logits, labels, scale, (1.0, 1.0, 1.0), terms, totals)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0, abs=1e-7)
    assert torch.equal(logits.grad, torch.zeros_like(logits))
    region = semantic_loss.RegionLoss(3, (1.0, 1.0, 1.0), terms=terms)
    region.add(np.zeros((3, *SHAPE), np.float32), labels[0].numpy(), scale[0].numpy())
    assert region.value() == pytest.approx(0, abs=1e-7)


def test_decoding_gives_classes_and_probabilities():
    logits = np.random.default_rng(0).normal(0, 2, (3, *SHAPE)).astype(np.float32)
    exponents = np.exp(logits.astype(np.float64))
    probabilities = exponents / exponents.sum(axis=0)
    decoded = semantic_decoding.decode(logits, "float32")
    assert list(decoded) == ["segmentation", "prob_maps/class_0", "prob_maps/class_1", "prob_maps/class_2"]
    assert decoded["segmentation"].dtype == np.uint8
    np.testing.assert_array_equal(decoded["segmentation"], logits.argmax(axis=0))
    for c in range(3):
        assert decoded[f"prob_maps/class_{c}"].dtype == np.float32
        np.testing.assert_allclose(decoded[f"prob_maps/class_{c}"], probabilities[c], atol=1e-6)
    small = semantic_decoding.decode(torch.from_numpy(logits), "uint8")
    assert list(small) == ["segmentation", "prob_maps/class_1", "prob_maps/class_2"]
    np.testing.assert_array_equal(small["segmentation"], decoded["segmentation"])
    for c in (1, 2):
        assert small[f"prob_maps/class_{c}"].dtype == np.uint8
        assert np.abs(small[f"prob_maps/class_{c}"] - 255 * probabilities[c]).max() <= 0.5 + 1e-4


def test_of_equal_logits_the_lower_class_wins_and_large_ones_do_not_overflow():
    logits = np.array([5.0, 7.0, 7.0, 1e4], np.float32).reshape(4, 1, 1, 1)[:3]
    assert semantic_decoding.decode(logits)["segmentation"].item() == 1
    huge = np.array([-1e4, 1e4], np.float32).reshape(2, 1, 1, 1)
    assert semantic_decoding.decode(huge)["prob_maps/class_1"].item() == 255


def test_what_the_foreground_leaves_is_the_background():
    logits = np.random.default_rng(1).normal(0, 2, (3, *SHAPE)).astype(np.float32)
    stored = semantic_decoding.decode(logits)
    left = background([stored["prob_maps/class_1"], stored["prob_maps/class_2"]])
    exact = semantic_decoding.decode(logits, "float32")["prob_maps/class_0"]
    assert left.dtype == np.uint8
    assert np.abs(left - 255 * exact).max() <= 1 + 1e-3
    assert background([np.full(1, 128, np.uint8)] * 2) == [0]


def test_more_classes_than_a_byte_can_name():
    logits = np.zeros((300, 1, 1, 1), np.float32)
    logits[299] = 1
    decoded = semantic_decoding.decode(logits)
    assert decoded["segmentation"].dtype == np.uint16
    assert decoded["segmentation"].item() == 299


@pytest.mark.parametrize(("dtype", "top"), [(np.uint8, 255), (np.uint16, 65535), (np.float32, 1)])
def test_raw_data_of_each_type_come_to_the_same_range(dtype, top):
    raw = np.array([0, top], dtype)
    normalised = grey_values.normalise(raw)
    assert normalised.dtype == np.float32
    np.testing.assert_allclose(normalised, [-1, 1], atol=1e-6)
    assert raw.dtype == dtype
    assert raw[1] == top  # unchanged


def test_raw_data_without_an_agreed_range_are_refused():
    with pytest.raises(DataError, match="data type of the raw data is int16; allowed: uint8, uint16"):
        grey_values.full_scale(np.dtype(np.int16))


def training_scores(logits, labels, mask):
    found = Semantic(2).training_metrics(logits, labels, mask.float(), mask)
    return {name: value for name, value in found.items() if name.startswith("dice")}


def test_training_scores_count_inside_the_mask_only():
    labels = torch.tensor([[0, 0, 1, 1]]).reshape(1, 1, 1, 4)
    logits = torch.zeros(1, 2, 1, 1, 4)
    logits[0, 1, 0, 0] = torch.tensor([1.0, -1.0, 1.0, -1.0])
    everywhere = training_scores(logits, labels, torch.ones_like(labels))
    assert everywhere == {"dice_class_0_train": 0.5, "dice_class_1_train": 0.5}
    right_only = torch.tensor([0, 1, 1, 0]).reshape(1, 1, 1, 4)
    scores = training_scores(logits, labels, right_only)
    assert scores == {"dice_class_0_train": 1.0, "dice_class_1_train": 1.0}


def test_class_fractions_count_inside_the_mask():
    labels = torch.tensor([0, 1, 1, 1]).reshape(1, 1, 1, 4)
    mask = torch.tensor([1, 1, 0, 0], dtype=torch.uint8).reshape(1, 1, 1, 4)
    found = Semantic(3).training_metrics(torch.zeros(1, 3, 1, 1, 4), labels, mask.float(), mask)
    shares = {name: value for name, value in found.items() if name.startswith("pct")}
    assert shares == {"pct_class_0": 0.5, "pct_class_1": 0.5, "pct_class_2": 0.0}
