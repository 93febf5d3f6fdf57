"""The learning rate and the moving average of the weights."""

import copy

import pytest
import torch

from incasem.networks import Unet
from incasem.training.optimization import WeightAverage, learning_rate


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


def test_a_training_of_one_step():
    assert learning_rate(1.0, "cosine", 0, 0) == 1


def test_the_average_follows_and_stays_behind():
    torch.manual_seed(0)
    network = Unet(num_fmaps=1, downsample_factors=((2, 2, 2),))
    average = WeightAverage(copy.deepcopy(network), 0.5)
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
