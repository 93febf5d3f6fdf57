"""The page that a training leaves beside its checkpoints."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from incasem.config import TrainingConfig
from incasem.evaluation.report import Curve, SlicePanel, write_report

if TYPE_CHECKING:
    from incasem.training.trainer import History
    from incasem.training.validation import Validation

SMOOTHING = 25  # steps that the smoothed loss is averaged over


def write_training_report(directory: Path, name: str, config: TrainingConfig, history: "History") -> Path:
    """Write curves, scores and sections of a training; return the path of the page."""
    last = history.validations[-1][1] if history.validations else []
    return write_report(
        directory,
        title=name,
        summary=_summary(history),
        slices=[_panel(validation, config) for validation in last],
        curves=curves(history),
        scores={
            f"{validation.nickname}, class {score.class_id}": {
                "F1": score.f1,
                "Jaccard": score.jaccard,
                "precision": score.precision,
                "recall": score.recall,
            }
            for validation in last
            for score in validation.scores[1:]
        },
        facts={"Settings": _flat(config.to_dict())},
    )


def curves(history: "History") -> list[Curve]:
    """Return the loss and F1 curves of a training."""
    steps = [float(iteration) for iteration, _ in history.losses]
    losses = [loss for _, loss in history.losses]
    lines = {"training": (steps, _smooth(losses))}
    scores: dict[str, tuple[list[float], list[float]]] = {}
    for iteration, validations in history.validations:
        for validation in validations:
            _append(lines, f"{validation.nickname}", iteration, validation.loss)
            for score in validation.scores[1:]:
                _append(scores, f"{validation.nickname}, class {score.class_id}", iteration, score.f1)
    return [
        Curve("Loss", lines, y_label="cross-entropy"),
        Curve("F1", scores, y_label="F1", y_limits=(0, 1)),
    ]


def _append(
    lines: "dict[str, tuple[list[float], list[float]]]", name: str, iteration: int, value: float
) -> None:
    x, y = lines.setdefault(name, ([], []))
    x.append(float(iteration))
    y.append(value)


def _smooth(values: Sequence[float]) -> list[float]:
    """Return the running mean over the last `SMOOTHING` values."""
    total = np.cumsum(np.concatenate(([0.0], np.asarray(values, float))))
    ends = np.arange(1, len(values) + 1)
    begins = np.maximum(ends - SMOOTHING, 0)
    return list((total[ends] - total[begins]) / np.maximum(ends - begins, 1))


def _panel(validation: "Validation", config: TrainingConfig) -> SlicePanel:
    section = validation.section
    return SlicePanel(
        title=f"{validation.nickname}, z = {section.z}",
        raw_YX=section.raw_YX,
        labels_YX=section.labels_YX,
        prediction_YX=section.prediction_YX,
        excluded_YX=section.excluded_YX,
        pixel_nm=config.data.voxel_size[2],
    )


def _summary(history: "History") -> str:
    if not history.losses:
        return "Nothing was left to train."
    first, last = history.losses[0][0], history.losses[-1][0]
    return f"Iterations {first} to {last}; last loss {history.losses[-1][1]:.4f}."


def _flat(values: dict[str, object], prefix: str = "") -> dict[str, object]:
    """Return nested settings as ``a.b.c`` → value."""
    flat: dict[str, object] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
