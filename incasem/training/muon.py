"""Muon: steps of even size in all directions of a layer's filters.

Adam looks at each weight by itself. A few directions that its filters share dominate the gradient of a
convolution, and Adam follows these; what is rare in the data is learnt late. Muon makes the matrix of the
gradient orthogonal, so that every direction moves as far: Jordan et al., "Muon: an optimizer for hidden
layers in neural networks", 2024.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

_STEPS = 5
_QUINTIC = (3.4445, -4.7750, 2.0315)
"""Of the Newton–Schulz iteration by Jordan et al.: singular values of any size go to 0.7 … 1.2."""
_LIKE_ADAM = 0.2
"""Root mean square of Adam's updates, so that both take the same learning rate (Liu et al., "Muon is scalable
for LLM training", 2025)."""


class Muon(torch.optim.Adam):
    """Muon for the filters of hidden layers, Adam for all other parameters.

    Its state goes into checkpoints as Adam's does, in two parameter groups.

    Args:
        filters: (out, in, z, y, x), or (in, out, z, y, x) of a transposed convolution.
        others: all other parameters.
        lr: for both.
        weight_decay: added to the gradient (L2) for Adam; filters shrink by ``lr * weight_decay`` a step,
            since the size of their gradient has no say.
        momentum: of the filters' gradient, with Nesterov's look ahead.
    """

    def __init__(
        self,
        filters: Sequence[nn.Parameter],
        others: Sequence[nn.Parameter],
        lr: float,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
    ) -> None:
        groups: list[dict[str, Any]] = [
            {"params": list(filters), "momentum": momentum},
            {"params": list(others)},
        ]
        super().__init__(groups, lr=lr, weight_decay=weight_decay)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step. The filters' gradients are gone afterwards, since Adam steps over what has none."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        filters = self.param_groups[0]
        for parameter in filters["params"]:
            if parameter.grad is not None:
                self._step_filters(parameter, parameter.grad, filters)
                parameter.grad = None
        super().step()
        return loss

    @torch.no_grad()
    def _step_filters(self, weight: nn.Parameter, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        if not state:
            # Adam's names, by which checkpoints are read and checked.
            state["step"] = torch.tensor(0.0)
            state["exp_avg"] = torch.zeros_like(weight)
        state["step"] += 1
        mean, momentum = state["exp_avg"], group["momentum"]
        mean.lerp_(gradient, 1 - momentum)
        ahead = gradient.lerp(mean, momentum).reshape(weight.shape[0], -1)
        size = _LIKE_ADAM * max(ahead.shape) ** 0.5
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.add_(orthogonal(ahead).reshape(weight.shape), alpha=-group["lr"] * size)


def orthogonal(matrix: Tensor) -> Tensor:
    """Return ``matrix`` (n, m) with all its singular values brought near 1, in its own dtype.

    By Newton–Schulz iterations in bfloat16, which costs a few matrix products. A matrix of zeros stays one.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    flat = (matrix.T if tall else matrix).bfloat16()
    flat = flat / (flat.norm() + 1e-12)
    a, b, c = _QUINTIC
    for _ in range(_STEPS):
        gram = flat @ flat.T
        flat = a * flat + (b * gram + c * gram @ gram) @ flat
    return (flat.T if tall else flat).to(matrix.dtype)
