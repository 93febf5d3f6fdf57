"""Convolution, addition and ReLU in one pass over memory: operators of oneDNN that torch does not export.

They are those that `torch.compile` puts in. Where this processor or build of torch lacks them, public
operators do the same in more passes.
"""

from typing import Final

import torch
from torch import Tensor
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
    fused: Tensor = torch.ops.mkldnn._convolution_pointwise_.binary(
        onto, maps, weight, bias, _NO_PADDING, _ONES, _ONES, 1, "add", 1.0, then, [], None
    )
    return fused
