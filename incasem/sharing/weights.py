"""Weights in the formats of other programs, each run once to see that it computes what ours does."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from incasem.errors import CheckpointError
from incasem.networks import portable
from incasem.sharing.model import SharedModel
from incasem.sharing.onnx_graph import INPUT, OPSET, import_extra, onnx_model
from incasem.sharing.sample import Sample

Weights = Literal["torchscript", "onnx"]
WEIGHTS: tuple[Weights, ...] = get_args(Weights)
FILES: dict[Weights, str] = {"torchscript": "model.pt", "onnx": "model.onnx"}

_IN_CHANNELS = 1
# Of the largest logit: sums of thousands of float32 products in another order.
_TOLERANCE = 1e-4

Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def write_weights(model: SharedModel, format_name: Weights, folder: Path) -> Path:
    """Write the weights to the file of their format in ``folder`` and return its path.

    Raises:
        ConfigError: a package is missing that the format needs.
    """
    path = folder / FILES[format_name]
    if format_name == "onnx":
        import_extra("onnxruntime", "the check of the format onnx")
        made = onnx_model(portable(model.network), _IN_CHANNELS, model.network.num_fmaps_out)
        path.write_bytes(made.SerializeToString())
    else:
        _write_torchscript(model, path)
    return path


def describe_weights(format_name: Weights) -> dict[str, Any]:
    """Return what the description of a model says of weights of this format."""
    if format_name == "onnx":
        return {"opset_version": OPSET}
    return {"pytorch_version": torch.__version__.partition("+")[0]}


def check_weights(path: Path, format_name: Weights, sample: Sample) -> float:
    """Run the weights as another program does and return the largest difference to ours, in logits.

    Raises:
        CheckpointError: the difference is more than rounding.
    """
    logits = run_weights(path, format_name)(sample.normalised_NCZYX)
    if logits.shape != sample.logits_NCZYX.shape:
        raise CheckpointError(
            f"the {format_name} weights give {logits.shape} instead of {sample.logits_NCZYX.shape} voxels. "
            "Nothing was exported. Please report this with the settings of the model."
        )
    worst = float(np.abs(logits - sample.logits_NCZYX).max())
    if not worst <= _TOLERANCE * max(1.0, float(np.abs(sample.logits_NCZYX).max())):  # also NaN
        raise CheckpointError(
            f"the {format_name} weights differ from the checkpoint's by up to {worst:.3g} in the logits. "
            "Nothing was exported. A checkpoint with weights that are not finite does this; use another one."
        )
    return worst


def run_weights(path: Path, format_name: Weights) -> Run:
    """Return a function from normalised grey values (N, 1, z, y, x) to logits, made from the file alone."""
    if format_name == "onnx":
        onnxruntime = import_extra("onnxruntime", "running the format onnx")
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return lambda raw: session.run(None, {INPUT: raw})[0]
    with _torchscript_is_meant():
        script: Any = torch.jit.load(path)  # type: ignore[no-untyped-call]

    def run(raw: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            logits: NDArray[np.float32] = script(torch.from_numpy(raw)).numpy()
        return logits

    return run


def _write_torchscript(model: SharedModel, path: Path) -> None:
    example = torch.zeros((1, _IN_CHANNELS, *model.network.smallest_input))
    with _torchscript_is_meant(), torch.inference_mode(False):
        # Not checked here: `check_weights` runs the file, with an input of another size than this one.
        traced: Any = torch.jit.trace(portable(model.network), example, check_trace=False)  # type: ignore[no-untyped-call]
        traced.save(path)


@contextmanager
def _torchscript_is_meant() -> Iterator[None]:
    """Silence torch's advice to use its newer formats, which the programs that we export for do not read."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit\..*` is deprecated", DeprecationWarning)
        yield
