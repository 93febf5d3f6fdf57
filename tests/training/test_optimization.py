"""The learning rate and the averages of the weights."""

import copy

import pytest
import torch

from incasem.networks import Unet
from incasem.training.optimization import EqualAverage, MovingAverage, learning_rate


def test_constant_by_default():
    assert [learning_rate(3e-5, "none", i, 10) for i in (0, 5, 10)] == [3e-5] * 3


def test_a_rise_and_half_a_cosine():
    rates = [learning_rate(1.0, "cosine", i, 1000) for i in range(1001)]
    assert rates[:50] == sorted(rates[:50])
    assert rates[0] == pytest.approx(0.02)
    assert max(rates) == pytest.approx(1, abs=0.01)
    assert rates[525] == pytest.approx(0.5, abs=0.01)
    assert rates[1000] == pytest.approx(0)
    assert rates[51:] == sorted(rates[51:], reverse=True)


def test_a_fall_by_a_power():
    rates = [learning_rate(2.0, "poly", i, 9) for i in range(10)]
    assert rates == pytest.approx([2 * (1 - i / 10) ** 0.9 for i in range(10)])
    assert learning_rate(2.0, "poly", 12, 9) == 0, "beyond the end, as when a run continues with fewer"


@pytest.mark.parametrize("schedule", ["cosine", "poly"])
def test_a_training_of_one_step(schedule):
    assert learning_rate(1.0, schedule, 0, 0) == 1


def test_the_average_follows_and_stays_behind():
    torch.manual_seed(0)
    network = Unet(num_fmaps=1, downsample_factors=((2, 2, 2),))
    average = MovingAverage(copy.deepcopy(network), 0.5)
    expected = [p.detach().clone() for p in network.parameters()]
    for iteration in range(40):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter += 1
        average.update(network, iteration)
        decay = min(0.5, (1 + iteration) / (10 + iteration))
        for mean, parameter in zip(expected, network.parameters(), strict=True):
            mean.mul_(decay).add_(parameter.detach(), alpha=1 - decay)
    for mean, parameter in zip(expected, average.network.parameters(), strict=True):
        torch.testing.assert_close(mean, parameter)
    first, last = next(average.network.parameters()), next(network.parameters())
    torch.testing.assert_close(last - first, torch.ones_like(first), rtol=0, atol=0.01)


def test_the_equal_average_begins_where_it_is_told():
    torch.manual_seed(0)
    network = Unet(num_fmaps=1, downsample_factors=((2, 2, 2),))
    average = EqualAverage(copy.deepcopy(network), first=3)
    seen = []
    for iteration in range(8):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter += torch.randn(())
        average.update(network, iteration)
        seen.append(next(network.parameters()).detach().clone())
        expected = torch.stack(seen[3:]).mean(dim=0) if iteration >= 3 else seen[-1]
        torch.testing.assert_close(next(average.network.parameters()), expected)
        assert iteration > 3 or torch.equal(next(average.network.parameters()), seen[-1])
