"""Table and curves of a series of checkpoints."""

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from incasem.durable import write_durably
from incasem.evaluation.diagrams import HEADINGS, precision_recall_diagram, score_over_iterations
from incasem.evaluation.report import write_report
from incasem.evaluation.report_pictures import curve_png
from incasem.tasks.region_scores import RegionScores

Scores = Mapping[int, Mapping[str, RegionScores]]


def write_series_report(
    folder: Path,
    *,
    title: str,
    checkpoints: Mapping[int, Path],
    scores: Scores,
    best: tuple[float, int],
    settings: Mapping[str, Any],
) -> list[Path]:
    """Write `scores.csv`, `scores.json`, `f1.png` and a page into ``folder``; return their paths.

    Args:
        folder: is made if missing.
        title: heading of the page.
        checkpoints: iteration → file.
        scores: iteration → dataset → scores.
        best: mean F1 and iteration of the best checkpoint.
        settings: facts for the page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = list(_rows(checkpoints, scores))
    f1, iteration = best
    summary = {"iteration": iteration, "f1": f1, "checkpoint": str(checkpoints[iteration])}
    by_iteration = {
        i: {name: region.by_class() for name, region in regions.items()} for i, regions in scores.items()
    }
    curve = score_over_iterations(by_iteration, "f1", iteration)
    content = {
        "scores.csv": _as_csv(rows),
        "scores.json": (json.dumps({"best": summary, "scores": rows}, indent=2) + "\n").encode(),
        "f1.png": curve_png(curve),
    }
    for name, data in content.items():
        write_durably(folder / name, data)
    page = write_report(
        folder,
        title=title,
        summary=f"The best of {len(checkpoints)} checkpoints is that of iteration {iteration}, F1 {f1:.4f}.",
        curves=[
            curve,
            score_over_iterations(by_iteration, "average_precision", iteration),
            *precision_recall_diagram(f"Precision and recall, iteration {iteration}", scores[iteration]),
        ],
        scores={
            f"{row['dataset']}, class {row['class']} (iteration {row['iteration']}"
            f"{', best' if row['iteration'] == iteration else ''})": {
                heading: math.nan if row[score] is None else row[score] for score, heading in HEADINGS.items()
            }
            for row in rows
            if row["class"] > 0
        },
        facts={"Predictions": {**settings, "best checkpoint": checkpoints[iteration]}},
    )
    return [*(folder / name for name in content), page]


def _rows(checkpoints: Mapping[int, Path], scores: Scores) -> Iterator[dict[str, Any]]:
    """Yield one row for each iteration, dataset and class; a score that is not defined is None."""
    for iteration, regions in sorted(scores.items()):
        for nickname, region in regions.items():
            for class_id, row in enumerate(region.by_class()):
                defined = {name: value if math.isfinite(value) else None for name, value in row.items()}
                place = {"iteration": iteration, "dataset": nickname, "class": class_id}
                yield place | defined | {"checkpoint": str(checkpoints[iteration])}


def _as_csv(rows: list[dict[str, Any]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()
