"""A residual U-Net with kernels and poolings of its own on each level, for anisotropic volumes.

Architecture: the residual symmetric U-Net of Lee et al., "Superhuman accuracy on the SNEMI3D connectomics
challenge", 2017, in the variant of PyTorch Connectomics v1 (`UNet3D`, block type `residual`): on each level a
convolution that changes the number of channels, then a residual block of two; skip connections are added, not
joined; the input and the output layer are 1×5×5. Different from both: convolutions do not pad, poolings take
maxima (there: strided convolutions, by default), the way up is a 1×1×1 convolution and repetition (there: a
3×3×3 one and interpolation), and normalisation can be left out. So the result does not depend on where a tile
lies.

Kernels and factors are z, y, x as all sizes here; publications often name them x, y, z: their 3×3×1 is our
``[1, 3, 3]``.
"""

import copy
import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from incasem.errors import ConfigError, did_you_mean, explain
from incasem.geometry import Coordinate
from incasem.networks.normalisation import make_norm
from incasem.networks.onednn import convolution, convolution_onto, convolve
from incasem.networks.training_ops import (
    add_centre,
    centre_crop,
    convolution_relu,
    pool_and_crop,
    trains_in_bfloat16,
)
from incasem.networks.valid import ValidNetwork

Triple = tuple[int, int, int]
ACTIVATIONS = ("relu", "elu")
_ENCODER_CONVOLUTIONS = 3
_DECODER_CONVOLUTIONS = 2


class ConvolutionLayer(nn.Module):
    """A valid convolution, its normalisation, and an activation unless that is None."""

    fused = False
    """Prediction: one pass over memory for convolution and ReLU; see `for_prediction`."""

    def __init__(self, channels: tuple[int, int], kernel: Triple, norm: str, activation: str | None) -> None:
        super().__init__()
        self.conv = nn.Conv3d(*channels, kernel_size=kernel)
        self.norm = make_norm(norm, channels[1])
        self.activation = activation

    def forward(self, maps: Tensor) -> Tensor:
        """Return the layer's maps, smaller by the kernel's reach."""
        relu = self.activation == "relu" and isinstance(self.norm, nn.Identity)
        if relu and self.fused:
            return convolution(maps, self.conv.weight, self.conv.bias, relu=True)
        if relu and trains_in_bfloat16(maps):
            return convolution_relu(maps, self.conv)
        maps = (
            convolution(maps, self.conv.weight, self.conv.bias) if self.fused else convolve(maps, self.conv)
        )
        return _activate(self.norm(maps), self.activation)


class ResidualBlock(nn.Module):
    """Two valid convolutions whose result is added to the centre of their input, then an activation."""

    def __init__(self, channels: int, kernel: Triple, norm: str, activation: str) -> None:
        super().__init__()
        self.first = ConvolutionLayer((channels, channels), kernel, norm, activation)
        self.second = ConvolutionLayer((channels, channels), kernel, norm, None)
        self.activation = activation

    def forward(self, maps: Tensor) -> Tensor:
        """Return the block's maps, smaller by twice the kernel's reach."""
        branch = self.first(maps)
        if self.second.fused and isinstance(self.second.norm, nn.Identity):
            return self._added(branch, maps)
        return _activate(add_centre(self.second(branch), maps), self.activation)

    def _added(self, branch: Tensor, maps: Tensor) -> Tensor:
        """Return the block's result; the convolution, the addition and a ReLU are one pass over memory."""
        conv, relu = self.second.conv, self.activation == "relu"
        size = [s - k + 1 for s, k in zip(branch.shape[2:], conv.kernel_size, strict=True)]
        centre = centre_crop(maps, size).clone(memory_format=torch.channels_last_3d)
        result = convolution_onto(centre, branch, conv.weight, conv.bias, relu=relu)
        return result if relu else _activate(result, self.activation)


class Upsampling(nn.Module):
    """The maps of the level below, with the channels and at the resolution of this one."""

    def __init__(self, channels: tuple[int, int], factor: Triple, constant: bool) -> None:
        super().__init__()
        self.up: nn.Conv3d | nn.ConvTranspose3d = (
            nn.Conv3d(*channels, kernel_size=1)
            if constant
            else nn.ConvTranspose3d(*channels, kernel_size=factor, stride=factor)
        )
        self._factor = tuple(float(f) for f in factor)

    def forward(self, low: Tensor) -> Tensor:
        """Return the maps (N, C, z, y, x), larger by the factor."""
        if isinstance(self.up, nn.ConvTranspose3d):
            return self.up(low)
        # As a product of matrices: torch's convolution of width 1 in float32 takes eight times as long.
        last = low.permute(0, 2, 3, 4, 1)
        mixed = functional.linear(last, self.up.weight.flatten(1), self.up.bias).permute(0, 4, 1, 2, 3)
        return functional.interpolate(mixed, scale_factor=self._factor, mode="nearest")


class ResidualUnet(ValidNetwork):
    """A residual U-Net without padding; see the module.

    Maps float (N, ``in_channels``, z, y, x) with values in [-1, 1] to logits
    (N, ``num_fmaps_out``, z - 2 * context, …).

    Args:
        in_channels: channels of the input.
        num_fmaps_out: output channels.
        filters: feature maps of each level, the highest resolution first; None: ``num_fmaps`` times
            ``fmap_inc_factor`` to the power of the level, as those of `Unet`.
        num_fmaps: see ``filters``.
        fmap_inc_factor: see ``filters``.
        downsample_factors: pooling factor (z, y, x) between levels, one less than there are levels.
        kernel_sizes: width (z, y, x; odd) of the convolutions of each level; None: 3×3×3 on all levels.
        io_kernel_size: width (z, y, x; odd) of the first and the last convolution.
        norm: see `make_norm`.
        activation: "relu" or "elu".
        constant_upsample: repeat voxels after a 1×1×1 convolution; False: a transposed convolution.

    Raises:
        ConfigError: a setting that gives no network.
    """

    def __init__(
        self,
        in_channels: int = 1,
        num_fmaps_out: int = 2,
        filters: Sequence[int] | None = None,
        num_fmaps: int = 32,
        fmap_inc_factor: int = 2,
        downsample_factors: Sequence[Sequence[int]] = ((2, 2, 2),) * 3,
        kernel_sizes: Sequence[Sequence[int]] | None = None,
        io_kernel_size: Sequence[int] = (1, 5, 5),
        norm: str = "none",
        activation: str = "relu",
        constant_upsample: bool = True,
    ) -> None:
        super().__init__()
        counts = {
            "in_channels": in_channels,
            "num_fmaps_out": num_fmaps_out,
            "num_fmaps": num_fmaps,
            "fmap_inc_factor": fmap_inc_factor,
        }
        for name, count in counts.items():
            if count < 1:
                raise ConfigError(explain(f"model.{name}", count, "a positive whole number", "Correct it"))
        if activation not in ACTIVATIONS:
            hint = f"Correct it.{did_you_mean(activation, ACTIVATIONS)}"
            raise ConfigError(explain("model.activation", activation, " or ".join(ACTIVATIONS), hint))
        self.factors = _triples("downsample_factors", downsample_factors)
        levels = len(self.factors) + 1
        widths = [num_fmaps * fmap_inc_factor**level for level in range(levels)]
        if filters is not None:
            widths = _filters(filters, levels)
        kernels = _kernels(kernel_sizes, levels)
        (outer,) = _triples("io_kernel_size", [io_kernel_size], odd=True)
        self.num_fmaps_out, self.depends_on_tile = num_fmaps_out, norm == "group"
        self._set_geometry(kernels, outer)

        def entry(channels_in: int, level: int) -> ConvolutionLayer:
            return ConvolutionLayer((channels_in, widths[level]), kernels[level], norm, activation)

        def block(level: int) -> ResidualBlock:
            return ResidualBlock(widths[level], kernels[level], norm, activation)

        self.conv_in = ConvolutionLayer((in_channels, widths[0]), outer, norm, activation)
        self.down = nn.ModuleList(
            nn.Sequential(entry(widths[max(level - 1, 0)], level), block(level)) for level in range(levels)
        )
        self.up = nn.ModuleList(
            Upsampling((widths[level + 1], widths[level]), self.factors[level], constant_upsample)
            for level in range(levels - 1)
        )
        self.merged = nn.ModuleList(block(level) for level in range(levels - 1))
        self.conv_out = nn.Conv3d(widths[0], num_fmaps_out, kernel_size=outer)

    def forward(self, raw_NCZYX: Tensor) -> Tensor:
        """Return the logits (N, num_fmaps_out, z, y, x) of ``raw_NCZYX``, float in [-1, 1].

        Raises:
            ConfigError: a size that the network cannot take.
        """
        self.output_shape(raw_NCZYX.shape[2:])
        return self.trunk(raw_NCZYX)

    def trunk(self, raw_NCZYX: Tensor) -> Tensor:
        """Return the logits without a look at the size, which exporters would record."""
        maps, skips = self.conv_in(raw_NCZYX), []
        for level in range(len(self.factors)):
            maps, skip = self._pool(level, self.down[level](maps))
            skips.append(skip)
            del skip
        maps = self.down[-1](maps)
        for level in reversed(range(len(self.factors))):
            # In place: what upsamples does not need its result.
            maps = self.merged[level](self.up[level](maps).add_(skips.pop()))
        return convolve(maps, self.conv_out)

    def for_prediction(self) -> "ResidualUnet":
        """Return a copy that is the same function in fewer passes over memory; it cannot be trained."""
        network = copy.deepcopy(self).eval().requires_grad_(False)
        for module in network.modules():
            if isinstance(module, ConvolutionLayer):
                module.fused = True
        return network

    def _pool(self, level: int, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Return the maxima of ``maps``, and what of them lies under the upsampled maps."""
        factor, crop = self.factors[level], self.skip_crops[level]
        if torch.is_grad_enabled():
            shape = [s - 2 * c for s, c in zip(maps.shape[2:], crop, strict=True)]
            return pool_and_crop(maps, factor, shape)
        z, y, x = (slice(c, -c or None) for c in crop)
        # A copy, so that the whole maps need not be kept until then.
        return functional.max_pool3d(maps, factor, factor), maps[:, :, z, y, x].clone()

    def _set_geometry(self, kernels: Sequence[Triple], outer: Triple) -> None:
        """Work out context, stride and legal sizes, and how much of each skip connection is not read."""
        axes = [
            _axis_geometry(
                [f[a] for f in self.factors], [(k[a] - 1) // 2 for k in kernels], (outer[a] - 1) // 2
            )
            for a in range(3)
        ]
        self.stride = Coordinate(math.prod(f[a] for f in self.factors) for a in range(3))
        self.context_voxels = Coordinate(context for context, _, _ in axes)
        self.smallest_input = Coordinate(smallest for _, smallest, _ in axes)
        self.skip_crops = tuple(
            cast(Triple, crop) for crop in zip(*(crops for _, _, crops in axes), strict=True)
        )


def _axis_geometry(
    factors: Sequence[int], reaches: Sequence[int], outer: int
) -> tuple[int, int, tuple[int, ...]]:
    """Return context, smallest input (voxels), and what a side of each level's skip connection loses.

    Args:
        factors: of the poolings along this axis.
        reaches: of one convolution of each level to either side, in voxels of that level.
        outer: of the first and of the last convolution.
    """
    crops: list[int] = []
    below = _ENCODER_CONVOLUTIONS * reaches[-1]
    for level in reversed(range(len(factors))):
        crops.insert(0, factors[level] * below)
        below = crops[0] + (_ENCODER_CONVOLUTIONS + _DECODER_CONVOLUTIONS) * reaches[level]
    context = below + 2 * outer
    # Upwards from the smallest map of the lowest level that leaves a voxel of everything above it.
    least = 1
    while (size := _input_for(least, factors, reaches, outer)) <= 2 * context:
        least += 1
    return context, size, tuple(crops)


def _input_for(lowest: int, factors: Sequence[int], reaches: Sequence[int], outer: int) -> int:
    """Return the input (voxels) that gives the lowest level a map of ``lowest`` voxels behind its block."""
    size = lowest + 2 * _ENCODER_CONVOLUTIONS * reaches[-1]
    for factor, reach in zip(reversed(factors), reversed(reaches[:-1]), strict=True):
        size = size * factor + 2 * _ENCODER_CONVOLUTIONS * reach
    return size + 2 * outer


def _activate(maps: Tensor, activation: str | None) -> Tensor:
    """Return the activation of ``maps``, which are overwritten: what made them does not need them."""
    if activation is None:
        return maps
    return functional.elu_(maps) if activation == "elu" else functional.relu_(maps)


def _triples(name: str, values: Sequence[Sequence[int]], *, odd: bool = False) -> tuple[Triple, ...]:
    allowed = "odd and positive" if odd else "positive"
    for value in values:
        if len(value) != 3 or min(value) < 1 or (odd and any(v % 2 == 0 for v in value)):
            one = name == "io_kernel_size"
            raise ConfigError(
                explain(
                    f"model.{name}",
                    list(values[0]) if one else [list(v) for v in values],
                    f"{'' if one else 'a list of '}[z, y, x] with {allowed} whole numbers",
                    "Correct it",
                )
            )
    return tuple(cast(Triple, tuple(int(v) for v in value)) for value in values)


def _filters(filters: Sequence[int], levels: int) -> list[int]:
    if len(filters) != levels or min(filters) < 1:
        raise _of_other_length("filters", list(filters), "positive whole numbers", levels)
    return [int(width) for width in filters]


def _kernels(kernel_sizes: Sequence[Sequence[int]] | None, levels: int) -> tuple[Triple, ...]:
    if kernel_sizes is None:
        return ((3, 3, 3),) * levels
    if len(kernel_sizes) != levels:
        raise _of_other_length("kernel_sizes", [list(k) for k in kernel_sizes], "[z, y, x]", levels)
    return _triples("kernel_sizes", kernel_sizes, odd=True)


def _of_other_length(name: str, value: Any, what: str, levels: int) -> ConfigError:
    poolings = levels - 1
    return ConfigError(
        explain(
            f"model.{name}",
            value,
            f"{levels} of {what}, one for each level: model.downsample_factors has {poolings}, one less",
            "Make the lists fit each other",
        )
    )
