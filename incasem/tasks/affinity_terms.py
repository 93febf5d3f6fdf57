"""What the loss of affinities is summed of, for a batch, for a part of a step, and for a region."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from incasem.tasks.affinity_losses import RegionLoss

if TYPE_CHECKING:
    import torch

    from incasem.config.training import Loss


@dataclass(frozen=True)
class Terms:
    """The weights with which losses are added up.

    SNEMI3D's published loss is a balanced cross-entropy of 1 and a Dice loss of 0.5.

    Attributes:
        cross_entropy: of `networks.channel_bce` with the balance of each channel.
        bce: of `networks.channel_bce` in which all known edges weigh the same.
        dice: of `networks.channel_dice`.
        descriptor: of `networks.channel_mse`, of the descriptors.
    """

    cross_entropy: float = 1.0
    bce: float = 0.0
    dice: float = 0.0
    descriptor: float = 1.0

    @classmethod
    def of(cls, settings: "Loss") -> Self:
        """Return what the settings say."""
        return cls(
            settings.cross_entropy_weight,
            settings.bce_weight,
            settings.dice_weight,
            settings.descriptor_weight,
        )


PUBLISHED = Terms(dice=0.5)


def step_totals(scales_NKZYX: "Iterable[torch.Tensor]", num_edges: int) -> list[float]:
    """Return what the losses of a step are divided by: sums of some batches, which add up over processes.

    Returns:
        sum of the scale of the edges, known edges, sum of the scale of the descriptors, samples.
    """
    totals = [0.0, 0.0, 0.0, 0.0]
    for scale in scales_NKZYX:
        edges, descriptors = scale[:, :num_edges], scale[:, num_edges:]
        own = (float(edges.sum()), int((edges > 0).sum()), float(descriptors.sum()), len(scale))
        totals = [total + value for total, value in zip(totals, own, strict=True)]
    return totals


def loss(
    logits_NCZYX: "torch.Tensor",
    target_NCZYX: "torch.Tensor",
    scale_NCZYX: "torch.Tensor",
    num_edges: int,
    terms: Terms,
    totals: Sequence[float] | None = None,
) -> "torch.Tensor":
    """Return the training loss of a batch, a scalar: the weighted sum of `terms`.

    Args:
        logits_NCZYX: output of the network: edges, then descriptors if there are any.
        target_NCZYX, scale_NCZYX: see `affinities.Affinities.target`.
        num_edges: channels of edges.
        terms: at least one of the first three is not 0.
        totals: see `step_totals`; None: the batch is the whole step.
    """
    from incasem.networks import channel_bce, channel_dice, channel_mse

    edges = slice(0, num_edges)
    logits, target, scale = logits_NCZYX[:, edges], target_NCZYX[:, edges], scale_NCZYX[:, edges]
    of_scale, known, of_descriptors, samples = totals if totals is not None else (None,) * 4
    summands = []
    if terms.cross_entropy:
        summands.append(terms.cross_entropy * channel_bce(logits, target, scale, total=of_scale))
    if terms.bce:
        summands.append(terms.bce * channel_bce(logits, target, (scale > 0).to(scale.dtype), total=known))
    if terms.dice:
        total = None if samples is None else int(samples)
        summands.append(terms.dice * channel_dice(logits, target, scale, total=total))
    if logits_NCZYX.shape[1] > num_edges:
        rest = slice(num_edges, None)
        logits, target, scale = logits_NCZYX[:, rest], target_NCZYX[:, rest], scale_NCZYX[:, rest]
        summands.append(terms.descriptor * channel_mse(logits, target, scale, total=of_descriptors))
    return sum(summands[1:], summands[0])


class AffinityRegionLoss:
    """The training loss of a whole region, from its blocks; see `tasks.task.RegionLoss`.

    Args:
        num_edges: channels of edges.
        clip: `loss.balance_labels`.
        terms: see `loss`.
    """

    def __init__(self, num_edges: int, clip: tuple[float, float], terms: Terms) -> None:
        self._num_edges = num_edges
        weights = {"dice": terms.dice, "mse": terms.descriptor}
        self._parts = [RegionLoss(num_edges, clip, bce=terms.cross_entropy, **weights)]
        if terms.bce:
            self._parts.append(RegionLoss(num_edges, None, bce=terms.bce, dice=0.0, mse=0.0))

    def add(
        self, outputs_CZYX: NDArray[np.floating[Any]], target: NDArray[Any], learnt: NDArray[Any]
    ) -> None:
        """Count one block."""
        edges = self._num_edges
        for part in self._parts:
            part.add(outputs_CZYX[:edges], target[:edges], learnt[:edges])
        if len(outputs_CZYX) > edges:
            self._parts[0].add_descriptors(outputs_CZYX[edges:], target[edges:], learnt[edges])

    def value(self) -> float:
        """Return the weighted sum of the terms; 0 for each of which nothing counted."""
        return sum(part.value() for part in self._parts)
