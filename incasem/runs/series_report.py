"""Table and curves of a series of checkpoints."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from incasem.blockwise import count_of, format_seconds
from incasem.config import PredictionConfig
from incasem.durable import write_durably
from incasem.evaluation.diagrams import HEADINGS, precision_recall_diagram, score_over_iterations
from incasem.evaluation.report import Curve, write_report
from incasem.evaluation.report_pictures import curve_png
from incasem.evaluation.report_text import as_csv, flat_settings
from incasem.prediction import EntryPrediction
from incasem.runs.prediction_report import block_facts, block_maps, middle_sections, scored_as
from incasem.tasks.chosen import task_of
from incasem.tasks.region_scores import RegionScores

Scores = Mapping[int, Mapping[str, RegionScores]]


def write_series_report(
    folder: Path,
    *,
    title: str,
    config: PredictionConfig,
    checkpoints: Mapping[int, Path],
    predictions: Mapping[int, Sequence[EntryPrediction]],
    scores: Scores,
    best: tuple[float, int] | None,
    facts: Mapping[str, Any],
) -> list[Path]:
    """Write a page, and for scored checkpoints `scores.csv`, `scores.json` and `f1.png`; return their paths.

    Sections and blocks are shown of the best checkpoint, or of the last one where none was scored.

    Args:
        folder: is made if missing.
        title: heading of the page.
        config: settings of the run.
        checkpoints: iteration → file.
        predictions: iteration → its regions.
        scores: iteration → dataset → scores.
        best: mean F1 and iteration of the best checkpoint; None where none was scored.
        facts: for the page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shown, task = max(checkpoints) if best is None else best[1], task_of(config)
    written: list[Path] = []
    curves: list[Curve] = []
    table: dict[str, dict[str, float]] = {}
    number = count_of(len(checkpoints), "checkpoint")
    summary = f"{number} predicted, not scored. Shown is iteration {shown}."
    if best is not None:
        curves, table, written = _scored(folder, checkpoints, scores, best)
        summary = (
            f"The best of {number} is that of iteration {shown}, F1 {best[0]:.4f}. "
            "Sections and blocks are shown of it."
        )
    page = write_report(
        folder,
        title=title,
        summary=summary,
        slices=middle_sections(predictions[shown], config),
        curves=curves,
        scores=table,
        class_names=[f"class {c}" for c in range(1, task.num_classes)],
        diagrams=block_maps(predictions[shown]),
        facts={
            **scored_as(task),
            "Predictions": {**facts, f"checkpoint of iteration {shown}": checkpoints[shown]},
            "Time of each checkpoint": _durations(predictions),
            **block_facts(predictions[shown]),
            "Settings": flat_settings(config.to_dict()),
        },
    )
    return [*written, page]


def _scored(
    folder: Path, checkpoints: Mapping[int, Path], scores: Scores, best: tuple[float, int]
) -> tuple[list[Curve], dict[str, dict[str, float]], list[Path]]:
    """Write table and curve; return the curves and the table of the page, and the files."""
    rows = list(_rows(checkpoints, scores))
    f1, iteration = best
    summary = {"iteration": iteration, "f1": f1, "checkpoint": str(checkpoints[iteration])}
    by_iteration = {
        i: {name: region.by_class() for name, region in regions.items()} for i, regions in scores.items()
    }
    curve = score_over_iterations(by_iteration, "f1", iteration)
    content = {
        "scores.csv": as_csv(rows).encode(),
        "scores.json": (json.dumps({"best": summary, "scores": rows}, indent=2) + "\n").encode(),
        "f1.png": curve_png(curve),
    }
    for name, data in content.items():
        write_durably(folder / name, data)
    curves = [
        curve,
        score_over_iterations(by_iteration, "average_precision", iteration),
        *precision_recall_diagram(f"Precision and recall, iteration {iteration}", scores[iteration]),
    ]
    table = {
        f"{row['dataset']}, class {row['class']} (iteration {row['iteration']}"
        f"{', best' if row['iteration'] == iteration else ''})": {
            heading: math.nan if row[score] is None else row[score] for score, heading in HEADINGS.items()
        }
        for row in rows
        if row["class"] > 0
    }
    return curves, table, [folder / name for name in content]


def _durations(predictions: Mapping[int, Sequence[EntryPrediction]]) -> dict[str, str]:
    """Return what the regions of each checkpoint took, and the slowest block among them."""
    durations = {}
    for iteration, regions in sorted(predictions.items()):
        slowest = [
            float(stages.sum())
            for one in regions
            if one.report.blocks is not None
            for _, stages in one.report.blocks.slowest(1)
        ]
        if all(one.report.already_complete for one in regions):
            took = "predicted before"
        else:
            took = format_seconds(sum(one.report.seconds for one in regions))
        durations[f"iteration {iteration}"] = (
            f"{took}, slowest block {max(slowest):.2f} s of work" if slowest else took
        )
    return durations


def _rows(checkpoints: Mapping[int, Path], scores: Scores) -> Iterator[dict[str, Any]]:
    """Yield one row for each iteration, dataset and class; a score that is not defined is None."""
    for iteration, regions in sorted(scores.items()):
        for nickname, region in regions.items():
            for class_id, row in enumerate(region.by_class()):
                defined = {name: value if math.isfinite(value) else None for name, value in row.items()}
                place = {"iteration": iteration, "dataset": nickname, "class": class_id}
                yield place | defined | {"checkpoint": str(checkpoints[iteration])}
