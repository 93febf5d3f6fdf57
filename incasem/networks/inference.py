"""Running a trained network: arithmetic, layout, backend, and a check that the fast way is right."""

import copy
import itertools
import logging
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor, nn

from incasem.errors import ConfigError, explain
from incasem.geometry import Coordinate
from incasem.networks.inference_unet import InferenceUnet
from incasem.networks.openvino_backend import OpenVinoUnet, check_openvino
from incasem.networks.residual_unet import ResidualUnet
from incasem.networks.unet import Unet
from incasem.networks.valid import ValidNetwork

logger = logging.getLogger(__name__)

_Run = Callable[[Tensor], Tensor]
Backend = Literal["torch", "compiled", "openvino"]

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

# Rounding moves probabilities by up to a few per cent where the network is undecided, and by much less on
# average; a wrong kernel gives something else everywhere. Largest and mean difference; GPUs may multiply
# float32 with a shorter mantissa.
_ALLOWED = {torch.float32: (0.01, 0.001)}
_ALLOWED_LOW = (0.1, 0.01)

# Elements of the widest map that are computed at a time, see `InferenceUnet`.
_SLAB_ELEMENTS = {"cpu": 40_000_000, "cuda": 2**28}


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


def rearranged(network: ValidNetwork, device: torch.device | str, backend: Backend = "torch") -> ValidNetwork:
    """Return what `InferenceNetwork` runs on ``device`` for ``network``: an `InferenceUnet` for a `Unet`.

    Planners that count arithmetic and memory on torch's `meta` device should count those of the result.
    A `ResidualUnet` needs fewer passes over memory; networks of other kinds are returned as they are.
    """
    if isinstance(network, ResidualUnet):
        return network.for_prediction()
    if not isinstance(network, Unet):
        return network
    slab = None if backend == "openvino" else _SLAB_ELEMENTS.get(torch.device(device).type)
    return InferenceUnet(network, slab)


def check_backend(
    backend: str, network: ValidNetwork, device: torch.device | str, precision: torch.dtype
) -> None:
    """Check that ``backend`` is there and runs this network; see `InferenceNetwork`.

    Raises:
        ConfigError: it is not or does not.
    """
    if backend not in get_args(Backend):
        raise ConfigError(
            explain("prediction.backend", backend, " or ".join(get_args(Backend)), "Correct it")
        )
    if backend == "openvino":
        check_openvino(network, torch.device(device), precision)


class _Way(NamedTuple):
    """A way to run the network."""

    name: str
    precision: torch.dtype
    make: Callable[[], _Run]

    def __str__(self) -> str:
        names = {dtype: str(dtype).removeprefix("torch.") for dtype in _DTYPES.values()}
        return f"{self.name} in {names.get(self.precision, self.precision)}"


class InferenceNetwork:
    """A copy of a network made ready to predict: rewritten, channels last, in low precision, maybe compiled.

    Sizes are those of the network (`context_voxels`, `stride`, `output_shape`, `input_shape_for`). At the
    start one small input is computed that way and with the unmodified network in float32; where the two
    differ by more than rounding, a warning is logged and the next plainer way is tried: without the backend,
    without compiler and rewrites, at last in float32.

    Args:
        network: left untouched.
        device: where to run.
        precision: from `choose_precision`.
        check_shape: input size (z, y, x, voxels) of the check. Some releases are wrong for large inputs
            only, so a long job may pass its block's size; by default a small one.
        backend: "torch"; "compiled", by `torch.compile` (on GPUs with CUDA graphs); or "openvino" for a
            `Unet` on a CPU, which needs the extra `incasem[openvino]`. The compiler works anew for each
            input size; pass ``check_shape`` to compile once only. On a CPU it hardly pays for a rewritten
            U-Net: 6 % less CPU time at 156³ in bfloat16, after 14 CPU-seconds of compiling.

    Attributes:
        precision: what is used after the check.
        device: where it runs.

    Raises:
        ConfigError: a backend that is unknown, not installed, or does not run this network, device or
            precision.
    """

    def __init__(
        self,
        network: ValidNetwork,
        device: torch.device | str,
        precision: torch.dtype,
        *,
        check_shape: Coordinate | None = None,
        backend: Backend = "torch",
    ) -> None:
        self.device = torch.device(device)
        self.context_voxels = network.context_voxels
        self.stride = network.stride
        self.smallest_input = network.smallest_input
        self.num_fmaps_out = network.num_fmaps_out
        self.output_shape = network.output_shape
        self.input_shape_for = network.input_shape_for
        check_backend(backend, network, device, precision)
        ways = [_Way("the unmodified network", torch.float32, lambda: self._plain(network, torch.float32))]
        if precision != torch.float32:
            ways.insert(0, _Way("the unmodified network", precision, lambda: self._plain(network, precision)))
        if isinstance(network, Unet | ResidualUnet):
            ways.insert(0, _Way("the rewritten network", precision, lambda: self._fast(network, precision)))
        if backend == "compiled":
            ways.insert(
                0, _Way("the compiled network", precision, lambda: self._compiled(network, precision))
            )
        if backend == "openvino":
            ways.insert(0, _Way("OpenVINO", precision, lambda: OpenVinoUnet(network, self.device, precision)))
        shape = check_shape or network.input_shape_for([8, 8, 8])
        self.precision, self._run = self._first_right(ways, network, shape)

    def __call__(self, raw_NCZYX: np.ndarray | Tensor) -> Tensor:
        """Return the float32 logits (N, C, z, y, x) on the network's device.

        Args:
            raw_NCZYX: float in [-1, 1], of a legal size.

        Raises:
            ConfigError: a size that the network cannot take.
        """
        with torch.inference_mode():
            return self._run(torch.as_tensor(raw_NCZYX))

    def _plain(self, network: ValidNetwork, precision: torch.dtype) -> _Run:
        return self._runner(self._prepared(copy.deepcopy(network), precision), precision)

    def _fast(self, network: ValidNetwork, precision: torch.dtype) -> _Run:
        return self._runner(self._rewritten(network, precision), precision)

    def _compiled(self, network: ValidNetwork, precision: torch.dtype) -> _Run:
        mode = "reduce-overhead" if self.device.type == "cuda" else None
        module = torch.compile(self._rewritten(network, precision), dynamic=False, mode=mode)
        return self._runner(module, precision)

    def _rewritten(self, network: ValidNetwork, precision: torch.dtype) -> nn.Module:
        fast = rearranged(network, self.device)
        return self._prepared(copy.deepcopy(network) if fast is network else fast, precision)

    def _prepared(self, network: nn.Module, precision: torch.dtype) -> nn.Module:
        module: Any = network.eval().requires_grad_(False)  # Any: `to` lacks a type here
        prepared: nn.Module = module.to(self.device, precision).to(memory_format=torch.channels_last_3d)
        return prepared

    def _runner(self, module: Callable[[Tensor], Tensor], precision: torch.dtype) -> _Run:
        def run(raw: Tensor) -> Tensor:
            raw = raw.to(self.device, precision, non_blocking=True)
            logits = module(raw.contiguous(memory_format=torch.channels_last_3d))
            # A copy in any case: a CUDA graph writes its next result over this one.
            return logits.to(torch.float32, copy=True)

        return run

    def _first_right(
        self, ways: Sequence[_Way], network: ValidNetwork, shape: Coordinate
    ) -> tuple[torch.dtype, _Run]:
        """Return precision and function of the first way that computes what the last one does."""
        *doubtful, last = ways
        reference = last.make()
        if doubtful:
            raw = _random_input(network, shape)
            with torch.inference_mode():
                expected = _probabilities(reference(raw))
        for way, plainer in itertools.pairwise(ways):
            run = way.make()
            if not (problem := _differs(run, raw, expected, way.precision)):
                return way.precision, run
            logger.warning(
                "%s on %s gives other probabilities than float32 (%s): %s is used, which is slower.",
                way,
                self.device,
                problem,
                plainer,
            )
        return last.precision, reference


def _random_input(network: nn.Module, shape: Coordinate) -> Tensor:
    channels = next(network.parameters()).shape[1]
    generator = torch.Generator().manual_seed(0)  # leaves the global generator alone
    return torch.rand((1, channels, *shape), generator=generator) * 2 - 1


def _probabilities(outputs: Tensor) -> Tensor:
    """Return outputs (N, C, …) as probabilities of classes and of channels, whichever the network is for."""
    return torch.cat([outputs.softmax(dim=1), outputs.sigmoid()], dim=1)


def _differs(run: _Run, raw: Tensor, expected: Tensor, precision: torch.dtype) -> str:
    """Return what is wrong with the probabilities that ``run`` gives for ``raw``, or an empty string."""
    try:
        with torch.inference_mode():
            difference = (_probabilities(run(raw)) - expected).abs()
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # no kernel for this precision, no compiler
        return f"it fails: {str(error).splitlines()[0]}"
    worst, mean = float(difference.max()), float(difference.mean())
    allowed_worst, allowed_mean = _ALLOWED.get(precision, _ALLOWED_LOW)
    if worst <= allowed_worst and mean <= allowed_mean:  # False for NaN
        return ""
    return f"largest difference {worst:.3g}, mean {mean:.3g}"
