"""The weights that a training from scratch begins with."""

import torch
from torch import nn

from incasem.networks.weight_standardization import centred_filters, filter_norms

_LAST_LAYER_STD = 0.01
_CENTRED_GAIN = 1.2
"""Norm of centred filters. √(2 / (1 - 1/π)) = 1.71 would keep the variance through a ReLU (Brock et al., ICLR
2021); with what pooling and joining add, logits and gradients of the first steps then were far too large."""


@torch.no_grad()
def initialise(network: nn.Module, *, centred: bool = False) -> None:
    """Draw new weights: variance-keeping for layers before a ReLU, small for the last one, no biases.

    PyTorch's default shrinks the signal by about √6 a layer; without normalisation layers, a U-Net of three
    levels then sees nothing of its input and does not learn for hundreds of steps (measured). He et al.,
    "Delving deep into rectifiers", ICCV 2015. Draws from torch's global generator.

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
    if centred:
        for layer in layers[:-1]:
            if isinstance(layer, nn.Conv3d):
                centred_weight = centred_filters(layer.weight)
                layer.weight.copy_(_CENTRED_GAIN * (centred_weight / filter_norms(centred_weight)))
    else:
        # Equal logits at the start: the first steps neither overshoot nor unlearn a random segmentation.
        nn.init.normal_(layers[-1].weight, std=_LAST_LAYER_STD)
