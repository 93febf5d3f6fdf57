"""The published U-Net: valid 3×3×3 convolutions, and sizes that keep it translation equivariant.

Architecture: Ronneberger et al. 2015 and Çiçek et al. 2016, in the variant of Funke et al. 2019, whose
cropping makes the output independent of where a tile lies as long as tiles move by the stride. Parameter
names, shapes and registration order are those of the published incasem checkpoints, so that these load
strictly and their optimizer state (indexed by registration order) fits.
"""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple, cast

from torch import Tensor, nn

from incasem.errors import ConfigError, explain
from incasem.geometry import Coordinate
from incasem.networks.onednn import convolve
from incasem.networks.training_ops import (
    convolution_relu,
    crop_and_join,
    pool_and_crop,
    trains_in_bfloat16,
)
from incasem.networks.valid import ValidNetwork

_LEVEL_CROP = 4  # two valid convolutions of width 3
_FINAL_CROP = 2  # one


class _Extent(NamedTuple):
    """Size (voxels) of the output along one axis, and where it begins in the input."""

    size: int
    begin: int


def _trace(size: int, factors: Sequence[int]) -> _Extent | None:
    """Follow one axis of an input of ``size`` through the network; None where a size does not work out.

    Raises:
        ConfigError: a skip connection and the map that it joins would not lie over each other.
    """
    begin, scale, skips = 0, 1, []
    for factor in factors:
        size, begin = size - _LEVEL_CROP, begin + _LEVEL_CROP // 2 * scale
        if size < 1 or size % factor:
            return None
        skips.append(_Extent(size, begin))
        size, scale = size // factor, scale * factor
    size, begin = size - _LEVEL_CROP, begin + _LEVEL_CROP // 2 * scale
    for level in reversed(range(len(factors))):
        scale //= factors[level]
        upsampled = size * factors[level]
        size = equivariant_size(upsampled, math.prod(factors[level:]))
        if size <= _LEVEL_CROP:
            return None
        begin += (upsampled - size) // 2 * scale
        skip = skips[level]
        if skip.begin + (skip.size - size) // 2 * scale != begin:
            raise ConfigError(
                explain(
                    "model.downsample_factors",
                    f"{list(factors)} along one axis",
                    "factors whose skip connections lie over the upsampled maps, such as 1, 2 and 4",
                    "Use other factors",
                )
            )
        size, begin = size - _LEVEL_CROP, begin + _LEVEL_CROP // 2 * scale
    size, begin = size - _FINAL_CROP, begin + _FINAL_CROP // 2
    return _Extent(size, begin) if size > 0 else None


def equivariant_size(size: int, period: int) -> int:
    """Return the largest size that the two convolutions of a level turn into a multiple of ``period``."""
    return (size - _LEVEL_CROP) // period * period + _LEVEL_CROP


def joined_shapes(size: Sequence[int], factors: Sequence[Sequence[int]]) -> list[list[int]]:
    """Return for each level the shape (z, y, x) of what its decoder's first convolution reads.

    Args:
        size: legal input shape.
        factors: pooling factor (z, y, x) between levels.
    """
    for factor in factors:
        size = [(s - _LEVEL_CROP) // f for s, f in zip(size, factor, strict=True)]
    size = [s - _LEVEL_CROP for s in size]
    shapes = []
    for level in reversed(range(len(factors))):
        periods = [math.prod(axis) for axis in zip(*factors[level:], strict=True)]
        upsampled = [s * f for s, f in zip(size, factors[level], strict=True)]
        shapes.append([equivariant_size(s, p) for s, p in zip(upsampled, periods, strict=True)])
        size = [s - _LEVEL_CROP for s in shapes[-1]]
    return shapes[::-1]


class _ConvPass(nn.Module):
    """Valid 3×3×3 convolutions, each followed by a ReLU unless ``activate`` is False."""

    def __init__(self, channels: Sequence[int], activate: bool = True) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels_in, channels_out in itertools.pairwise(channels):
            layers.append(nn.Conv3d(channels_in, channels_out, kernel_size=3))
            if activate:
                layers.append(nn.ReLU(inplace=True))
        self.conv_pass = nn.Sequential(*layers)

    def forward(self, maps: Tensor) -> Tensor:
        if not trains_in_bfloat16(maps):
            return self.conv_pass(maps)
        layers = list(self.conv_pass)
        for layer, following in itertools.zip_longest(layers, layers[1:]):
            if isinstance(following, nn.ReLU):
                maps = convolution_relu(maps, cast(nn.Conv3d, layer))
            elif not isinstance(layer, nn.ReLU):
                maps = convolve(maps, cast(nn.Conv3d, layer))
        return maps


class _Upsample(nn.Module):
    """Repetition of voxels, or a learnt transposed convolution, by ``factor`` (z, y, x)."""

    def __init__(self, channels: int, factor: tuple[int, int, int], constant: bool) -> None:
        super().__init__()
        self.up: nn.Module = (
            nn.Upsample(scale_factor=tuple(float(f) for f in factor), mode="nearest")
            if constant
            else nn.ConvTranspose3d(channels, channels, kernel_size=factor, stride=factor)
        )

    def forward(self, maps: Tensor) -> Tensor:
        return self.up(maps)


class _Backbone(nn.Module):
    """Encoder and decoder; the registration order l_conv, r_up, r_conv is part of the checkpoint format."""

    def __init__(
        self,
        channels: Sequence[int],
        in_channels: int,
        factors: Sequence[tuple[int, int, int]],
        constant: bool,
    ) -> None:
        super().__init__()
        self.factors = tuple(factors)
        levels = range(len(factors))
        inputs = [in_channels, *channels[:-1]]
        self.l_conv = nn.ModuleList(_ConvPass((i, c, c)) for i, c in zip(inputs, channels, strict=True))
        # The published format numbers decoders ("heads"); it only ever has one.
        self.r_up = nn.ModuleList(
            [nn.ModuleList(_Upsample(channels[level + 1], factors[level], constant) for level in levels)]
        )
        self.r_conv = nn.ModuleList(
            [
                nn.ModuleList(
                    _ConvPass((channels[level] + channels[level + 1], channels[level], channels[level]))
                    for level in levels
                )
            ]
        )

    def forward(self, maps: Tensor) -> Tensor:
        skips, shapes = [], joined_shapes(maps.shape[2:], self.factors)
        for level, factor in enumerate(self.factors):
            maps, skip = pool_and_crop(self.l_conv[level](maps), factor, shapes[level])
            skips.append(skip)
        maps = self.l_conv[-1](maps)
        for level in reversed(range(len(self.factors))):
            maps = self._decode(level, skips.pop(), maps, shapes[level])
        return maps

    def _decode(self, level: int, skip: Tensor, below: Tensor, shape: Sequence[int]) -> Tensor:
        # A function of its own, so that the upsampled maps are gone before the next level's are made.
        up = cast(nn.ModuleList, self.r_up[0])[level](below)
        joined = crop_and_join(shape, skip, up)
        del skip, up
        return cast(Tensor, cast(nn.ModuleList, self.r_conv[0])[level](joined))


class Unet(ValidNetwork):
    """The published 3D U-Net.

    Maps float (N, ``in_channels``, z, y, x) with values in [-1, 1] to logits
    (N, ``num_fmaps_out``, z - 2 * context, …). With the default settings: context 47, stride 8, legal
    input sizes 100 + 8k, 30 parameter tensors, 5,837,730 parameters.

    Args:
        in_channels: channels of the input.
        num_fmaps: feature maps of the first level (`model.num_fmaps`).
        num_fmaps_out: output channels, one a class.
        fmap_inc_factor: feature maps of a level over those of the level above.
        downsample_factors: pooling factor (z, y, x) between levels; its length is the depth.
        constant_upsample: repeat voxels; False: learn a transposed convolution.

    Raises:
        ConfigError: a setting that gives no network, or one whose tiles would not fit together.
    """

    def __init__(
        self,
        in_channels: int = 1,
        num_fmaps: int = 32,
        num_fmaps_out: int = 2,
        fmap_inc_factor: int = 2,
        downsample_factors: Sequence[Sequence[int]] = ((2, 2, 2),) * 3,
        constant_upsample: bool = True,
    ) -> None:
        super().__init__()
        counts = {
            "in_channels": in_channels,
            "num_fmaps": num_fmaps,
            "num_fmaps_out": num_fmaps_out,
            "fmap_inc_factor": fmap_inc_factor,
        }
        for name, count in counts.items():
            if count < 1:
                raise ConfigError(explain(f"model.{name}", count, "a positive whole number", "Correct it"))
        if not downsample_factors or any(len(f) != 3 or min(f) < 1 for f in downsample_factors):
            raise ConfigError(
                explain(
                    "model.downsample_factors",
                    [list(f) for f in downsample_factors],
                    "a list of [z, y, x] with positive whole numbers, one for each pooling",
                    "The published value is [[2, 2, 2], [2, 2, 2], [2, 2, 2]]",
                )
            )
        factors = [(int(z), int(y), int(x)) for z, y, x in downsample_factors]
        self.num_fmaps_out = num_fmaps_out
        self.stride = Coordinate(math.prod(axis) for axis in zip(*factors, strict=True))
        smallest, context = zip(*(_axis_geometry(axis) for axis in zip(*factors, strict=True)), strict=True)
        self.smallest_input, self.context_voxels = Coordinate(smallest), Coordinate(context)
        channels = [num_fmaps * fmap_inc_factor**level for level in range(len(factors) + 1)]
        self.unet = _Backbone(channels, in_channels, factors, constant_upsample)
        self.final_conv_pass = _ConvPass((num_fmaps, num_fmaps_out), activate=False)

    def forward(self, raw_NCZYX: Tensor) -> Tensor:
        """Return the logits (N, num_fmaps_out, z, y, x) of ``raw_NCZYX``, float in [-1, 1].

        Raises:
            ConfigError: a size that the network cannot take.
        """
        self.output_shape(raw_NCZYX.shape[2:])
        return self.final_conv_pass(self.unet(raw_NCZYX))


def _axis_geometry(factors: Sequence[int]) -> tuple[int, int]:
    """Return the smallest legal input (voxels) and the context of one axis."""
    size = 1
    while (extent := _trace(size, factors)) is None:
        size += 1
    if size - extent.size != 2 * extent.begin:
        raise ConfigError(
            explain(
                "model.downsample_factors",
                f"{list(factors)} along one axis",
                "factors that need the same context on both sides, such as 1, 2 and 4",
                "Use other factors",
            )
        )
    return size, extent.begin
