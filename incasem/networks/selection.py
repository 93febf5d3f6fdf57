"""Which checkpoint of a training to predict with, and which ones to keep."""

import re
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from incasem.networks.checkpoint import (
    latest_checkpoint,
    list_checkpoints,
    read_sidecar,
    remove_checkpoint,
)

_F1_OF_A_STRUCTURE = re.compile(r"f1_class_[1-9]\d*")


def best_checkpoint(directory: Path | str) -> Path | None:
    """Return the checkpoint with the highest validated F1, or the newest one where none was validated.

    F1 is the mean over validation datasets and classes but the background, from the sidecars; of equals the
    newest wins. None where the directory holds no checkpoint.
    """
    scored = [
        (score, int(path.stem.rpartition("_")[2]), path.with_suffix(""))
        for path in Path(directory).glob("model_checkpoint_*.json")
        if path.with_suffix("").is_file()
        and (score := mean_f1(read_sidecar(path.with_suffix("")))) is not None
    ]
    if scored:
        return max(scored)[2]
    latest = latest_checkpoint(directory)
    return None if latest is None else latest[1]


def mean_f1(sidecar: Mapping[str, Any] | None) -> float | None:
    """Return the mean F1 that a sidecar's ``scores`` (dataset → name → value) hold, None without any."""
    datasets = ((sidecar or {}).get("scores") or {}).values()
    values = [
        value
        for scores in datasets
        for name, value in scores.items()
        if _F1_OF_A_STRUCTURE.fullmatch(name) and value is not None
    ]
    return fmean(values) if values else None


def remove_old_checkpoints(directory: Path | str, keep: int, newest: int) -> None:
    """Remove all checkpoints but the ``keep`` newest ones and the best validated one.

    Also what a killed training left half-written.

    Args:
        directory: of one training, which writes nothing meanwhile.
        keep: at least 1. With 1, a newest one that is damaged later leaves the best one alone.
        newest: iteration of the newest one. What lies there of later ones is damaged, or the training would
            have gone on from it; it does not count and stays until it is replaced.
    """
    for path in Path(directory).glob(".model_checkpoint_*.tmp"):
        path.unlink(missing_ok=True)
    own = [path for iteration, path in list_checkpoints(directory) if iteration <= newest]
    best = best_checkpoint(directory)
    for path in own[:-keep]:
        if path != best:
            remove_checkpoint(path)
