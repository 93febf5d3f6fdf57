"""Which checkpoint of a training to predict with."""

import re
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from incasem.networks.checkpoint import latest_checkpoint, read_sidecar

_F1_OF_A_STRUCTURE = re.compile(r"f1_class_[1-9]\d*")


class ScoredCheckpoint(NamedTuple):
    """A checkpoint with its validated F1; the larger of two is the better one, of equals the newer."""

    f1: float
    iteration: int
    path: Path


def best_scored_checkpoint(directory: Path | str) -> ScoredCheckpoint | None:
    """Return the checkpoint with the highest validated F1, None where none was validated.

    F1 is the mean over validation datasets and classes but the background, from the sidecars; of equals the
    newest wins.
    """
    scored = [
        ScoredCheckpoint(score, int(path.stem.rpartition("_")[2]), path.with_suffix(""))
        for path in Path(directory).glob("model_checkpoint_*.json")
        if path.with_suffix("").is_file()
        and (score := mean_f1(read_sidecar(path.with_suffix("")))) is not None
    ]
    return max(scored, default=None)


def best_checkpoint(directory: Path | str) -> Path | None:
    """Return the checkpoint with the highest validated F1, or the newest one where none was validated.

    None where the directory holds no checkpoint. See `best_scored_checkpoint`.
    """
    best = best_scored_checkpoint(directory)
    if best is not None:
        return best.path
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
