"""Weight standardisation: convolutions that learn filters of mean zero, and each filter's size by itself.

A U-Net without normalisation layers learns slowly at first: the mean of the activations grows from layer to
layer and drowns what differs between voxels. Filters of mean zero stop that, without statistics over a batch
or a tile, so a prediction still does not depend on how the volume is cut. Qiao et al., "Micro-batch training
with batch-channel normalization and weight standardization", 2019; Brock et al., "Characterizing signal
propagation to close the performance gap in unnormalized ResNets", ICLR 2021.

It is a way to train, not another network: `plain_state` gives the weights of the plain one.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from incasem.errors import ConfigError, explain

_EPSILON = 1e-8
"""Of the mean square of a filter's weights times their number: only a filter of zeros comes near it."""
_TOLERANCE = 1e-3


class _Standardised(nn.Module):
    """Weight (out, in, z, y, x) of mean 0 and norm ``gain`` for each output channel."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.gain = nn.Parameter(filter_norms(centred_filters(weight)))

    def forward(self, original: Tensor) -> Tensor:
        centred = centred_filters(original)
        power = centred.square().sum(dim=(1, 2, 3, 4), keepdim=True)
        return centred * torch.rsqrt(power + _EPSILON) * self.gain


def centred_filters(weight: Tensor) -> Tensor:
    """Return filters (out, in, z, y, x) less their means."""
    return weight - weight.mean(dim=(1, 2, 3, 4), keepdim=True)


def filter_norms(weight: Tensor) -> Tensor:
    """Return the norm of each filter (out, in, z, y, x) as (out, 1, 1, 1, 1)."""
    return weight.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1, 1)


def standardise(network: nn.Module) -> None:
    """Let every convolution but the last learn standardised filters, beginning with the weights that it has.

    Args:
        network: changed in place; its filters have mean zero already, as those of `initialise` and of
            networks trained this way have. Afterwards its parameters, and so its state, are other ones.

    Raises:
        ConfigError: filters that are not of mean zero, which standardising would change.
    """
    convolutions = [layer for layer in network.modules() if isinstance(layer, nn.Conv3d)]
    for layer in convolutions[:-1]:
        weight = layer.weight.detach()
        if float((weight - centred_filters(weight)).abs().max()) > _TOLERANCE * float(weight.abs().max()):
            raise ConfigError(
                explain(
                    "training.weight_standardization",
                    True,
                    "true for a new network, or one that was trained with it: the filters of this one have "
                    "other means than zero",
                    "Set training.weight_standardization=false",
                )
            )
        parametrize.register_parametrization(layer, "weight", _Standardised(weight))


def plain_state(network: nn.Module) -> dict[str, Tensor]:
    """Return the state of the plain network that computes what ``network`` computes, detached.

    Args:
        network: standardised or not; what has weights in it are convolutions and normalisations.
    """
    state: dict[str, Tensor] = {}
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv3d | nn.ConvTranspose3d | nn.LayerNorm | nn.GroupNorm):
            state[f"{name}.weight"] = layer.weight.detach()
            if layer.bias is not None:
                state[f"{name}.bias"] = layer.bias.detach()
    return state


def learnt_filters(network: nn.Module) -> list[nn.Parameter]:
    """Return the filters that an optimizer changes, one for each convolution, in registration order.

    Those of a standardised layer are what lies behind its weight.
    """
    own = dict(network.named_parameters())
    filters = []
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv3d | nn.ConvTranspose3d):
            standardised = parametrize.is_parametrized(layer, "weight")
            filters.append(
                own[f"{name}.parametrizations.weight.original" if standardised else f"{name}.weight"]
            )
    return filters
