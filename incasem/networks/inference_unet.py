"""The U-Net rearranged for prediction: the function of `Unet` with less arithmetic and much less memory."""

from collections.abc import Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from incasem.networks.onednn import convolution, convolution_onto
from incasem.networks.rewrites import paired_convolution, paired_weights, phase_convolution, phase_weights
from incasem.networks.unet import Unet, joined_shapes
from incasem.networks.valid import ValidNetwork

_WIDTH_CROP = 2  # one valid convolution of width 3
_PAIR_CROP = 4  # two
_FEWEST_PLANES = 8


class _Convolution(nn.Module):
    """A valid convolution, perhaps added to a map and followed by a ReLU; one pass over memory on CPUs."""

    def __init__(self, weight: Tensor, bias: Tensor, relu: bool) -> None:
        super().__init__()
        self.weight, self.bias = _frozen(weight), _frozen(bias)
        self.relu = relu

    def forward(self, maps: Tensor, onto: Tensor | None = None) -> Tensor:
        """Return relu(convolution + ``onto``); ``onto`` may be overwritten."""
        if onto is None:
            return convolution(maps, self.weight, self.bias, relu=self.relu)
        return convolution_onto(onto, maps, self.weight, self.bias, relu=self.relu)


class _FirstConvolution(nn.Module):
    """The convolution of the input: if that has one channel, for two neighbouring voxels at once."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.plain = _Convolution(weight, bias, relu=True)
        self.paired = _Convolution(*paired_weights(weight, bias), relu=True) if weight.shape[1] == 1 else None

    def forward(self, maps: Tensor) -> Tensor:
        if self.paired is None or maps.shape[-1] % 2 or maps.device.type not in ("cpu", "meta"):
            return cast(Tensor, self.plain(maps))
        return paired_convolution(maps, self.paired)


class _JoinedConvolution(nn.Module):
    """A convolution of a skip connection beside upsampled maps; neither the latter nor both are ever made."""

    def __init__(self, convolution: nn.Conv3d, up: nn.Module, factor: tuple[int, int, int]) -> None:
        super().__init__()
        weight, bias = convolution.weight.detach(), cast(Tensor, convolution.bias).detach()
        learnt = (up.weight, up.bias) if isinstance(up, nn.ConvTranspose3d) else None
        maps_up = up.out_channels if isinstance(up, nn.ConvTranspose3d) else None
        maps_skip = weight.shape[0] if maps_up is None else weight.shape[1] - maps_up
        merged = phase_weights(weight[:, maps_skip:], factor, learnt)
        self.factor = factor
        self.skip = _Convolution(weight[:, :maps_skip].contiguous(), bias + merged.bias, relu=True)
        self.phases = _frozen(merged.weight)

    def forward(self, skip: Tensor, low: Tensor, offset: Sequence[int]) -> Tensor:
        """Return the maps for ``skip``, which begins at voxel ``offset`` of ``low`` upsampled."""
        shape = [size - _WIDTH_CROP for size in skip.shape[2:]]
        upsampled = phase_convolution(low, self.phases, self.factor, offset, shape, convolution)
        return cast(Tensor, self.skip(skip, upsampled))


class InferenceUnet(ValidNetwork):
    """A trained `Unet`, rearranged for prediction; equal to it but for rounding (1e-13 in float64).

    - Each decoder's first convolution acts on the skip connection and, in phases, on the low-resolution map
      (`rewrites`): no upsampled and no concatenated tensor.
    - Skip connections are cropped to what the decoder reads as soon as they exist.
    - The work at high resolution goes in slabs of z planes, so the largest tensors are never whole.
    - On CPUs convolution, addition and ReLU are one pass over memory.

    CPU time, `Unet` over this, both channels last, Xeon with AMX, one thread, freed memory kept: bfloat16
    with 32 maps 1.8 (204³), 2.0 (236³), 2.2 (268³), with 12 maps 2.0 (204³); float32 with 32 maps 1.3 (156³).
    Elements alive at the peak, in slabs of 40 million: 2.7 (204³), 3.7 (268³), 4.2 (364³).

    Nothing is left to train. A change of ``network`` afterwards does not show here.

    Args:
        network: the trained network; left as it is.
        slab_elements: about how many elements the maps of a slab may have; None: everything at once.
    """

    def __init__(self, network: Unet, slab_elements: int | None = None) -> None:
        super().__init__()
        self.context_voxels, self.stride = network.context_voxels, network.stride
        self.smallest_input, self.num_fmaps_out = network.smallest_input, network.num_fmaps_out
        self.slab_elements = slab_elements
        unet = network.unet
        self.factors = unet.factors
        self.encoders, self.joined, self.decoders = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for level, conv_pass in enumerate(unet.l_conv):
            first, second = _convolutions(conv_pass)
            make = _first if level == 0 else _plain
            self.encoders.append(nn.Sequential(make(first), _plain(second)))
        ups, conv_passes = cast(nn.ModuleList, unet.r_up[0]), cast(nn.ModuleList, unet.r_conv[0])
        for up, conv_pass, factor in zip(ups, conv_passes, self.factors, strict=True):
            first, second = _convolutions(conv_pass)
            self.joined.append(_JoinedConvolution(first, cast(nn.Module, up.up), factor))
            self.decoders.append(nn.Sequential(_plain(second)))
        (last,) = _convolutions(network.final_conv_pass)
        final = _Convolution(last.weight, cast(Tensor, last.bias), relu=False)
        cast(nn.Sequential, self.decoders[0]).append(final)

    def forward(self, raw_NCZYX: Tensor) -> Tensor:
        """Return the logits (N, num_fmaps_out, z, y, x) of ``raw_NCZYX``, float in [-1, 1].

        Raises:
            ConfigError: a size that the network cannot take.
        """
        self.output_shape(raw_NCZYX.shape[2:])
        shapes = joined_shapes(raw_NCZYX.shape[2:], self.factors)
        maps, skips = raw_NCZYX, []
        for level in range(len(self.factors)):
            skip, maps = self._encode(level, maps, shapes[level])
            skips.append(skip)
            del skip
        maps = self.encoders[-1](maps)
        for level in reversed(range(len(self.factors))):
            maps = self._decode(level, skips.pop(), maps)
        return maps

    def _encode(self, level: int, maps: Tensor, joined: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return the skip connection, cropped to ``joined``, and the pooled maps."""
        factor, encoder = self.factors[level], cast(nn.Sequential, self.encoders[level])
        size = [s - _PAIR_CROP for s in maps.shape[2:]]
        crop = [(s - j) // 2 for s, j in zip(size, joined, strict=True)]
        channels = cast(_Convolution, encoder[1]).weight.shape[0]
        skip = _empty(maps, channels, joined)
        pooled = _empty(maps, channels, [s // f for s, f in zip(size, factor, strict=True)])
        for begin, end in self._slabs(size, channels, factor[0]):
            slab = encoder(maps[:, :, begin : end + _PAIR_CROP])
            pooled[:, :, begin // factor[0] : end // factor[0]] = _pool(slab, factor)
            first, last = max(begin, crop[0]), min(end, crop[0] + joined[0])
            if first < last:
                inside = slab[:, :, first - begin : last - begin]
                for axis in (3, 4):
                    inside = inside.narrow(axis, crop[axis - 2], joined[axis - 2])
                skip[:, :, first - crop[0] : last - crop[0]] = inside
                del inside
            del slab  # before the next one is made
        return skip, pooled

    def _decode(self, level: int, skip: Tensor, low: Tensor) -> Tensor:
        """Return the maps of ``level`` from its skip connection and the maps of the level below."""
        factor, joined = self.factors[level], self.joined[level]
        decoder = cast(nn.Sequential, self.decoders[level])
        shape = skip.shape[2:]
        offset = [(s * f - j) // 2 for s, f, j in zip(low.shape[2:], factor, shape, strict=True)]
        crop = _WIDTH_CROP * (1 + len(decoder))
        size = [s - crop for s in shape]
        result: Tensor | None = None
        for begin, end in self._slabs(size, skip.shape[1], factor[0]):
            slab = joined(skip[:, :, begin : end + crop], low, (offset[0] + begin, *offset[1:]))
            slab = decoder(slab)
            if end - begin == size[0]:
                return cast(Tensor, slab)
            if result is None:
                result = _empty(slab, slab.shape[1], size)
            result[:, :, begin:end] = slab
            del slab
        return cast(Tensor, result)

    def _slabs(self, size: Sequence[int], channels: int, step: int) -> Iterator[tuple[int, int]]:
        """Yield begin and end (z) of the slabs of a map of ``size``; begins are multiples of ``step``."""
        planes = size[0]
        if self.slab_elements is not None:
            planes = self.slab_elements // (channels * size[1] * size[2]) // step * step
            # Neighbouring slabs compute up to four planes twice.
            planes = max(planes, -(-_FEWEST_PLANES // step) * step)
        for begin in range(0, size[0], planes):
            yield begin, min(begin + planes, size[0])


def _frozen(weight: Tensor) -> nn.Parameter:
    return nn.Parameter(weight.detach(), requires_grad=False)


def _convolutions(conv_pass: nn.Module) -> list[nn.Conv3d]:
    return [layer for layer in conv_pass.modules() if isinstance(layer, nn.Conv3d)]


def _plain(layer: nn.Conv3d) -> _Convolution:
    return _Convolution(layer.weight, cast(Tensor, layer.bias), relu=True)


def _first(layer: nn.Conv3d) -> _FirstConvolution:
    return _FirstConvolution(layer.weight, cast(Tensor, layer.bias))


def _pool(maps: Tensor, factor: Sequence[int]) -> Tensor:
    return functional.max_pool3d(maps, list(factor), list(factor))


def _empty(like: Tensor, channels: int, size: Sequence[int]) -> Tensor:
    """Return an uninitialised map of ``channels`` and ``size`` (z, y, x), channels last."""
    return torch.empty(
        (like.shape[0], channels, *size),
        dtype=like.dtype,
        device=like.device,
        memory_format=torch.channels_last_3d,
    )
