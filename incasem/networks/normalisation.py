"""Normalisation of feature maps, by what the statistics are taken over.

Over the channels of each voxel by itself, a prediction does not depend on how the volume is cut. Over groups
of channels and all voxels of the input, it does: `ValidNetwork.depends_on_tile`. Statistics over a batch
(batch normalisation) are not offered: they need batches that 3D samples leave no memory for.
"""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, cast

import torch
from torch import Tensor, nn

from incasem.errors import ConfigError, did_you_mean, explain
from incasem.networks.training_ops import trains_in_bfloat16

NORMS: Final = ("none", "group", "channel")
_GROUPS = 8
"""Of the published residual networks (PyTorch Connectomics v1); as many as divide the channels, at most."""


class ChannelNorm(nn.LayerNorm):
    """Normalises the channels of each voxel; maps are (N, C, z, y, x).

    Ba et al., "Layer normalization", 2016; at each place by itself as in Liu et al., "A ConvNet for the
    2020s", CVPR 2022.
    """

    def forward(self, maps: Tensor) -> Tensor:
        """Return ``maps`` normalised, in their own type; sums are in float32."""
        weight: Tensor = self.weight
        bias: Tensor = self.bias
        if maps.device.type == "cuda":  # whose kernels take one type only, and sum in float32
            weight, bias = weight.to(maps.dtype), bias.to(maps.dtype)
        if torch.is_grad_enabled():
            return _apply(_ChannelNorm, maps, weight, bias, self.eps)
        return _channel_norm(maps, self.normalized_shape, weight, bias, self.eps)[0]


class GroupNorm(nn.GroupNorm):
    """Normalises groups of channels over all voxels; maps are (N, C, z, y, x).

    Wu & He, "Group normalization", ECCV 2018.
    """

    def forward(self, maps: Tensor) -> Tensor:
        """Return ``maps`` normalised; sums are in float32."""
        if maps.dtype is torch.bfloat16 and trains_in_bfloat16(maps):
            return _apply(_GroupNorm, maps, self.weight, self.bias, self.num_groups, self.eps)
        # Not as torch's module does: that looks at sizes, which exporters would record.
        return torch.group_norm(maps, self.num_groups, self.weight, self.bias, self.eps)


def make_norm(norm: str, channels: int) -> nn.Module:
    """Return the normalisation of maps (N, ``channels``, z, y, x).

    Args:
        norm: "none", "channel" (`ChannelNorm`) or "group" (`GroupNorm`).
        channels: of the maps.

    Raises:
        ConfigError: another ``norm``.
    """
    if norm == "none":
        return nn.Identity()
    if norm == "channel":
        return ChannelNorm(channels)
    if norm == "group":
        return GroupNorm(math.gcd(_GROUPS, channels), channels)
    raise ConfigError(
        explain("model.norm", norm, ", ".join(NORMS), f"Correct it.{did_you_mean(norm, NORMS)}")
    )


def _apply(function: type[torch.autograd.Function], *arguments: Any) -> Tensor:
    return cast(Tensor, function.apply(*arguments))  # type: ignore[no-untyped-call]


def _by_channel(of_groups: Tensor, widen: int) -> Tensor:
    """Return numbers of groups (N, G, 1) as those of the channels, bfloat16 (N, 1, C)."""
    return of_groups.expand(-1, -1, widen).flatten(1).unsqueeze(1).bfloat16()


def _last(maps: Tensor) -> Tensor:
    """Return maps (N, C, z, y, x) as (N, voxels, C); no copy with channels last."""
    return maps.permute(0, 2, 3, 4, 1).flatten(1, 3)


def _channel_norm(
    maps: Tensor, channels: Sequence[int], weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the normalised maps, and for each voxel (N, z, y, x, 1) mean and inverse deviation."""
    last = maps.permute(0, 2, 3, 4, 1)  # no copy with channels last
    with _no_autocast(maps):
        result, mean, inverse = torch.native_layer_norm(last, list(channels), weight, bias, eps)
    return result.permute(0, 4, 1, 2, 3), mean, inverse


def _no_autocast(maps: Tensor) -> AbstractContextManager[Any]:
    """Keep maps as they are: on GPUs autocast makes them float32, in which the statistics are anyhow."""
    device = maps.device.type
    return nullcontext() if device == "meta" else torch.autocast(device, enabled=False)


class _ChannelNorm(torch.autograd.Function):
    """The result is no view to autograd, which would copy gradients for an activation in place."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        result, mean, inverse = _channel_norm(maps, weight.shape, weight, bias, eps)
        ctx.save_for_backward(maps, weight, bias, mean, inverse)
        own: Any = maps.new_empty(0)
        return cast(Tensor, own.set_(result))  # the same memory, but no view

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        maps, weight, bias, mean, inverse = ctx.saved_tensors
        own_sums = maps.device.type == "cpu" and maps.dtype is torch.bfloat16
        of_maps, of_weight, of_bias = torch.ops.aten.native_layer_norm_backward(
            gradient.permute(0, 2, 3, 4, 1),
            maps.permute(0, 2, 3, 4, 1),
            [len(weight)],
            mean,
            inverse,
            weight,
            bias,
            [True, not own_sums, not own_sums],
        )
        if own_sums:
            # torch adds them up in bfloat16, where millions of voxels come to next to nothing (2.13).
            maps_VC, gradient_VC = _last(maps).flatten(0, 1), _last(gradient).flatten(0, 1)
            inverse_V1 = inverse.to(maps.dtype).reshape(-1, 1)
            normalised_VC = (maps_VC - mean.to(maps.dtype).reshape(-1, 1)).mul_(inverse_V1)
            of_weight = (gradient_VC.mT @ normalised_VC).diagonal()
            of_bias = (gradient_VC.new_ones(1, len(gradient_VC)) @ gradient_VC)[0].to(bias.dtype)
        return of_maps.permute(0, 4, 1, 2, 3), of_weight.to(weight.dtype), of_bias, None


class _GroupNorm(torch.autograd.Function):
    """Group normalisation with a backward pass for bfloat16 on processors, all of it products of matrices.

    That of torch takes three times as long as all convolutions of a layer with channels last (2.13; the
    forward pass, and float32, do not).
    """

    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        batch, channels = maps.shape[:2]
        voxels = maps[0, 0].numel()
        result, mean, inverse = torch.native_group_norm(
            maps, weight, bias, batch, channels, voxels, groups, eps
        )
        ctx.save_for_backward(maps, weight, mean, inverse)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        maps, weight, mean, inverse = ctx.saved_tensors
        batch, channels, *size = maps.shape
        groups = mean.shape[1]
        maps_NVC, gradient_NVC = _last(maps), _last(gradient)
        voxels = maps_NVC.shape[1]
        ones = gradient.new_ones(batch, 1, voxels)
        widen = channels // groups
        count = voxels * widen
        inverse = inverse.float().unsqueeze(2)
        # Products of matrices come rounded to bfloat16: without the means first, little cancels later.
        centred_NVC = maps_NVC - _by_channel(mean.unsqueeze(2), widen)
        # What they still have of it: the mean that was saved may be rounded, too.
        rest = (ones @ centred_NVC).reshape(batch, groups, widen).float().sum(2, keepdim=True) / count
        # Sums over the voxels, of the gradient and of its product with the maps: (N, C).
        sums = (ones @ gradient_NVC).reshape(batch, groups, widen).float()
        products = (gradient_NVC.mT @ centred_NVC).diagonal(dim1=1, dim2=2).float()
        products = products.reshape(batch, groups, widen) - rest * sums
        scale = weight.float().reshape(1, groups, widen)
        # The derivative is `of_gradient` · gradient + `of_map` · centred map + `constant`, each by channel.
        of_gradient = (scale * inverse).reshape(batch, channels).bfloat16()
        of_map = -(scale * products).sum(2, keepdim=True) * inverse**3 / count
        constant = -of_map * rest - (scale * sums).sum(2, keepdim=True) * inverse / count
        mixing = torch.diag_embed(_by_channel(of_map, widen)[:, 0])
        of_maps = torch.baddbmm(_by_channel(constant, widen), centred_NVC, mixing)
        of_maps.baddbmm_(gradient_NVC, torch.diag_embed(of_gradient))
        of_weight = (products * inverse).sum(0).flatten()
        return (
            of_maps.reshape(batch, *size, channels).permute(0, 4, 1, 2, 3),
            of_weight.to(weight.dtype),
            sums.sum(0).flatten().to(weight.dtype),
            None,
            None,
        )
