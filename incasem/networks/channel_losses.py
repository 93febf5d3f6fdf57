"""Losses of channels that do not exclude one another: edges (binary) and descriptors (numbers from 0 to 1).

The network gives a logit for each; its sigmoid is compared with the target. As in `losses`, each is a sum
divided by what stands for its number; ``total`` gives that number for a step of several batches, whose losses
then add up to that of one large batch, and so do their gradients. Voxels of scale 0 take no part, whatever
they hold, and a batch without any other gives 0 with a gradient of zeros.
"""

import torch
from torch import Tensor
from torch.nn import functional

from incasem.networks.losses import DICE_SMOOTHING, dice_of_sums, divided


def channel_bce(
    logits_NKZYX: Tensor, targets_NKZYX: Tensor, scale_NKZYX: Tensor, total: float | None = None
) -> Tensor:
    """Return ``sum(BCE * scale) / sum(scale)``, the weighted binary cross-entropy, a float32 scalar.

    Args:
        logits_NKZYX: output of the network, any floating type; computed in float32.
        targets_NKZYX: 0 or 1, any type.
        scale_NKZYX: weight of each channel in each voxel, not negative.
        total: sum of the scales of the whole step; None: of this batch.
    """
    scale, logits, targets = _counted(logits_NKZYX, targets_NKZYX, scale_NKZYX)
    entropy = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return divided((entropy * scale).sum(), scale.sum() if total is None else total)


def channel_dice(
    logits_NKZYX: Tensor,
    targets_NKZYX: Tensor,
    scale_NKZYX: Tensor,
    smoothing: float = DICE_SMOOTHING,
    total: int | None = None,
) -> Tensor:
    """Return the soft Dice loss of the samples, each over all its channels at once, a float32 scalar.

    ``1 - (2 sum(p * g) + s) / (sum(p) + sum(g) + s)`` with the sigmoid p and the target g, as in PyTorch
    Connectomics; the mean of the samples.

    Args:
        logits_NKZYX: output of the network.
        targets_NKZYX: 0 or 1, any type.
        scale_NKZYX: what counts is positive; how much is not used.
        smoothing: s, in voxels.
        total: samples of the whole step; None: of this batch.
    """
    scale, logits, targets = _counted(logits_NKZYX, targets_NKZYX, scale_NKZYX)
    # Twice (see `_counted`): the sigmoid of what does not count is not 0.
    predicted = torch.where(scale > 0, logits.sigmoid(), 0.0)
    both, predicted, true = (array.flatten(1).sum(1) for array in (predicted * targets, predicted, targets))
    losses: Tensor = dice_of_sums(both, predicted, true, smoothing)
    return losses.mean() if total is None else losses.sum() / total


def channel_mse(
    logits_NKZYX: Tensor, targets_NKZYX: Tensor, scale_NKZYX: Tensor, total: float | None = None
) -> Tensor:
    """Return ``sum((sigmoid - target)² * scale) / sum(scale)``, a float32 scalar.

    Args:
        logits_NKZYX: output of the network.
        targets_NKZYX: numbers from 0 to 1.
        scale_NKZYX: weight of each channel in each voxel, not negative; one channel (N, 1, Z, Y, X) stands
            for all.
        total: sum of the scales of the whole step, over all channels; None: of this batch.
    """
    scale, logits, targets = _counted(logits_NKZYX, targets_NKZYX, scale_NKZYX.expand_as(logits_NKZYX))
    squares = (logits.sigmoid() - targets).square()
    return divided((squares * scale).sum(), scale.sum() if total is None else total)


def _counted(logits: Tensor, targets: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return scale, logits and targets in float32, the last two 0 where nothing counts, NaN included."""
    scale = scale.to(torch.float32)
    counts = scale > 0
    return scale, torch.where(counts, logits.float(), 0.0), torch.where(counts, targets.float(), 0.0)
