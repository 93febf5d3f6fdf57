"""H: a sample without a voxel in the mask was 0/0: a loss and gradients that are no numbers."""

import pytest
import torch

from incasem.networks import balanced_cross_entropy, soft_dice, weighted_bce
from incasem.tasks.semantic_loss import balance_scale


def dice(logits, labels, scale, weights):
    return soft_dice(logits, labels, (scale > 0).float())


@pytest.mark.parametrize("loss", [balanced_cross_entropy, weighted_bce, dice])
def test_a_masked_sample_teaches_nothing(loss):
    logits = torch.randn(1, 2, 4, 4, 4, requires_grad=True)
    labels = torch.randint(0, 2, (1, 4, 4, 4))
    scale = balance_scale(labels[0].numpy(), torch.zeros(4, 4, 4).numpy(), 2)
    value = loss(logits, labels, torch.from_numpy(scale)[None], [1.0, 1.0])
    value.backward()
    assert value.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))
