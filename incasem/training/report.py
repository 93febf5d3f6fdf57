"""The page that a training leaves beside its checkpoints."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from incasem.blockwise import format_seconds
from incasem.config import TrainingConfig
from incasem.evaluation.diagrams import HEADINGS, precision_recall_diagram, score_over_iterations
from incasem.evaluation.report import Curve, SlicePanel, write_report
from incasem.evaluation.report_text import flat_settings
from incasem.networks import ScoredCheckpoint
from incasem.tasks.chosen import task_of

if TYPE_CHECKING:
    from incasem.training.history import History
    from incasem.training.validation import Section, Validation

SMOOTHING = 25  # steps that the smoothed loss is averaged over


def write_training_report(
    directory: Path,
    name: str,
    config: TrainingConfig,
    history: "History",
    best: ScoredCheckpoint | None = None,
) -> Path:
    """Write curves, scores and sections of a training; return the path of the page.

    Sections and precision–recall curves are those of the best checkpoint of this run, else of the latest
    validation; scores are those of both.

    Args:
        directory: where to.
        name: heading.
        config: settings of the run.
        history: losses and validations of this run; a continued one leaves out those of its earlier parts.
        best: checkpoint to recommend, which may be of an earlier part.
    """
    shown = history.shown()
    latest = history.validations[-1] if history.validations else None
    tables = dict(one for one in (shown, latest) if one is not None)
    return write_report(
        directory,
        title=name,
        summary=_summary(history, best),
        slices=_panels(*shown, config) if shown else [],
        curves=curves(history),
        scores={
            _row(validation, class_id, iteration, history): {
                HEADINGS[score]: value for score, value in scores.items()
            }
            for iteration, validations in tables.items()
            for validation in validations
            for class_id, scores in enumerate(validation.scores[1:], start=1)
        },
        facts={
            "What is scored and shown": _scored_as(config),
            "Where the time went": _times(history),
            "Settings": flat_settings(config.to_dict()),
        },
    )


def _scored_as(config: TrainingConfig) -> dict[str, object]:
    meaning = task_of(config).scored_as
    return {"classes": meaning} if meaning else {}


def _times(history: "History") -> dict[str, object]:
    """Return what the wall time of this run went into; a feed that is waited for needs more workers."""
    total = sum(history.seconds.values())
    if not total:
        return {}
    rows: dict[str, object] = {
        what: f"{format_seconds(seconds)}, {100 * seconds / total:.0f} %"
        for what, seconds in history.seconds.items()
    }
    rows["iterations"] = len(history.losses)
    steps = sum(history.seconds.get(what, 0.0) for what in ("waiting for samples", "training steps"))
    rows["iterations a second, without the rest"] = f"{len(history.losses) / steps:.3g}" if steps else None
    return rows


def _row(validation: "Validation", class_id: int, iteration: int, history: "History") -> str:
    best = ", best" if iteration == history.best_iteration else ""
    return f"{validation.nickname}, class {class_id} (iteration {iteration}{best})"


def curves(history: "History") -> list[Curve]:
    """Return the loss and F1 curves of a training, and its precision–recall curve where there is one."""
    steps = [float(iteration) for iteration, _ in history.losses]
    losses = [loss for _, loss in history.losses]
    lines = {"training": (steps, _smooth(losses))}
    for iteration, validations in history.validations:
        for validation in validations:
            _append(lines, f"{validation.nickname}", iteration, validation.loss)
    rows = {iteration: {one.nickname: one.scores for one in of} for iteration, of in history.validations}
    iteration, validations = history.shown() or (0, [])
    regions = {validation.nickname: validation.region for validation in validations}
    return [
        Curve("Loss", lines, y_label="loss"),
        score_over_iterations(rows, "f1", history.best_iteration),
        *precision_recall_diagram(f"Precision and recall, iteration {iteration}", regions),
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


def _panels(iteration: int, validations: "Sequence[Validation]", config: TrainingConfig) -> list[SlicePanel]:
    return [
        _panel(f"{validation.nickname}, iteration {iteration}", validation.section, config)
        for validation in validations
        if validation.section is not None
    ]


def _panel(title: str, section: "Section", config: TrainingConfig) -> SlicePanel:
    return SlicePanel(
        title=f"{title}, z = {section.z}",
        raw_YX=section.raw_YX,
        labels_YX=section.labels_YX,
        prediction_YX=section.prediction_YX,
        excluded_YX=section.excluded_YX,
        pixel_nm=config.data.voxel_size[2],
        ids_YX=section.ids_YX,
        affinities_CYX=section.affinities_CYX,
    )


def _summary(history: "History", best: ScoredCheckpoint | None) -> str:
    text = "Nothing was left to train."
    if history.losses:
        first, last = history.losses[0][0], history.losses[-1][0]
        text = f"Iterations {first} to {last}; last loss {history.losses[-1][1]:.4f}."
    if best is None:
        return text
    return f"{text} The best checkpoint is {best.path.name}, validated F1 {best.f1:.4f}: {best.path}"
