"""What the U-Nets do between their convolutions, and its gradients, in few passes over memory.

On CPUs a training step in bfloat16 is bound by memory: left to autograd, ReLU, pooling, cropping and joining
take half as long again as the convolutions. Values and gradients are those of the plain operators.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from incasem.networks.onednn import can_fuse, convolution, convolution_gradients
from incasem.networks.rewrites import paired_convolution, paired_weights

_NO_PADDING, _ONES = [0, 0, 0], [1, 1, 1]


def centre_crop(maps: Tensor, shape: Sequence[int]) -> Tensor:
    """Return the central ``shape`` (z, y, x) of ``maps`` (N, C, z, y, x) as a view."""
    for axis, (have, want) in enumerate(zip(maps.shape[2:], shape, strict=True), start=2):
        maps = maps.narrow(axis, (have - want) // 2, want)
    return maps


def trains_in_bfloat16(maps: Tensor) -> bool:
    """Whether a step on ``maps`` is a training step in bfloat16 for which `convolution_relu` is made."""
    if not (torch.is_grad_enabled() and torch.is_autocast_enabled("cpu")):
        return False
    dtype = torch.get_autocast_dtype("cpu")
    return dtype is torch.bfloat16 and can_fuse(maps.device, dtype)


def convolution_relu(maps: Tensor, layer: nn.Conv3d) -> Tensor:
    """Return relu(``layer``(``maps``)) in bfloat16; gradients are those of the two under autocast.

    Args:
        maps: (N, C, z, y, x), of any floating type.
        layer: a valid convolution with a bias.
    """
    weight, bias = layer.weight, cast(Tensor, layer.bias)
    if weight.shape[1] != 1 or weight.shape[2:] != (3, 3, 3) or maps.shape[-1] % 2:
        return _apply(_ConvolutionReLU, maps, weight, bias)
    # Two neighbouring voxels at once: one input channel alone leaves matrix units idle.
    paired = paired_weights(weight, bias)
    return paired_convolution(maps, lambda pairs: _apply(_ConvolutionReLU, pairs, *paired))


def pool_and_crop(maps: Tensor, factor: Sequence[int], shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return the maxima of ``maps`` in cells of ``factor`` (z, y, x), and a copy of the central ``shape``."""
    pooled, centre = _PoolAndCrop.apply(maps, list(factor), list(shape))  # type: ignore[no-untyped-call]
    return pooled, centre


def crop_and_join(shape: Sequence[int], *maps: Tensor) -> Tensor:
    """Return the central ``shape`` (z, y, x) of several maps, concatenated along the channels."""
    return _apply(_CropAndJoin, shape, *maps)


def add_centre(onto: Tensor, maps: Tensor) -> Tensor:
    """Return ``onto`` + the centre of the larger ``maps``; ``onto`` is overwritten.

    Args:
        onto: (N, C, z, y, x), not needed by the backward pass of what made it.
        maps: as large or larger along z, y and x.
    """
    if torch.is_grad_enabled():
        return _apply(_AddCentre, onto, maps)
    return onto.add_(centre_crop(maps, onto.shape[2:]))


def _apply(function: type[torch.autograd.Function], *arguments: Any) -> Tensor:
    return cast(Tensor, function.apply(*arguments))  # type: ignore[no-untyped-call]


class _ConvolutionReLU(torch.autograd.Function):
    """A convolution and a ReLU in one pass; autograd would write the maps twice."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        maps = maps.to(torch.bfloat16)
        weight_bf16 = weight.to(torch.bfloat16, memory_format=torch.channels_last_3d)
        result = convolution(maps, weight_bf16, bias.to(torch.bfloat16), relu=True)
        ctx.save_for_backward(maps, weight_bf16, result)
        ctx.dtypes = weight.dtype, bias.dtype
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        maps, weight, result = ctx.saved_tensors
        gradient = torch.ops.aten.threshold_backward(gradient, result, 0)
        wanted = [ctx.needs_input_grad[0], True, True]
        of_maps, of_weight, of_bias = convolution_gradients(gradient, maps, weight, wanted)
        assert of_weight is not None
        assert of_bias is not None
        return of_maps, of_weight.to(ctx.dtypes[0]), of_bias.to(ctx.dtypes[1])


class _PoolAndCrop(torch.autograd.Function):
    """Pooling and a skip connection; autograd would write, fill and add two gradients of full size."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, factor: list[int], shape: list[int]) -> tuple[Tensor, Tensor]:
        pooled, indices = torch.ops.aten.max_pool3d_with_indices(maps, factor, factor)
        ctx.save_for_backward(maps, indices)
        ctx.factor, ctx.shape = factor, shape
        return pooled, centre_crop(maps, shape).clone()

    @staticmethod
    def backward(ctx: Any, of_pooled: Tensor, of_centre: Tensor) -> tuple[Tensor, None, None]:
        maps, indices = ctx.saved_tensors
        gradient: Tensor = torch.ops.aten.max_pool3d_with_indices_backward(
            of_pooled, maps, ctx.factor, ctx.factor, _NO_PADDING, _ONES, False, indices
        )
        centre_crop(gradient, ctx.shape).add_(of_centre)
        return gradient, None, None


class _CropAndJoin(torch.autograd.Function):
    """Cropping and concatenation; autograd would copy a gradient of full size for each cropped axis."""

    @staticmethod
    def forward(ctx: Any, shape: Sequence[int], *maps: Tensor) -> Tensor:
        ctx.sizes = [m.shape for m in maps]
        return torch.cat([centre_crop(m, shape) for m in maps], dim=1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        parts = torch.split(gradient, [size[1] for size in ctx.sizes], dim=1)
        return (None, *(_embed(part, size) for part, size in zip(parts, ctx.sizes, strict=True)))


class _AddCentre(torch.autograd.Function):
    """Addition of a crop; autograd would write a gradient of full size for each cropped axis."""

    @staticmethod
    def forward(ctx: Any, onto: Tensor, maps: Tensor) -> Tensor:
        ctx.size = maps.shape
        ctx.mark_dirty(onto)
        return onto.add_(centre_crop(maps, onto.shape[2:]))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        return gradient, _embed(gradient, ctx.size)


def _embed(centre: Tensor, size: torch.Size) -> Tensor:
    """Return zeros of ``size`` (N, C, z, y, x) in the layout of ``centre``, with ``centre`` in the middle."""
    last = centre.stride(1) == 1 and size[1] > 1
    layout = torch.channels_last_3d if last else torch.contiguous_format
    whole = torch.empty(size, dtype=centre.dtype, device=centre.device, memory_format=layout)
    if whole.shape != centre.shape:
        whole.zero_()
    centre_crop(whole, centre.shape[2:]).copy_(centre)
    return whole
