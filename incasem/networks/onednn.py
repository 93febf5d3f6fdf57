"""Convolution, addition and ReLU in one pass over memory: operators of oneDNN that torch does not export.

They are those that `torch.compile` puts in. Where this processor or build of torch lacks them, public
operators do the same in more passes.

In bfloat16 some of oneDNN's three-dimensional kernels write beyond their memory (torch 2.13, AMX): the
process hangs or ends in a segmentation fault. These are computed in two dimensions, sections side by side as
a batch:

- kernels of one section (1 × n × n): seen with planes of about 128 × 128 voxels and more;
- the gradient of the weights of few sections: seen with planes of 100 × 100 voxels and up to 8 sections, of
  300 × 300 voxels and up to 11, hardly with more than 12 channels; never with planes below 86 × 86.
"""

from collections.abc import Sequence
from typing import Any, Final, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

_NO_PADDING, _ONES = [0, 0, 0], [1, 1, 1]
_SHALLOW, _NARROW = 32, 64  # voxels, with a margin; see the module


def _fused_dtypes() -> frozenset[torch.dtype]:
    operators = ("_convolution_pointwise", "_convolution_pointwise_", "_is_mkldnn_bf16_supported")
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return frozenset()
    if not all(hasattr(torch.ops.mkldnn, name) for name in operators):
        return frozenset()
    low = {torch.bfloat16} if torch.ops.mkldnn._is_mkldnn_bf16_supported() else set()
    return frozenset({torch.float32} | low)


FUSED_DTYPES: Final = _fused_dtypes()
"""Arithmetics in which the operators are there."""


def can_fuse(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether `convolution` is one pass over memory for maps of this kind."""
    return device.type == "cpu" and dtype in FUSED_DTYPES


def in_sections(maps: Tensor, weight: Tensor) -> bool:
    """Whether a convolution of ``maps`` is to be computed section by section; see the module."""
    return _computes_in_bfloat16(maps) and weight.shape[2] == 1


def _computes_in_bfloat16(maps: Tensor) -> bool:
    if maps.device.type != "cpu":
        return False
    if torch.is_autocast_enabled("cpu"):
        return torch.get_autocast_dtype("cpu") is torch.bfloat16
    return maps.dtype is torch.bfloat16


def _is_shallow(maps: Tensor) -> bool:
    return maps.shape[2] < _SHALLOW and min(maps.shape[3:]) > _NARROW


def convolution_gradients(
    gradient: Tensor, maps: Tensor, weight: Tensor, wanted: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Return the gradients of a valid convolution by its maps, its weight and its bias.

    Args:
        gradient: by the result; (N, out, z, y, x).
        maps: (N, C, z, y, x).
        weight: (out, C, z, y, x).
        wanted: which of the three are.
    """
    if in_sections(maps, weight):
        return _gradients_in_sections(gradient, maps, weight, wanted)
    if not (maps.device.type == "cpu" and maps.dtype is torch.bfloat16 and wanted[1] and _is_shallow(maps)):
        return _gradients(gradient, maps, weight, wanted)
    # That of the bias comes out of the same kernel as that of the weights.
    of_maps = _gradients(gradient, maps, weight, [True, False, False])[0] if wanted[0] else None
    of_bias = gradient.sum((0, 2, 3, 4), dtype=torch.float32).to(gradient.dtype) if wanted[2] else None
    depth = gradient.shape[2]
    of_sections = [
        _gradients_in_sections(
            gradient, maps.narrow(2, z, depth), weight.narrow(2, z, 1), [False, True, False]
        )[1]
        for z in range(weight.shape[2])
    ]
    return of_maps, torch.cat([one for one in of_sections if one is not None], dim=2), of_bias


def _gradients_in_sections(
    gradient: Tensor, maps: Tensor, weight: Tensor, wanted: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    of_maps, of_weight, of_bias = _gradients(
        sections_of(gradient), sections_of(maps), weight.squeeze(2), wanted
    )
    return (
        None if of_maps is None else volume_of(of_maps, maps),
        None if of_weight is None else of_weight.unsqueeze(2),
        of_bias,
    )


def _gradients(
    gradient: Tensor, maps: Tensor, weight: Tensor, wanted: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    axes = maps.dim() - 2
    ones, none = [1] * axes, [0] * axes
    found: tuple[Tensor | None, Tensor | None, Tensor | None] = torch.ops.aten.convolution_backward(
        gradient, maps, weight, [weight.shape[0]], ones, none, ones, False, none, 1, list(wanted)
    )
    return found


class _Convolution(torch.autograd.Function):
    """A convolution whose gradients are those of `convolution_gradients`."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.dtypes = maps.dtype, weight.dtype, None if bias is None else bias.dtype
        maps = maps.to(torch.bfloat16)
        weight = weight.to(torch.bfloat16, memory_format=torch.channels_last_3d)
        ctx.save_for_backward(maps, weight)
        return functional.conv3d(maps, weight, None if bias is None else bias.to(torch.bfloat16))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        maps, weight = ctx.saved_tensors
        found = convolution_gradients(gradient, maps, weight, ctx.needs_input_grad)
        pairs = zip(found, ctx.dtypes, strict=True)
        return tuple(None if one is None else one.to(dtype) for one, dtype in pairs)


def sections_of(maps: Tensor) -> Tensor:
    """Return maps (N, C, z, y, x) as a batch of sections (N·z, C, y, x); a view if channels are last."""
    return maps.permute(0, 2, 1, 3, 4).reshape(-1, maps.shape[1], *maps.shape[3:])


def volume_of(sections: Tensor, like: Tensor) -> Tensor:
    """Undo `sections_of`, for a volume with as many sections and samples as ``like`` (N, …, z, …)."""
    stacked = sections.reshape(like.shape[0], like.shape[2], *sections.shape[1:])
    return stacked.permute(0, 2, 1, 3, 4)


def convolve(maps: Tensor, layer: nn.Conv3d) -> Tensor:
    """Return ``layer``(``maps``) by public operators, whose gradients autograd knows."""
    if _computes_in_bfloat16(maps) and layer.weight.shape[2] > 1 and _is_shallow(maps):
        return cast(Tensor, _Convolution.apply(maps, layer.weight, layer.bias))  # type: ignore[no-untyped-call]
    if not in_sections(maps, layer.weight):
        return cast(Tensor, layer(maps))
    flat = functional.conv2d(sections_of(maps), layer.weight.squeeze(2), layer.bias)
    return volume_of(flat, maps)


def convolution(maps: Tensor, weight: Tensor, bias: Tensor | None = None, *, relu: bool = False) -> Tensor:
    """Return the valid convolution, perhaps with a ReLU, by the same kernel for all sizes where there is one.

    torch's own convolution of float32 changes to another kernel for small maps, whose sums are rounded
    otherwise: results would depend on the shape of the tile in the last bit.

    Args:
        maps: (N, C, z, y, x).
        weight: (out, C, z, y, x).
        bias: (out).
        relu: set negative values to zero.
    """
    if not can_fuse(maps.device, maps.dtype):
        result = functional.conv3d(maps, weight, bias)
        return result.relu_() if relu else result
    then = "relu" if relu else "none"
    if in_sections(maps, weight):
        flat: Tensor = torch.ops.mkldnn._convolution_pointwise(
            sections_of(maps), weight.squeeze(2), bias, _NO_PADDING[1:], _ONES[1:], _ONES[1:], 1, then, [], ""
        )
        return volume_of(flat, maps)
    fused: Tensor = torch.ops.mkldnn._convolution_pointwise(
        maps, weight, bias, _NO_PADDING, _ONES, _ONES, 1, then, [], ""
    )
    return fused


def convolution_onto(
    onto: Tensor, maps: Tensor, weight: Tensor, bias: Tensor | None, *, relu: bool = False
) -> Tensor:
    """Return ``onto`` + the valid convolution, perhaps with a ReLU; ``onto`` may be overwritten."""
    if not can_fuse(maps.device, maps.dtype):
        result = functional.conv3d(maps, weight, bias)
        result += onto
        return result.relu_() if relu else result
    then = "relu" if relu else None
    if in_sections(maps, weight):
        flat: Tensor = torch.ops.mkldnn._convolution_pointwise_.binary(
            sections_of(onto), sections_of(maps), weight.squeeze(2), bias,
            _NO_PADDING[1:], _ONES[1:], _ONES[1:], 1, "add", 1.0, then, [], None,
        )  # fmt: skip
        return volume_of(flat, onto)
    fused: Tensor = torch.ops.mkldnn._convolution_pointwise_.binary(
        onto, maps, weight, bias, _NO_PADDING, _ONES, _ONES, 1, "add", 1.0, then, [], None
    )
    return fused
