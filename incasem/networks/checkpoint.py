"""Checkpoints in the published format, written so that a torn one can never be taken for a whole one.

A file holds `model_state_dict` and `optimizer_state_dict`, as published. Three additions, none of which a
published reader minds: `training_state_dict` (the state to go on training from, where the model state is an
average of it or its standardised filters), `scaler_state_dict` (of the gradient scaler, where the training is
in float16) and a sidecar `<path>.json` that says what the network is.
Reading is restricted to tensors and plain containers (`weights_only`): nothing in a file is executed.
"""

import json
import logging
import pickle
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from incasem.durable import write_durably
from incasem.errors import CheckpointError

logger = logging.getLogger(__name__)

_MODEL, _OPTIMIZER, _TRAINING = "model_state_dict", "optimizer_state_dict", "training_state_dict"
_SCALER = "scaler_state_dict"
_NAME = re.compile(r"model_checkpoint_(\d+)")
# What torch and zipfile raise on damaged or foreign files.
_READ_ERRORS = (
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file and its sidecar hold.

    Attributes:
        path: the file.
        model_state: the weights to predict with.
        optimizer_state: `state_dict` of the optimizer, None where the file has none.
        training_state: the state to go on training from, None where they are `model_state`.
        scaler_state: `state_dict` of the gradient scaler, None where the training had none.
        sidecar: content of `<path>.json`, None where there is no such file.
    """

    path: Path
    model_state: dict[str, Tensor]
    optimizer_state: dict[str, Any] | None = None
    training_state: dict[str, Tensor] | None = None
    scaler_state: dict[str, Any] | None = None
    sidecar: dict[str, Any] | None = None


def save_checkpoint(
    path: Path | str,
    network: nn.Module,
    optimizer: torch.optim.Optimizer | None,
    sidecar: Mapping[str, Any],
    *,
    in_training: nn.Module | None = None,
    scaler: torch.amp.GradScaler | None = None,
) -> None:
    """Write a checkpoint and its sidecar; both appear whole or not at all, and are durable on return.

    Args:
        path: file to write or replace; the sidecar goes to `<path>.json`.
        network: what predictions load.
        optimizer: of the network in training; None leaves the state out.
        sidecar: JSON-able description (run, iteration, model, data, scores); a NaN becomes null.
        in_training: the network that the optimizer works on, where that is another one than ``network``.
        scaler: of the training; one that is not enabled has no state.

    Raises:
        CheckpointError: the file cannot be written (disk full, no permission).
    """
    target = Path(path)
    content: dict[str, Any] = {_MODEL: _portable_state(network)}
    if optimizer is not None:
        content[_OPTIMIZER] = optimizer.state_dict()
    if in_training is not None:
        content[_TRAINING] = _portable_state(in_training)
    if scaler is not None and scaler.is_enabled():
        content[_SCALER] = scaler.state_dict()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # The sidecar goes first: a checkpoint that can be seen has its description.
        write_sidecar(target, sidecar)
        write_durably(target, lambda stream: torch.save(content, stream))
    except (OSError, RuntimeError) as error:  # torch reports a failed write as RuntimeError
        raise CheckpointError(
            f"checkpoint {target} cannot be written: {error}. Earlier checkpoints are untouched. "
            "Free space or choose another directories.runs, then continue the run."
        ) from error


def write_sidecar(path: Path | str, sidecar: Mapping[str, Any]) -> None:
    """Write or replace the sidecar of the checkpoint ``path``, for instance with scores that came later."""
    text = json.dumps(_jsonable(sidecar), indent=2, allow_nan=False) + "\n"
    write_durably(_sidecar_path(Path(path)), text.encode())


def read_sidecar(path: Path | str) -> dict[str, Any] | None:
    """Return the sidecar of the checkpoint ``path``, or None where it has none.

    Raises:
        CheckpointError: the sidecar is unreadable.
    """
    return _read_sidecar(_sidecar_path(Path(path)))


def load_checkpoint(path: Path | str) -> Checkpoint:
    """Read a checkpoint of ours or of the published code, onto the CPU.

    Raises:
        CheckpointError: the file is missing, torn, of another format, or its sidecar is unreadable.
    """
    source = Path(path)
    if not source.is_file():
        raise CheckpointError(f"checkpoint {source} does not exist.{_near_files(source)}")
    try:
        _check_sums(source)
        content = torch.load(source, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"checkpoint {source} is damaged, or holds objects other than tensors, numbers and plain "
            "containers, which are never loaded. Use another checkpoint."
        ) from error
    except _READ_ERRORS as error:
        raise CheckpointError(
            f"checkpoint {source} is damaged or not a checkpoint ({_first_line(error)}). "
            "Use another one; a training continues from the newest whole one by itself."
        ) from error
    return Checkpoint(
        path=source,
        model_state=_tensors(content, _MODEL, source),
        optimizer_state=_optional_dict(content, _OPTIMIZER, source),
        training_state=_tensors(content, _TRAINING, source) if _TRAINING in content else None,
        scaler_state=_optional_dict(content, _SCALER, source),
        sidecar=_read_sidecar(_sidecar_path(source)),
    )


def list_checkpoints(directory: Path | str) -> list[tuple[int, Path]]:
    """Return iteration and path of each `model_checkpoint_<iteration>`, the oldest first, unread."""
    return sorted(
        (int(match[1]), entry)
        for entry in (Path(directory).iterdir() if Path(directory).is_dir() else ())
        if (match := _NAME.fullmatch(entry.name))
    )


def latest_checkpoint(directory: Path | str) -> tuple[int, Path] | None:
    """Return iteration and path of the newest readable `model_checkpoint_<iteration>` in ``directory``.

    Damaged files are skipped with a warning; None where nothing is left.
    """
    for iteration, path in reversed(list_checkpoints(directory)):
        try:
            load_checkpoint(path)
        except CheckpointError as error:
            logger.warning("Skipped: %s", error)
        else:
            return iteration, path
    return None


def remove_checkpoint(path: Path) -> None:
    """Remove a checkpoint with its sidecar; the sidecar goes last, so that no checkpoint lacks its own."""
    path.unlink(missing_ok=True)
    _sidecar_path(path).unlink(missing_ok=True)


def _check_sums(path: Path) -> None:
    # torch stores a checksum for each tensor and does not look at it when it reads.
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if (damaged := archive.testzip()) is not None:
                raise zipfile.BadZipFile(f"wrong checksum of {damaged}")


def _portable_state(network: nn.Module) -> dict[str, Tensor]:
    # Published readers get plain contiguous CPU tensors, whatever layout and device we train in.
    return {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}


def _jsonable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_jsonable(item) for item in value]
    if hasattr(value, "tolist"):  # numpy scalars and arrays, tensors
        return _jsonable(value.tolist())
    if isinstance(value, float) and not abs(value) < float("inf"):
        return None
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def _sidecar_path(checkpoint: Path) -> Path:
    return checkpoint.with_name(checkpoint.name + ".json")


def _read_sidecar(path: Path) -> dict[str, Any] | None:
    try:
        sidecar = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"sidecar {path} cannot be read ({_first_line(error)}). Restore it, or move it away to use "
            "the weights without it."
        ) from error
    if not isinstance(sidecar, dict):
        raise CheckpointError(f"sidecar {path} is not a JSON object. Restore it, or move it away.")
    return sidecar


def _tensors(content: Any, key: str, path: Path) -> dict[str, Tensor]:
    state = content.get(key) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(
            f"checkpoint {path} has no {key!r} with named tensors; a checkpoint of incasem holds "
            f"{_MODEL!r} and {_OPTIMIZER!r}. Use another file."
        )
    return dict(state)


def _optional_dict(content: dict[str, Any], key: str, path: Path) -> dict[str, Any] | None:
    state = content.get(key)
    if state is not None and not isinstance(state, dict):
        raise CheckpointError(f"{key!r} of checkpoint {path} is not a dictionary. Use another file.")
    return state


def _near_files(path: Path) -> str:
    if not path.parent.is_dir():
        return f" There is no directory {path.parent} either. Correct the path."
    names = sorted(p.name for p in path.parent.iterdir() if "checkpoint" in p.name and p.suffix != ".json")
    return f" In that directory: {', '.join(names[:10]) or 'no checkpoints'}. Correct the path."


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
