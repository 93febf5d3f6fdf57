import numpy as np
import pytest
import torch

from incasem.networks import channel_bce, channel_dice, channel_mse

LOSSES = [channel_bce, channel_dice, channel_mse]


def arrays(seed=0, shape=(2, 3, 3, 4, 5)):
    rng = np.random.default_rng(seed)
    scale = rng.random(shape) * (rng.random(shape) > 0.3)
    return rng.normal(size=shape) * 3, rng.integers(0, 2, shape), scale


def tensors(*args, **kwargs):
    logits, targets, scale = arrays(*args, **kwargs)
    return torch.tensor(logits, dtype=torch.float32), torch.tensor(targets), torch.tensor(scale)


def test_bce_equals_the_formula():
    logits, targets, scale = arrays()
    p = 1 / (1 + np.exp(-logits))
    entropy = -np.where(targets, np.log(p), np.log(1 - p))
    loss = channel_bce(torch.tensor(logits), torch.tensor(targets), torch.tensor(scale))
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx((entropy * scale).sum() / scale.sum(), rel=1e-5)


def test_dice_equals_the_formula():
    logits, targets, scale = arrays()
    p = 1 / (1 + np.exp(-logits))
    expected = []
    for n in range(len(p)):
        own, true = p[n][scale[n] > 0], targets[n][scale[n] > 0]
        expected.append(1 - (2 * (own * true).sum() + 7) / (own.sum() + true.sum() + 7))
    loss = channel_dice(torch.tensor(logits), torch.tensor(targets), torch.tensor(scale), 7)
    assert float(loss) == pytest.approx(np.mean(expected), rel=1e-5)


def test_mse_equals_the_formula_and_one_scale_stands_for_all_channels():
    logits, _, scale = arrays()
    targets = np.random.default_rng(1).random(logits.shape)
    squares = (1 / (1 + np.exp(-logits)) - targets) ** 2
    loss = channel_mse(torch.tensor(logits), torch.tensor(targets), torch.tensor(scale))
    assert float(loss) == pytest.approx((squares * scale).sum() / scale.sum(), rel=1e-5)
    shared = channel_mse(torch.tensor(logits), torch.tensor(targets), torch.tensor(scale[:, :1]))
    expected = (squares * scale[:, :1]).sum() / scale[:, :1].sum() / 3
    assert float(shared) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("function", LOSSES)
def test_parts_of_a_step_add_up_to_one_batch(function):
    logits, targets, scale = tensors()
    logits.requires_grad_(True)
    whole = function(logits, targets, scale)
    (gradient,) = torch.autograd.grad(whole, logits)
    total = len(logits) if function is channel_dice else float(scale.sum())
    parts = [function(logits[n : n + 1], targets[n : n + 1], scale[n : n + 1], total=total) for n in (0, 1)]
    (added,) = torch.autograd.grad(parts[0] + parts[1], logits)
    assert float(sum(parts).detach()) == pytest.approx(float(whole.detach()), rel=1e-6)
    torch.testing.assert_close(added, gradient)


@pytest.mark.parametrize("total", [None, 0])
@pytest.mark.parametrize("function", [channel_bce, channel_mse])
def test_nothing_counted_gives_0_without_a_gradient(function, total):
    logits = torch.randn(1, 2, 3, 3, 3, requires_grad=True)
    loss = function(logits, torch.ones(1, 2, 3, 3, 3), torch.zeros(1, 2, 3, 3, 3), total=total)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_dice_of_nothing_counted_is_0_without_a_gradient():
    logits = torch.randn(1, 2, 3, 3, 3, requires_grad=True)
    loss = channel_dice(logits, torch.ones(1, 2, 3, 3, 3), torch.zeros(1, 2, 3, 3, 3))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize("function", LOSSES)
def test_what_does_not_count_takes_no_part_whatever_it_holds(function):
    logits, targets, scale = tensors()
    targets = targets.float()
    scale[..., 0] = 0
    clean = function(logits, targets, scale)
    logits[..., 0] = float("nan")
    targets[..., 0] = float("inf")
    logits.requires_grad_(True)
    loss = function(logits, targets, scale)
    loss.backward()
    assert torch.equal(loss.detach(), clean)
    assert torch.isfinite(logits.grad).all()
    assert not logits.grad[..., 0].any()


@pytest.mark.parametrize("function", LOSSES)
def test_sure_networks_and_low_precision_are_finite(function):
    _, targets, scale = tensors()
    logits = torch.where(targets.bool(), -500.0, 500.0).bfloat16().requires_grad_(True)
    loss = function(logits, targets, scale)
    loss.backward()
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()
