"""Which checkpoint of a training to predict with, and which ones to keep."""

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from incasem.networks.checkpoint import (
    latest_checkpoint,
    list_checkpoints,
    read_sidecar,
    remove_checkpoint,
)


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
    return mean_score(sidecar, "f1")


def mean_score(sidecar: Mapping[str, Any] | None, score: str) -> float | None:
    """Return the mean of a score over datasets and classes but the background, None without any.

    Args:
        sidecar: its ``scores`` are dataset → ``<score>_class_<number>`` → value, None where not defined.
        score: such as `f1` or `average_precision`.
    """
    name = re.compile(rf"{re.escape(score)}_class_[1-9]\d*")
    values = [
        value
        for scores in ((sidecar or {}).get("scores") or {}).values()
        for key, value in scores.items()
        if name.fullmatch(key) and value is not None
    ]
    return fmean(values) if values else None


def remove_old_checkpoints(
    directory: Path | str, keep: int, newest: int, spare: Collection[Path] = ()
) -> None:
    """Remove all checkpoints but the ``keep`` newest ones and the best validated one.

    Also what a killed training left half-written.

    Args:
        directory: of one training, which writes nothing meanwhile.
        keep: at least 1. With 1, a newest one that is damaged later leaves the best one alone.
        newest: iteration of the newest one. What lies there of later ones is damaged, or the training would
            have gone on from it; it does not count and stays until it is replaced.
        spare: checkpoints to keep in any case, whose validation is not done.
    """
    for path in Path(directory).glob(".model_checkpoint_*.tmp"):
        path.unlink(missing_ok=True)
    own = [path for iteration, path in list_checkpoints(directory) if iteration <= newest]
    best = best_checkpoint(directory)
    for path in own[:-keep]:
        if path != best and path not in spare:
            remove_checkpoint(path)
