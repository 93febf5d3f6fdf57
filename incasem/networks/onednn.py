"""Convolution, addition and ReLU in one pass over memory: operators of oneDNN that torch does not export.

They are those that `torch.compile` puts in. Where this processor or build of torch lacks them, public
operators do the same in more passes.

Kernels of one section (1 × n × n) are computed in two dimensions in bfloat16, sections side by side as a
batch: oneDNN's three-dimensional ones write beyond their memory there. (Seen with torch 2.13 and AMX: with
planes of about 128 × 128 voxels and more the process hangs or ends in a segmentation fault.)
"""

from typing import Final, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

_NO_PADDING, _ONES = [0, 0, 0], [1, 1, 1]


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
    if weight.shape[2] != 1 or maps.device.type != "cpu":
        return False
    if torch.is_autocast_enabled("cpu"):
        return torch.get_autocast_dtype("cpu") is torch.bfloat16
    return maps.dtype is torch.bfloat16


def sections_of(maps: Tensor) -> Tensor:
    """Return maps (N, C, z, y, x) as a batch of sections (N·z, C, y, x); a view if channels are last."""
    return maps.permute(0, 2, 1, 3, 4).reshape(-1, maps.shape[1], *maps.shape[3:])


def volume_of(sections: Tensor, like: Tensor) -> Tensor:
    """Undo `sections_of`, for a volume with as many sections and samples as ``like`` (N, …, z, …)."""
    stacked = sections.reshape(like.shape[0], like.shape[2], *sections.shape[1:])
    return stacked.permute(0, 2, 1, 3, 4)


def convolve(maps: Tensor, layer: nn.Conv3d) -> Tensor:
    """Return ``layer``(``maps``) by public operators, whose gradients autograd knows."""
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
