"""The optimizer, its learning rate, and the moving average of the weights."""

import math

import torch

from incasem.networks import ValidNetwork, plain_state


def make_optimizer(network: torch.nn.Module, lr: float, weight_decay: float) -> torch.optim.Adam:
    """Return the published optimizer: Adam with L2 regularisation by ``weight_decay``."""
    return torch.optim.Adam(network.parameters(), lr=lr, weight_decay=weight_decay)


WARM_UP = 0.05  # of all iterations


def learning_rate(base: float, schedule: str, iteration: int, iterations: int) -> float:
    """Return the learning rate of an iteration.

    It depends on the iteration alone, so a resumed run needs no state of a schedule.

    Args:
        base: the largest one.
        schedule: ``none``: constant, as published; ``cosine``: a linear rise over the first twentieth of the
            iterations, then half a cosine down to 0 (Loshchilov & Hutter, "SGDR", ICLR 2017).
        iteration: from 0.
        iterations: of the whole training.
    """
    if schedule == "none":
        return base
    warm_up = WARM_UP * iterations
    rise = min(1.0, (iteration + 1) / max(warm_up, 1.0))
    done = max(iteration - warm_up, 0.0) / max(iterations - warm_up, 1.0)
    return rise * 0.5 * base * (1 + math.cos(math.pi * min(done, 1.0)))


def set_learning_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    """Set the learning rate of all parameter groups."""
    for group in optimizer.param_groups:
        group["lr"] = value


class WeightAverage:
    """An exponential moving average of a network's weights, which predicts better than any of its members.

    The decay of the first steps is smaller, (1 + t) / (10 + t), so that the random initial weights are soon
    forgotten (Tarvainen & Valpola, "Mean teachers", NeurIPS 2017, use such a ramp).

    Args:
        network: plain, not standardised; becomes the average.
        decay: of later steps, below 1.
    """

    def __init__(self, network: ValidNetwork, decay: float) -> None:
        self.network = network.requires_grad_(False)
        self._decay = decay

    @torch.no_grad()
    def update(self, network: ValidNetwork, iteration: int) -> None:
        """Take in the weights after the step of ``iteration``."""
        decay = min(self._decay, (1 + iteration) / (10 + iteration))
        state = plain_state(network)
        for name, mean in self.network.named_parameters():
            mean.lerp_(state[name], 1 - decay)
