"""A trained network in plain operators, for programs that know nothing of this package.

Exporters record what a network does with one input. In `Unet` the voxels to crop are worked out from the
input's size; here they are fixed numbers, which is the same: a legal input that is larger by the stride has
maps that are larger by as much on every level, so what is cut off never changes.
"""

import copy
from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from incasem.errors import ConfigError, explain
from incasem.networks.build import OneConv3d
from incasem.networks.residual_unet import ResidualUnet
from incasem.networks.unet import Unet, joined_shapes
from incasem.networks.valid import ValidNetwork

_PASS_CROP = 4  # the two valid convolutions of a level


class Crop(NamedTuple):
    """Voxels (z, y, x) to cut off before and after."""

    before: tuple[int, ...]
    after: tuple[int, ...]

    @classmethod
    def between(cls, have: Sequence[int], want: Sequence[int]) -> "Crop":
        """Return what to cut off a map of size ``have`` to keep the central ``want``."""
        before = tuple((h - w) // 2 for h, w in zip(have, want, strict=True))
        return cls(before, tuple(h - w - b for h, w, b in zip(have, want, before, strict=True)))

    def of(self, maps: Tensor) -> Tensor:
        """Return ``maps`` (N, C, z, y, x) without these voxels."""
        z, y, x = (slice(b, -a or None) for b, a in zip(self.before, self.after, strict=True))
        return maps[:, :, z, y, x]


class PortableUnet(nn.Module):
    """A copy of a `Unet` on the CPU, the same function for every legal input size.

    Attributes:
        factors: pooling factor (z, y, x) between levels.
        encoders: convolutions and ReLUs of each level; the last one is the lowest level's.
        ups: upsampling from the level below to each level.
        decoders: convolutions and ReLUs of each level after the skip connection.
        final: the last convolution.
        skip_crops: what is cut off the skip connection of each level.
        up_crops: what is cut off the upsampled maps of each level.
    """

    def __init__(self, network: Unet) -> None:
        super().__init__()
        plain = copy.deepcopy(network).cpu().float().eval().requires_grad_(False)
        unet = plain.unet
        self.factors = unet.factors
        self.encoders = nn.ModuleList(cast(nn.Module, p.conv_pass) for p in unet.l_conv)
        self.ups = nn.ModuleList(cast(nn.Module, u.up) for u in cast(nn.ModuleList, unet.r_up[0]))
        passes = cast(nn.ModuleList, unet.r_conv[0])
        self.decoders = nn.ModuleList(cast(nn.Module, p.conv_pass) for p in passes)
        self.final = plain.final_conv_pass.conv_pass
        self.skip_crops, self.up_crops = _crops(network.smallest_input, self.factors)

    def forward(self, raw_NCZYX: Tensor) -> Tensor:
        """Return the logits of ``raw_NCZYX``, float32 in [-1, 1]; the size is not checked."""
        maps, skips = raw_NCZYX, []
        for level, factor in enumerate(self.factors):
            maps = self.encoders[level](maps)
            skips.append(self.skip_crops[level].of(maps))
            maps = nn.functional.max_pool3d(maps, factor, factor)
        maps = self.encoders[-1](maps)
        for level in reversed(range(len(self.factors))):
            up = self.up_crops[level].of(self.ups[level](maps))
            maps = self.decoders[level](torch.cat([skips[level], up], dim=1))
        return cast(Tensor, self.final(maps))


class PortableResidualUnet(nn.Module):
    """A copy of a `ResidualUnet` on the CPU, the same function for every legal input size.

    Attributes:
        network: the copy.
    """

    def __init__(self, network: ResidualUnet) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).cpu().float().eval().requires_grad_(False)

    def forward(self, raw_NCZYX: Tensor) -> Tensor:
        """Return the logits of ``raw_NCZYX``, float32 in [-1, 1]; the size is not checked."""
        with torch.no_grad():  # the functions for training are not of plain operators
            return self.network.trunk(raw_NCZYX)


def portable(network: ValidNetwork) -> nn.Module:
    """Return a copy of ``network`` in plain operators, in float32 on the CPU, that cannot be trained.

    Returns:
        A `PortableUnet`, a `PortableResidualUnet`, or a `torch.nn.Sequential` of convolutions.

    Raises:
        ConfigError: a network of another type.
    """
    if isinstance(network, Unet):
        return PortableUnet(network)
    if isinstance(network, ResidualUnet):
        return PortableResidualUnet(network)
    if isinstance(network, OneConv3d):
        return nn.Sequential(copy.deepcopy(network.layer)).cpu().float().eval().requires_grad_(False)
    raise ConfigError(
        explain(
            "the network", type(network).__name__, "Unet, ResidualUnet or OneConv3d", "Export another model"
        )
    )


def _crops(size: Sequence[int], factors: Sequence[Sequence[int]]) -> tuple[list[Crop], list[Crop]]:
    """Return what is cut off skip connections and upsampled maps for a legal input ``size``."""
    shapes = joined_shapes(size, factors)
    skips, below = [], list(size)
    for factor, shape in zip(factors, shapes, strict=True):
        have = [s - _PASS_CROP for s in below]
        skips.append(Crop.between(have, shape))
        below = [h // f for h, f in zip(have, factor, strict=True)]
    below = [s - _PASS_CROP for s in below]
    ups: list[Crop] = []
    for factor, shape in zip(reversed(factors), reversed(shapes), strict=True):
        ups.insert(0, Crop.between([s * f for s, f in zip(below, factor, strict=True)], shape))
        below = [s - _PASS_CROP for s in shape]
    return skips, ups
