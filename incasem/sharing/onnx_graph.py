"""A network as an ONNX graph, written operator by operator.

So the graph is as plain as the network, in operators that runtimes of many years have, and its size along
z, y and x is free. Needs the package `onnx`, of the extra `share`.
"""

import importlib
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from torch import Tensor, nn

from incasem.errors import ConfigError
from incasem.networks import Crop, PortableResidualUnet, PortableUnet, ResidualUnet
from incasem.networks.normalisation import ChannelNorm, GroupNorm
from incasem.networks.residual_unet import ConvolutionLayer, ResidualBlock, Upsampling

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET = 17
_IR_VERSION = 8  # of the same year as the opset
_SPATIAL = (2, 3, 4)
INPUT, OUTPUT = "raw", "logits"


def onnx_model(network: nn.Module, in_channels: int, out_channels: int) -> "ModelProto":
    """Return the ONNX model of a network.

    Args:
        network: of `portable`.
        in_channels: channels of its input.
        out_channels: channels of its output.

    Raises:
        ConfigError: the package `onnx` is not installed.
    """
    onnx = import_extra("onnx", "the format onnx")
    graph = _Graph(onnx)
    if isinstance(network, PortableUnet):
        result = graph.unet(network)
    elif isinstance(network, PortableResidualUnet):
        result = graph.residual_unet(network.network)
    else:
        result = graph.chain(network, INPUT)
    graph.nodes[-1].output[0] = OUTPUT
    assert result != INPUT
    make, float32 = onnx.helper, onnx.TensorProto.FLOAT
    made = make.make_graph(
        graph.nodes,
        "network",
        [make.make_tensor_value_info(INPUT, float32, ["batch", in_channels, "z", "y", "x"])],
        [make.make_tensor_value_info(OUTPUT, float32, ["batch", out_channels, "z_out", "y_out", "x_out"])],
        graph.constants,
    )
    opset = make.make_opsetid("", OPSET)
    model = make.make_model(made, opset_imports=[opset], ir_version=_IR_VERSION, producer_name="incasem")
    onnx.checker.check_model(model, full_check=True)
    return cast("ModelProto", model)


def import_extra(name: str, needed_for: str) -> ModuleType:
    """Return a module of the extra `share`.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ConfigError(
            f"{needed_for} needs the package {name}, which is not installed; allowed: an environment with "
            "it. Install it by: pip install 'incasem[share]'"
        ) from None


class _Graph:
    """Nodes and weights in the order in which they are computed; values are known by their names."""

    def __init__(self, onnx: ModuleType) -> None:
        self._onnx = onnx
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def unet(self, network: PortableUnet) -> str:
        """Add a `PortableUnet` and return the name of its output."""
        maps, skips = INPUT, []
        for level, factor in enumerate(network.factors):
            maps = self.chain(network.encoders[level], maps)
            skips.append(self._crop(network.skip_crops[level], maps))
            maps = self._add("MaxPool", [maps], kernel_shape=list(factor), strides=list(factor))
        maps = self.chain(network.encoders[-1], maps)
        for level in reversed(range(len(network.factors))):
            up = self._crop(network.up_crops[level], self._upsample(network, level, maps))
            maps = self._add("Concat", [skips[level], up], axis=1)
            maps = self.chain(network.decoders[level], maps)
        return self.chain(network.final, maps)

    def chain(self, layers: nn.Module, maps: str) -> str:
        """Add convolutions and ReLUs, one after the other, and return the name of the last one's output."""
        for layer in layers.children():
            if isinstance(layer, nn.Conv3d):
                maps = self._convolution(layer, maps)
            else:
                assert isinstance(layer, nn.ReLU)
                maps = self._add("Relu", [maps])
        return maps

    def residual_unet(self, network: ResidualUnet) -> str:
        """Add a `ResidualUnet` and return the name of its output; see its `trunk`."""
        maps, skips = self._layer(network.conv_in, INPUT), []
        for level, factor in enumerate(network.factors):
            maps = self._level(network.down[level], maps)
            skips.append(self._crop(_both_sides(network.skip_crops[level]), maps))
            maps = self._add("MaxPool", [maps], kernel_shape=list(factor), strides=list(factor))
        maps = self._level(network.down[-1], maps)
        for level in reversed(range(len(network.factors))):
            up, factor = cast(Upsampling, network.up[level]), network.factors[level]
            if isinstance(up.up, nn.Conv3d):
                maps = self._repeat(self._convolution(up.up, maps), factor)
            else:
                maps = self._transposed(up.up, factor, maps)
            maps = self._add("Add", [maps, skips[level]])
            maps = self._block(cast(ResidualBlock, network.merged[level]), maps)
        return self._convolution(network.conv_out, maps)

    def _level(self, layers: nn.Module, maps: str) -> str:
        entry, block = layers.children()
        return self._block(cast(ResidualBlock, block), self._layer(cast(ConvolutionLayer, entry), maps))

    def _block(self, block: ResidualBlock, maps: str) -> str:
        branch = self._layer(block.second, self._layer(block.first, maps))
        kernels = zip(block.first.conv.kernel_size, block.second.conv.kernel_size, strict=True)
        centre = self._crop(_both_sides([(first + second) // 2 - 1 for first, second in kernels]), maps)
        return self._activation(block.activation, self._add("Add", [branch, centre]))

    def _layer(self, layer: ConvolutionLayer, maps: str) -> str:
        maps = self._normalisation(layer.norm, self._convolution(layer.conv, maps))
        return maps if layer.activation is None else self._activation(layer.activation, maps)

    def _activation(self, name: str, maps: str) -> str:
        return self._add({"relu": "Relu", "elu": "Elu"}[name], [maps])

    def _normalisation(self, norm: nn.Module, maps: str) -> str:
        if isinstance(norm, ChannelNorm):
            last = self._add("Transpose", [maps], perm=[0, 2, 3, 4, 1])
            values = [last, self._weight(norm.weight), self._weight(norm.bias)]
            normalised = self._add("LayerNormalization", values, axis=-1, epsilon=norm.eps)
            return self._add("Transpose", [normalised], perm=[0, 4, 1, 2, 3])
        if not isinstance(norm, GroupNorm):
            assert isinstance(norm, nn.Identity)
            return maps
        # A group is an instance, once its channels and voxels are one axis: ONNX has it since opset 18 only.
        groups = self._constant(np.array([0, norm.num_groups, -1], np.int64))
        ones, zeros = (self._constant(np.full(norm.num_groups, v, np.float32)) for v in (1, 0))
        flat = [self._add("Reshape", [maps, groups]), ones, zeros]
        normalised = self._add("InstanceNormalization", flat, epsilon=norm.eps)
        back = self._add("Reshape", [normalised, self._add("Shape", [maps])])
        weight, bias = (self._weight(values.reshape(-1, 1, 1, 1)) for values in (norm.weight, norm.bias))
        return self._add("Add", [self._add("Mul", [back, weight]), bias])

    def _convolution(self, layer: nn.Conv3d, maps: str) -> str:
        weights = [self._weight(layer.weight), self._weight(cast(Tensor, layer.bias))]
        return self._add("Conv", [maps, *weights], kernel_shape=list(layer.kernel_size))

    def _upsample(self, network: PortableUnet, level: int, maps: str) -> str:
        layer, factor = network.ups[level], network.factors[level]
        if isinstance(layer, nn.ConvTranspose3d):
            return self._transposed(layer, factor, maps)
        return self._repeat(maps, factor)

    def _transposed(self, layer: nn.ConvTranspose3d, factor: Sequence[int], maps: str) -> str:
        weights = [self._weight(layer.weight), self._weight(cast(Tensor, layer.bias))]
        return self._add("ConvTranspose", [maps, *weights], kernel_shape=list(factor), strides=list(factor))

    def _repeat(self, maps: str, factor: Sequence[int]) -> str:
        scales = self._constant(np.array([1, 1, *factor], np.float32))
        # Voxel i of the result is voxel floor(i / factor).
        return self._add(
            "Resize",
            [maps, "", scales],
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )

    def _crop(self, crop: Crop, maps: str) -> str:
        if not any(crop.before + crop.after):
            return maps
        ends = [-after or np.iinfo(np.int64).max for after in crop.after]
        bounds: Sequence[Sequence[int]] = (crop.before, ends, _SPATIAL)
        return self._add("Slice", [maps, *(self._constant(np.array(b, np.int64)) for b in bounds)])

    def _weight(self, weight: Tensor) -> str:
        return self._constant(np.ascontiguousarray(weight.detach().numpy()))

    def _constant(self, values: Any) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(self._onnx.numpy_helper.from_array(values, name))
        return name

    def _add(self, operator: str, inputs: Sequence[str], **attributes: Any) -> str:
        name = f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(
            self._onnx.helper.make_node(operator, list(inputs), [name], name=name, **attributes)
        )
        return name


def _both_sides(crop: Sequence[int]) -> Crop:
    return Crop(tuple(crop), tuple(crop))
