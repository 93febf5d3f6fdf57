"""Losses on voxels, with the masks and scales that the training feed makes.

Each is a sum over voxels or samples, divided by what stands for their number. Where a step consists of
several batches, ``total`` gives that number for the whole step: the losses of the batches then add up to the
loss of one large batch, and so do their gradients.
"""

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
    total: float | None = None,
) -> Tensor:
    """Return the published loss ``sum(w[label] * CE * scale) / sum(scale)``, a float32 scalar.

    Args:
        logits_NCZYX: output of the network, any floating type; computed in float32.
        labels_NZYX: integer class of each voxel, 0 … C - 1 wherever the scale is positive.
        scale_NZYX: weight of each voxel, 0 outside the mask (class balance and mask in one array).
        class_weights: one weight a class (`loss.weight`).
        total: sum of the scales of the whole step; None: of this batch.

    A batch without any weight gives 0 with a gradient of zeros (the published code gave NaN); voxels of
    scale 0 take no part, whatever their labels and logits.
    """
    weights = torch.as_tensor(class_weights, dtype=torch.float32, device=logits_NCZYX.device)
    scale = scale_NZYX.to(torch.float32)
    counts = scale > 0
    labels = torch.where(counts, labels_NZYX, 0).long()
    logits = torch.where(counts.unsqueeze(1), logits_NCZYX.float(), 0.0)
    entropy = functional.cross_entropy(logits, labels, weights, reduction="none")
    return divided((entropy * scale).sum(), scale.sum() if total is None else total)


def weighted_bce(
    logits_NCZYX: Tensor,
    labels_NZYX: Tensor,
    scale_NZYX: Tensor,
    class_weights: Sequence[float] | Tensor,
    total: float | None = None,
) -> Tensor:
    """Return the weighted binary cross-entropy of the foreground classes, a float32 scalar.

    For each class c but the background, with the softmax p, ``-w[c] log(p[c])`` in voxels of the class and
    ``-w[0] log(1 - p[c])`` in all others; the mean of the voxels that count and of the classes. Unlike
    `balanced_cross_entropy` the weights are the same in all samples, whatever they hold: with equal weights
    the probabilities are calibrated. With two classes it is the cross-entropy with class weights.

    Args:
        logits_NCZYX: output of the network, C ≥ 2.
        labels_NZYX: integer class of each voxel, 0 … C - 1 wherever the scale is positive.
        scale_NZYX: voxels that count are positive; how much is not used.
        class_weights: one weight a class (`loss.weight`); the background's is that of the negatives.
        total: how many voxels of the whole step count; None: of this batch.

    A batch in which nothing counts gives 0 with a gradient of zeros.
    """
    counts = scale_NZYX > 0
    weights = torch.as_tensor(class_weights, dtype=torch.float32, device=logits_NCZYX.device)
    logits = torch.where(counts.unsqueeze(1), logits_NCZYX.float(), 0.0)
    log_probabilities = logits.log_softmax(dim=1)
    classes = range(logits.shape[1])
    loss = logits.new_zeros(())
    for index in classes[1:]:
        others = torch.logsumexp(log_probabilities[:, [c for c in classes if c != index]], dim=1)
        own = labels_NZYX == index
        terms = torch.where(own, weights[index] * log_probabilities[:, index], weights[0] * others)
        loss = loss - torch.where(counts, terms, 0.0).sum()
    return divided(loss, counts.sum() if total is None else total) / (len(classes) - 1)


def soft_dice(
    logits_NCZYX: Tensor,
    labels_NZYX: Tensor,
    scale_NZYX: Tensor,
    smoothing: float = DICE_SMOOTHING,
    total: int | None = None,
) -> Tensor:
    """Return the soft Dice loss of the foreground classes, a float32 scalar from 0 to 1.

    For each class but the background, ``1 - (2 sum(p * g) + s) / (sum(p) + sum(g) + s)`` with the softmax p
    and the truth g of a sample; the mean of the classes and samples. It weighs missed and invented voxels as
    the F1 score does (Milletari et al., "V-Net", 3DV 2016).

    Args:
        logits_NCZYX: output of the network, C ≥ 2.
        labels_NZYX: integer class of each voxel, 0 … C - 1 wherever the scale is positive.
        scale_NZYX: voxels that count are positive; how much is not used.
        smoothing: s, in voxels.
        total: samples of the whole step; None: of this batch.
    """
    counts = (scale_NZYX > 0).unsqueeze(1)
    # Twice: what a network gives for voxels that do not count must reach neither the value nor the gradient.
    softmax = torch.where(counts, torch.where(counts, logits_NCZYX.float(), 0.0).softmax(dim=1), 0.0)
    losses = []
    for p_CZYX, labels_ZYX, counts_CZYX in zip(softmax, labels_NZYX, counts, strict=True):
        for index in range(1, len(p_CZYX)):
            p = p_CZYX[index]
            truth = (counts_CZYX[0] & (labels_ZYX == index)).to(torch.float32)
            losses.append(dice_of_sums((p * truth).sum(), p.sum(), truth.sum(), smoothing))
    mean = torch.stack(losses).mean()
    return mean if total is None else mean * (len(softmax) / total)


def dice_of_sums(both: Any, predicted: Any, true: Any, smoothing: float = DICE_SMOOTHING) -> Any:
    """Return the soft Dice loss of one class from its three sums (numbers or tensors, voxels)."""
    return 1 - (2 * both + smoothing) / (predicted + true + smoothing)


def divided(loss: Tensor, total: Tensor | float) -> Tensor:
    """Return ``loss / total``, or ``loss``, which then is 0, where nothing counts."""
    if isinstance(total, Tensor):
        return loss / torch.where(total > 0, total, torch.ones_like(total))
    return loss / total if total > 0 else loss
