import numpy as np
import pytest
import torch

from incasem.networks import balanced_cross_entropy, soft_dice, weighted_bce


def _plain(logits, labels, scale, weights):
    """The published formula, written out in numpy float64."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    total = 0.0
    for index in np.ndindex(labels.shape):
        label = labels[index]
        total -= weights[label] * log_probabilities[(index[0], label, *index[1:])] * scale[index]
    return total / scale.sum()


@pytest.mark.parametrize("classes", [2, 3])
def test_equals_the_formula(classes):
    rng = np.random.default_rng(classes)
    logits = rng.normal(size=(2, classes, 3, 4, 5)) * 3
    labels = rng.integers(0, classes, size=(2, 3, 4, 5))
    scale = rng.random((2, 3, 4, 5)) * (rng.random((2, 3, 4, 5)) > 0.3)
    weights = rng.random(classes) + 0.5
    loss = balanced_cross_entropy(
        torch.tensor(logits, dtype=torch.float32),
        torch.tensor(labels),
        torch.tensor(scale),
        weights.tolist(),
    )
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(_plain(logits, labels, scale, weights), rel=1e-5)


def _dice(logits, labels, scale, _weights):
    return soft_dice(logits, labels, scale)


def test_low_precision_logits_are_computed_in_float32():
    logits = torch.randn(1, 2, 4, 4, 4)
    labels = torch.randint(0, 2, (1, 4, 4, 4))
    scale = torch.ones(1, 4, 4, 4)
    low = balanced_cross_entropy(logits.bfloat16(), labels, scale, [1.0, 1.0])
    exact = balanced_cross_entropy(logits.bfloat16().float(), labels, scale, [1.0, 1.0])
    assert low.dtype == torch.float32
    assert torch.equal(low, exact)


def test_fully_masked_block_gives_zero_and_no_gradient():
    logits = torch.randn(1, 2, 3, 3, 3, requires_grad=True)
    loss = balanced_cross_entropy(
        logits, torch.zeros(1, 3, 3, 3, dtype=torch.long), torch.zeros(1, 3, 3, 3), [1.0, 1.0]
    )
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize("function", [balanced_cross_entropy, weighted_bce, _dice])
def test_masked_voxels_take_no_part_whatever_they_hold(function):
    logits = torch.randn(1, 2, 2, 2, 2)
    labels = torch.randint(0, 2, (1, 2, 2, 2))
    scale = torch.ones(1, 2, 2, 2)
    scale[..., 0] = 0
    clean = function(logits, labels, scale, [1.0, 2.0])
    logits[..., 0] = float("nan")
    labels[..., 0] = 255
    logits.requires_grad_(True)
    loss = function(logits, labels, scale, [1.0, 2.0])
    loss.backward()
    assert torch.equal(loss.detach(), clean)
    assert torch.isfinite(logits.grad).all()
    assert not logits.grad[..., 0].any()


@pytest.mark.parametrize("classes", [2, 4])
def test_weighted_bce_equals_the_formula(classes):
    rng = np.random.default_rng(classes)
    logits = rng.normal(size=(2, classes, 3, 4, 5)) * 3
    labels = rng.integers(0, classes, size=(2, 3, 4, 5))
    counts = rng.random(labels.shape) > 0.3
    weights = rng.random(classes) + 0.5
    exponents = np.exp(logits)
    softmax = exponents / exponents.sum(axis=1, keepdims=True)
    expected = []
    for c in range(1, classes):
        p, truth = softmax[:, c][counts], (labels == c)[counts]
        expected.append(-np.where(truth, weights[c] * np.log(p), weights[0] * np.log(1 - p)).mean())
    scale = torch.tensor(counts * (0.1 + rng.random(labels.shape)))
    loss = weighted_bce(torch.tensor(logits), torch.tensor(labels), scale, weights.tolist())
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(np.mean(expected), rel=1e-5)


def test_weighted_bce_of_sure_networks_is_finite():
    logits = torch.tensor([-500.0, 500.0, 0.0]).reshape(1, 3, 1, 1, 1).requires_grad_(True)
    loss = weighted_bce(logits, torch.zeros(1, 1, 1, 1, dtype=torch.long), torch.ones(1, 1, 1, 1), [1.0] * 3)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(500 / 2)
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("classes", [2, 4])
def test_soft_dice_equals_the_formula(classes):
    rng = np.random.default_rng(classes)
    logits = rng.normal(size=(2, classes, 3, 4, 5)) * 3
    labels = rng.integers(0, classes, size=(2, 3, 4, 5))
    counts = rng.random(labels.shape) > 0.3
    exponents = np.exp(logits)
    softmax = exponents / exponents.sum(axis=1, keepdims=True)
    expected = []
    for n, c in np.ndindex(len(labels), classes):
        if c == 0:
            continue
        p, truth = softmax[n, c][counts[n]], (labels[n] == c)[counts[n]]
        expected.append(1 - (2 * (p * truth).sum() + 7) / (p.sum() + truth.sum() + 7))
    loss = soft_dice(
        torch.tensor(logits), torch.tensor(labels), torch.tensor(counts * rng.random(labels.shape)), 7
    )
    assert float(loss) == pytest.approx(np.mean(expected), rel=1e-5)


def test_soft_dice_of_a_masked_block_is_0_without_a_gradient():
    logits = torch.randn(1, 2, 3, 3, 3, requires_grad=True)
    loss = soft_dice(logits, torch.ones(1, 3, 3, 3, dtype=torch.long), torch.zeros(1, 3, 3, 3))
    loss.backward()
    assert loss.item() == pytest.approx(0)
    assert not logits.grad.any()


def test_soft_dice_falls_from_nothing_right_to_everything_right():
    labels = torch.zeros(1, 20, 20, 20, dtype=torch.long)
    labels[:, :10] = 1
    right = torch.nn.functional.one_hot(labels, 2).movedim(-1, 1).float() * 200 - 100
    scale = torch.ones(1, 20, 20, 20)
    assert float(soft_dice(right, labels, scale, 1)) == pytest.approx(0, abs=1e-6)
    assert float(soft_dice(-right, labels, scale, 1)) > 0.999
