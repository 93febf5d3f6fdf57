"""The U-Net on OpenVINO, an optional backend for Intel processors: `pip install 'incasem[openvino]'`.

The graph is written node by node from the rewritten weights: nothing is traced, and the graph for another
input size is ready in a fraction of a second, so nothing is worth keeping on disk. https://docs.openvino.ai

CPU-seconds for the published network on a Xeon with AMX, one thread (OpenVINO 2026.4.1, torch 2.13.0): 204³
in bfloat16 1.54, the graph without the rewrites 2.13, `InferenceUnet` on torch 1.43; 156³ in float32 2.79,
3.10 and 2.73. It has no slabs, and so needs more memory than torch.
"""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from incasem.errors import ConfigError, explain
from incasem.networks.inference_unet import InferenceUnet
from incasem.networks.rewrites import transposed_weights
from incasem.networks.unet import Unet, joined_shapes
from incasem.networks.valid import ValidNetwork

_HINTS = {torch.float32: "f32", torch.bfloat16: "bf16"}
_ONES, _ZEROS = [1, 1, 1], [0, 0, 0]


class OpenVinoUnet:
    """A trained `Unet` as a function of the raw data, computed by OpenVINO on the processor.

    Compiled for one input size at a time; another size compiles again, in a second or less. It uses as many
    threads as torch (`torch.get_num_threads`).

    Args:
        network: left as it is.
        device: the CPU.
        precision: float32 or bfloat16; sums are in float32.

    Raises:
        ConfigError: OpenVINO is not installed, or does not run this network, device or precision.
    """

    def __init__(self, network: ValidNetwork, device: torch.device, precision: torch.dtype) -> None:
        self._openvino, unet = check_openvino(network, device, precision)
        self._network = InferenceUnet(unet).float()
        self._precision = precision
        self._shape: tuple[int, ...] | None = None
        self._request: Any = None

    def __call__(self, raw_NCZYX: Tensor) -> Tensor:
        """Return the float32 logits (N, C, z, y, x).

        Args:
            raw_NCZYX: float in [-1, 1], of a legal size.

        Raises:
            ConfigError: a size that the network cannot take.
        """
        shape = tuple(raw_NCZYX.shape)
        if shape != self._shape:
            self._network.output_shape(shape[2:])
            self._request = None  # frees the memory of the other size
            self._request = self._compile(shape)
            self._shape = shape
        raw = raw_NCZYX.to(torch.float32).contiguous().numpy()
        logits = self._request.infer([raw], share_inputs=True, share_outputs=True)[0]
        # A copy: the next call writes over this result.
        return torch.from_numpy(np.array(logits))

    def _compile(self, shape: Sequence[int]) -> Any:
        settings = {
            "INFERENCE_PRECISION_HINT": _HINTS[self._precision],
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
        }
        model = _Graph(self._openvino, self._network).build(shape)
        return self._openvino.Core().compile_model(model, "CPU", settings).create_infer_request()


def check_openvino(network: ValidNetwork, device: torch.device, precision: torch.dtype) -> tuple[Any, Unet]:
    """Return OpenVINO and the network that it is to run.

    Raises:
        ConfigError: OpenVINO is not installed, or does not run this network, device or precision.
    """
    if not isinstance(network, Unet):
        raise _unfit("model.type", type(network).__name__, "Unet")
    if device.type != "cpu":
        raise _unfit("torch.device", device, "cpu")
    if precision not in _HINTS:
        raise _unfit("precision", str(precision).removeprefix("torch."), "fp32 or bf16")
    return _import(), network


def _import() -> Any:
    try:
        import openvino
        import openvino.opset13
    except ImportError as error:
        raise ConfigError(
            explain(
                "prediction.backend",
                "openvino",
                "torch or compiled, or openvino where the Python package openvino is installed",
                "Install it: pip install 'incasem[openvino]'",
            )
        ) from error
    return openvino


def _unfit(setting: str, value: object, allowed: str) -> ConfigError:
    return ConfigError(
        explain(
            setting,
            value,
            f"{allowed} with prediction.backend=openvino",
            "Correct it, or use the backend torch",
        )
    )


class _Graph:
    """Writes an `InferenceUnet` as an OpenVINO graph. A node stands for its only output, (N, C, z, y, x)."""

    def __init__(self, openvino: Any, network: InferenceUnet) -> None:
        self._openvino, self._op, self._network = openvino, openvino.opset13, network

    def build(self, shape: Sequence[int]) -> Any:
        """Return the model for inputs of ``shape`` (N, C, z, y, x)."""
        network = self._network
        raw = self._op.parameter(list(shape), np.float32)
        shapes = joined_shapes(shape[2:], network.factors)
        maps, skips = raw, []
        for level, factor in enumerate(network.factors):
            skips.append(self._chain(network.encoders[level], maps))
            pool = self._op.max_pool(skips[-1], list(factor), _ONES, _ZEROS, _ZEROS, list(factor))
            # The operator has two outputs; the second is where the maxima were.
            maps = pool.output(0)
        maps = self._chain(network.encoders[-1], maps)
        for level in reversed(range(len(network.factors))):
            skip = self._crop(skips.pop(), shapes[level])
            maps = self._chain(network.decoders[level], self._join(network.joined[level], skip, maps))
        return self._openvino.Model([maps], [raw])

    def _chain(self, layers: nn.Module, maps: Any) -> Any:
        for layer in layers.children():
            maps = self._convolution(getattr(layer, "plain", layer), maps)
        return maps

    def _convolution(self, layer: Any, maps: Any, onto: Any = None) -> Any:
        result = self._op.convolution(maps, self._constant(layer.weight), _ONES, _ZEROS, _ZEROS, _ONES)
        result = self._op.add(result, self._constant(layer.bias.reshape(1, -1, 1, 1, 1)))
        if onto is not None:
            result = self._op.add(result, onto)
        return self._op.relu(result) if layer.relu else result

    def _join(self, layer: Any, skip: Any, low: Any) -> Any:
        """Return the first convolution of a decoder; upsampling and its half of it are a transposed one."""
        factor = layer.factor
        kernel = transposed_weights(layer.phases, factor)
        shape, low_shape = _size(skip), _size(low)
        begins, ends = [], []
        for size, low_size, f, width in zip(shape, low_shape, factor, kernel.shape[2:], strict=True):
            # The transposed convolution begins width - f voxels before the upsampled map does.
            begin = (low_size * f - size) // 2 + width - f
            begins.append(begin)
            ends.append(f * (low_size - 1) + width - begin - (size - 2))
        upsampled = self._op.convolution_backprop_data(
            low, self._constant(kernel), list(factor), pads_begin=begins, pads_end=ends, dilations=_ONES
        )
        return self._convolution(layer.skip, skip, upsampled)

    def _crop(self, maps: Any, shape: Sequence[int]) -> Any:
        begins = [(have - want) // 2 for have, want in zip(_size(maps), shape, strict=True)]
        ends = [begin + want for begin, want in zip(begins, shape, strict=True)]
        return self._op.slice(maps, *(np.array(v, np.int64) for v in (begins, ends, _ONES, [2, 3, 4])))

    def _constant(self, weight: Tensor) -> Any:
        return self._op.constant(np.ascontiguousarray(weight.numpy()), dtype=np.float32)


def _size(node: Any) -> list[int]:
    """Return z, y, x of a node or of one of its outputs."""
    output = node.output(0) if hasattr(node, "output") else node
    return cast(list[int], list(output.shape)[2:])
