"""Running a trained network: layout, precision, and a check that the fast arithmetic is right."""

import copy
import logging
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from incasem.errors import ConfigError, explain
from incasem.geometry import Coordinate
from incasem.networks.valid import ValidNetwork

logger = logging.getLogger(__name__)

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

# Rounding moves probabilities by up to a few per cent where the network is undecided, and by much less on
# average; a wrong kernel gives something else everywhere.
_MAX_DIFFERENCE = 0.1
_MEAN_DIFFERENCE = 0.01


def choose_precision(setting: str, device: torch.device | str) -> torch.dtype:
    """Return the arithmetic for ``setting`` on ``device``.

    Args:
        setting: "fp32", "bf16", "fp16", or "auto": bfloat16 on processors and GPUs that have it in
            hardware, float16 on older GPUs, else float32. Accumulation is in float32 in any case.
        device: where the network will run.

    Raises:
        ConfigError: unknown setting.
    """
    if setting in _DTYPES:
        return _DTYPES[setting]
    if setting != "auto":
        raise ConfigError(explain("precision", setting, f"auto, {', '.join(_DTYPES)}", "Correct it"))
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if kind == "cpu" and _cpu_has_bf16():
        return torch.bfloat16
    return torch.float32


def _cpu_has_bf16() -> bool:
    """Whether this processor multiplies bfloat16 in hardware and torch was built to use it."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    # The probes are not public and their names change between releases: a missing one counts as "no".
    probes = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, probe, bool)() for probe in probes)


class InferenceNetwork:
    """A copy of a network made ready to predict: evaluation mode, channels-last layout, low precision.

    Sizes are those of the network (`context_voxels`, `stride`, `output_shape`, `input_shape_for`). At the
    start one small input is computed in ``precision`` and in float32; where the two differ by more than
    rounding, a warning is logged and float32 is used.

    Args:
        network: left untouched.
        device: where to run.
        precision: from `choose_precision`.
        check_shape: input size (z, y, x, voxels) of the check. Some releases are wrong for large inputs
            only, so a long job may pass its block's size; by default a small one.

    Attributes:
        precision: what is used after the check.
        device: where it runs.
    """

    def __init__(
        self,
        network: ValidNetwork,
        device: torch.device | str,
        precision: torch.dtype,
        *,
        check_shape: Coordinate | None = None,
    ) -> None:
        self.device = torch.device(device)
        self.precision = precision
        self.context_voxels = network.context_voxels
        self.stride = network.stride
        self.smallest_input = network.smallest_input
        self.num_fmaps_out = network.num_fmaps_out
        self.output_shape = network.output_shape
        self.input_shape_for = network.input_shape_for
        self._module = self._prepare(network, precision)
        if precision != torch.float32:
            shape = check_shape or network.input_shape_for([8, 8, 8])
            reference = self._prepare(network, torch.float32)
            if problem := self._differs_from(reference, shape):
                logger.warning(
                    "%s on %s gives other probabilities than float32 (%s): float32 is used, which is slower. "
                    "Set the precision to fp32 to silence this.",
                    str(precision).removeprefix("torch."),
                    self.device,
                    problem,
                )
                self.precision, self._module = torch.float32, reference

    def __call__(self, raw_NCZYX: np.ndarray | Tensor) -> Tensor:
        """Return the float32 logits (N, C, z, y, x) on the network's device.

        Args:
            raw_NCZYX: float in [-1, 1], of a legal size.

        Raises:
            ConfigError: a size that the network cannot take.
        """
        with torch.inference_mode():
            return self._run(self._module, self.precision, torch.as_tensor(raw_NCZYX)).float()

    def _prepare(self, network: ValidNetwork, precision: torch.dtype) -> nn.Module:
        module: Any = copy.deepcopy(network).eval().requires_grad_(False)  # Any: `to` lacks a type here
        prepared: nn.Module = module.to(self.device, precision).to(memory_format=torch.channels_last_3d)
        return prepared

    def _run(self, module: nn.Module, precision: torch.dtype, raw: Tensor) -> Tensor:
        raw = raw.to(self.device, precision, non_blocking=True)
        logits: Tensor = module(raw.contiguous(memory_format=torch.channels_last_3d))
        return logits

    def _differs_from(self, reference: nn.Module, shape: Coordinate) -> str:
        """Return what is wrong with the low precision on a random input, or an empty string."""
        channels = next(self._module.parameters()).shape[1]
        generator = torch.Generator().manual_seed(0)  # leaves the global generator alone
        raw = torch.rand((1, channels, *shape), generator=generator) * 2 - 1
        with torch.inference_mode():
            low = self._run(self._module, self.precision, raw).float().softmax(dim=1)
            exact = self._run(reference, torch.float32, raw).softmax(dim=1)
        difference = (low - exact).abs()
        worst, mean = float(difference.max()), float(difference.mean())
        if worst <= _MAX_DIFFERENCE and mean <= _MEAN_DIFFERENCE:  # False for NaN
            return ""
        return f"largest difference {worst:.3g}, mean {mean:.3g}"
