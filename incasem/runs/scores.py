"""The scores of finished predictions: taken, recorded under their published names, and told."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from incasem.config import PredictionConfig
from incasem.evaluation.diagrams import HEADINGS
from incasem.evaluation.scoring import score_entry
from incasem.prediction import EntryPrediction
from incasem.tasks.chosen import task_of
from incasem.tasks.region_scores import RegionScores
from incasem.tracking import Run


def score_predictions(
    config: PredictionConfig,
    predictions: Sequence[EntryPrediction],
    run: Run,
    tell: Callable[[str], None],
    step: int = 0,
) -> dict[str, RegionScores]:
    """Score the entries with labels, record the published metrics, and return the scores by nickname.

    Args:
        config: with `prediction.log_metrics`, without which nothing is scored.
        predictions: finished ones.
        run: that records them.
        tell: gets a line for each class.
        step: under which the metrics are recorded.
    """
    if not config.prediction.log_metrics:
        return {}
    found: dict[str, RegionScores] = {}
    task = task_of(config)
    if task.scored_as:
        tell(f"scores: {task.scored_as}")
    for index, prediction in enumerate(predictions):
        if not prediction.entry.labels:
            continue
        scores = score_entry(prediction.arrays, prediction.entry, task)
        found[prediction.entry.nickname] = scores
        for class_id, row in enumerate(scores.by_class()):
            _record(run, index, class_id, row, step)
            if class_id > 0:
                tell(f"{prediction.entry.nickname}, class {class_id}: {_in_words(row)}")
    return found


def as_record(predictions: Sequence[EntryPrediction], scores: Mapping[str, RegionScores]) -> dict[str, Any]:
    """Return what the run store keeps of finished predictions: folders, and scores by nickname if any."""
    record: dict[str, Any] = {"folders": [str(prediction.folder) for prediction in predictions]}
    if scores:
        record["scores"] = {
            nickname: [
                vars(counted) | row
                for counted, row in zip(region.overlap.scores(), region.by_class(), strict=True)
            ]
            for nickname, region in scores.items()
        }
    return record


def _in_words(row: Mapping[str, float]) -> str:
    defined = {name: value for name, value in row.items() if math.isfinite(value)}
    return ", ".join(f"{HEADINGS[name]} {value:.4f}" for name, value in defined.items())


def _record(run: Run, dataset: int, class_id: int, row: Mapping[str, float], step: int) -> None:
    """Record scores under their published names, and those that the published code has not."""
    names = {
        "jaccard": ("jaccard_class",), "f1": ("dice_class", "f1_class"), "precision": ("precision",),
        "recall": ("recall",), "average_precision": ("average_precision_class",),
    }  # fmt: skip
    for score, value in row.items():
        for name in names[score] if math.isfinite(value) else ():
            run.log_scalar(f"{name}_{class_id}_ds_{dataset}", value, step)
