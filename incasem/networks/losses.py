"""Losses on voxels, with the masks and scales that the training feed makes."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

DICE_SMOOTHING = 1000.0
"""Voxels. A sample with hardly any foreground otherwise drives the network with a huge gradient."""


def balanced_cross_entropy(
    logits_NCZYX: Tensor,
    labels_NZYX: Tensor,
    scale_NZYX: Tensor,
    class_weights: Sequence[float] | Tensor,
) -> Tensor:
    """Return the published loss ``sum(w[label] * CE * scale) / sum(scale)``, a float32 scalar.

    Args:
        logits_NCZYX: output of the network, any floating type; computed in float32.
        labels_NZYX: integer class of each voxel, 0 … C - 1 wherever the scale is positive.
        scale_NZYX: weight of each voxel, 0 outside the mask (class balance and mask in one array).
        class_weights: one weight a class (`loss.weight`).

    A batch without any weight gives 0 with a gradient of zeros (the published code gave NaN); voxels of
    scale 0 take no part, whatever their labels and logits.
    """
    weights = torch.as_tensor(class_weights, dtype=torch.float32, device=logits_NCZYX.device)
    scale = scale_NZYX.to(torch.float32)
    counts = scale > 0
    labels = torch.where(counts, labels_NZYX, 0).long()
    logits = torch.where(counts.unsqueeze(1), logits_NCZYX.float(), 0.0)
    entropy = functional.cross_entropy(logits, labels, weights, reduction="none")
    total = scale.sum()
    return (entropy * scale).sum() / torch.where(total > 0, total, torch.ones_like(total))


def soft_dice(
    logits_NCZYX: Tensor, labels_NZYX: Tensor, scale_NZYX: Tensor, smoothing: float = DICE_SMOOTHING
) -> Tensor:
    """Return the soft Dice loss of the foreground classes, a float32 scalar from 0 to 1.

    For each class but the background, ``1 - (2 sum(p * g) + s) / (sum(p) + sum(g) + s)`` with the softmax p
    and the truth g over the whole batch; the mean of the classes. It weighs missed and invented voxels as
    the F1 score does (Milletari et al., "V-Net", 3DV 2016).

    Args:
        logits_NCZYX: output of the network, C ≥ 2.
        labels_NZYX: integer class of each voxel, 0 … C - 1 wherever the scale is positive.
        scale_NZYX: voxels that count are positive; how much is not used.
        smoothing: s, in voxels.
    """
    counts = scale_NZYX > 0
    softmax = torch.where(counts.unsqueeze(1), logits_NCZYX.float().softmax(dim=1), 0.0)
    losses = []
    for index in range(1, logits_NCZYX.shape[1]):
        p = softmax[:, index]
        truth = (counts & (labels_NZYX == index)).to(torch.float32)
        losses.append(dice_of_sums((p * truth).sum(), p.sum(), truth.sum(), smoothing))
    return torch.stack(losses).mean()


def dice_of_sums(both: Any, predicted: Any, true: Any, smoothing: float = DICE_SMOOTHING) -> Any:
    """Return the soft Dice loss of one class from its three sums (numbers or tensors, voxels)."""
    return 1 - (2 * both + smoothing) / (predicted + true + smoothing)
