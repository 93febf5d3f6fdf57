"""The weights that a training from scratch begins with."""

from typing import cast

import torch
from torch import Tensor, nn

from incasem.networks.normalisation import ChannelNorm, GroupNorm
from incasem.networks.residual_unet import ResidualBlock, Upsampling
from incasem.networks.weight_standardization import centred_filters, filter_norms

_LAST_LAYER_STD = 0.01
_JOINED_GAIN = 0.5**0.5
"""Of what goes up to be added to a skip connection, so that the sum is as large as either."""
_CENTRED_GAIN = 1.2
"""Norm of centred filters. √(2 / (1 - 1/π)) = 1.71 would keep the variance through a ReLU (Brock et al., ICLR
2021); with what pooling and joining add, logits and gradients of the first steps then were far too large."""


@torch.no_grad()
def initialise(network: nn.Module, *, centred: bool = False) -> None:
    """Draw new weights: variance-keeping for layers before a ReLU, small for the last one, no biases.

    PyTorch's default shrinks the signal by about √6 a layer; without normalisation layers, a U-Net of three
    levels then sees nothing of its input and does not learn for hundreds of steps (measured). He et al.,
    "Delving deep into rectifiers", ICCV 2015. Residual blocks begin near the identity, each with its share of
    the whole, so that a deep network without normalisation keeps the signal's size, too: Zhang et al., "Fixup
    initialization", ICLR 2019. Draws from torch's global generator.

    Args:
        network: changed in place.
        centred: draw filters of mean zero, for `standardise`.
    """
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv3d | nn.ConvTranspose3d)]
    for layer in layers:
        if isinstance(layer, nn.Conv3d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    for norm in network.modules():
        if isinstance(norm, ChannelNorm | GroupNorm):
            norm.reset_parameters()
    if centred:
        for layer in layers[:-1]:
            if isinstance(layer, nn.Conv3d):
                centred_weight = centred_filters(layer.weight)
                layer.weight.copy_(_CENTRED_GAIN * (centred_weight / filter_norms(centred_weight)))
    for module in network.modules():
        if isinstance(module, Upsampling) and isinstance(module.up, nn.Conv3d):
            module.up.weight.mul_(_JOINED_GAIN)
    blocks = [block for block in network.modules() if isinstance(block, ResidualBlock)]
    for block in blocks:
        # A normalisation after it would undo a scale of the filters.
        last = block.second.conv if isinstance(block.second.norm, nn.Identity) else block.second.norm
        cast(Tensor, last.weight).mul_(len(blocks) ** -0.5)
    if not centred:
        # Equal logits at the start: the first steps neither overshoot nor unlearn a random segmentation.
        nn.init.normal_(layers[-1].weight, std=_LAST_LAYER_STD)
