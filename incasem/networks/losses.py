"""Losses on voxels, with the masks and scales that the training feed makes."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


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
