"""The weights that a training from scratch begins with."""

import torch
from torch import nn

_LAST_LAYER_STD = 0.01


@torch.no_grad()
def initialise(network: nn.Module) -> None:
    """Draw new weights: variance-keeping for layers before a ReLU, small for the last one, no biases.

    PyTorch's default shrinks the signal by about √6 a layer; without normalisation layers, a U-Net of three
    levels then sees nothing of its input and does not learn for hundreds of steps (measured). He et al.,
    "Delving deep into rectifiers", ICCV 2015. Draws from torch's global generator.
    """
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv3d | nn.ConvTranspose3d)]
    for layer in layers:
        if isinstance(layer, nn.Conv3d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    # Equal logits at the start: the first steps neither overshoot nor unlearn a random segmentation.
    nn.init.normal_(layers[-1].weight, std=_LAST_LAYER_STD)
