"""The optimizer and its learning rate."""

import math

import torch


def make_optimizer(network: torch.nn.Module, lr: float, weight_decay: float) -> torch.optim.Adam:
    """Return the published optimizer: Adam with L2 regularisation by ``weight_decay``."""
    return torch.optim.Adam(network.parameters(), lr=lr, weight_decay=weight_decay)


def learning_rate(base: float, schedule: str, iteration: int, iterations: int) -> float:
    """Return the learning rate of an iteration: constant, or half a cosine from ``base`` to 0.

    It depends on the iteration alone, so a resumed run needs no state of a schedule.
    """
    if schedule == "none":
        return base
    return 0.5 * base * (1 + math.cos(math.pi * min(iteration, iterations) / max(iterations, 1)))


def set_learning_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    """Set the learning rate of all parameter groups."""
    for group in optimizer.param_groups:
        group["lr"] = value
