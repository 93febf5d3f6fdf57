"""The optimizer, its learning rate, and averages of the weights."""

import math
from abc import ABC, abstractmethod

import torch

from incasem.config.training import Optimizer, Training
from incasem.networks import ValidNetwork, learnt_filters, plain_state
from incasem.training.muon import Muon


def make_optimizer(network: torch.nn.Module, settings: Optimizer) -> torch.optim.Adam:
    """Return the published optimizer, Adam with L2 regularisation, or `Muon`."""
    if settings.type == "adam":
        return torch.optim.Adam(network.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
    # The first and the last layer have a few rows or columns only: Adam's, as Muon's authors advise.
    filters = learnt_filters(network)[1:-1]
    hidden = {id(parameter) for parameter in filters}
    others = [parameter for parameter in network.parameters() if id(parameter) not in hidden]
    return Muon(filters, others, settings.lr, settings.weight_decay)


WARM_UP = 0.05  # of all iterations
POWER = 0.9  # of `poly`


def learning_rate(base: float, schedule: str, iteration: int, iterations: int) -> float:
    """Return the learning rate of an iteration.

    It depends on the iteration alone, so a resumed run needs no state of a schedule.

    Args:
        base: the largest one.
        schedule: ``none``: constant, as published; ``cosine``: a linear rise over the first twentieth of the
            iterations, then half a cosine down to 0 (Loshchilov & Hutter, "SGDR", ICLR 2017); ``poly``: a
            fall to 0 by ``(1 - done) ** 0.9`` (Chen et al., "DeepLab", 2017; nnU-Net's schedule).
        iteration: from 0.
        iterations: of the whole training.
    """
    if schedule == "none":
        return base
    if schedule == "poly":
        return base * max(1 - iteration / (iterations + 1), 0.0) ** POWER
    warm_up = WARM_UP * iterations
    rise = min(1.0, (iteration + 1) / max(warm_up, 1.0))
    done = max(iteration - warm_up, 0.0) / max(iterations - warm_up, 1.0)
    return rise * 0.5 * base * (1 + math.cos(math.pi * min(done, 1.0)))


def set_learning_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    """Set the learning rate of all parameter groups."""
    for group in optimizer.param_groups:
        group["lr"] = value


class WeightAverage(ABC):
    """An average of a network's weights over the steps, which predicts better than any of its members.

    It depends on the iteration alone besides the weights, so a resumed run needs no state of it.

    Args:
        network: plain, not standardised; becomes the average.
    """

    def __init__(self, network: ValidNetwork) -> None:
        self.network = network.requires_grad_(False)

    @abstractmethod
    def share(self, iteration: int) -> float:
        """Return how much of the average the weights after the step of ``iteration`` become, up to 1."""

    @torch.no_grad()
    def update(self, network: ValidNetwork, iteration: int) -> None:
        """Take in the weights after the step of ``iteration``."""
        share = self.share(iteration)
        state = plain_state(network)
        for name, mean in self.network.named_parameters():
            mean.lerp_(state[name], share)


class MovingAverage(WeightAverage):
    """The exponential moving average.

    The decay of the first steps is smaller, (1 + t) / (10 + t), so that the random initial weights are soon
    forgotten (Tarvainen & Valpola, "Mean teachers", NeurIPS 2017, use such a ramp).

    Args:
        network: see `WeightAverage`.
        decay: of later steps, below 1.
    """

    def __init__(self, network: ValidNetwork, decay: float) -> None:
        super().__init__(network)
        self._decay = decay

    def share(self, iteration: int) -> float:
        """Return 1 - the decay of ``iteration``."""
        return 1 - min(self._decay, (1 + iteration) / (10 + iteration))


class EqualAverage(WeightAverage):
    """The equal average of all steps from one on; before it, just the weights.

    Izmailov et al., "Averaging weights leads to wider optima and better generalization", UAI 2018.

    Args:
        network: see `WeightAverage`.
        first: the first iteration that counts.
    """

    def __init__(self, network: ValidNetwork, first: int) -> None:
        super().__init__(network)
        self._first = first

    def share(self, iteration: int) -> float:
        """Return one part of as many as there were steps since the first."""
        return 1 / max(iteration - self._first + 1, 1)


def weight_average(network: ValidNetwork, settings: Training) -> WeightAverage | None:
    """Return the average that the settings ask for, if any: of `ema_decay` or `swa_start`."""
    if settings.ema_decay is not None:
        return MovingAverage(network, settings.ema_decay)
    if settings.swa_start is not None:
        return EqualAverage(network, settings.swa_start)
    return None
