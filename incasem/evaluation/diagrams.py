"""The diagrams of scores that several reports show."""

import math
from collections.abc import Mapping, Sequence

from incasem.evaluation.report import Curve
from incasem.tasks.region_scores import RegionScores

ClassRows = Sequence[Mapping[str, float]]
"""Scores of class 0, 1, …: see `RegionScores.by_class`."""

#: Scores as tables head them.
HEADINGS = {
    "f1": "F1",
    "jaccard": "Jaccard",
    "precision": "precision",
    "recall": "recall",
    "average_precision": "average precision",
}


def score_over_iterations(
    by_iteration: Mapping[int, Mapping[str, ClassRows]], score: str, best: int | None
) -> Curve:
    """Return a score of every dataset and class but the background over the iterations.

    Args:
        by_iteration: iteration → dataset → scores of its classes.
        score: a name in `HEADINGS`.
        best: iteration of the best checkpoint, which is starred if it is there.
    """
    lines: dict[str, tuple[list[float], list[float]]] = {}
    stars = []
    for iteration, datasets in sorted(by_iteration.items()):
        for nickname, rows in datasets.items():
            for class_id, row in enumerate(rows[1:], start=1):
                x, y = lines.setdefault(f"{nickname}, class {class_id}", ([], []))
                x.append(float(iteration))
                y.append(row[score])
                if iteration == best and math.isfinite(row[score]):
                    stars.append((float(iteration), row[score]))
    marks = {f"best checkpoint: iteration {best}": stars} if stars else {}
    return Curve(HEADINGS[score], lines, y_label=HEADINGS[score], y_limits=(0, 1), marks=marks)


def precision_recall_diagram(title: str, datasets: Mapping[str, RegionScores]) -> list[Curve]:
    """Return precision over recall of every dataset and class but the background, none without a curve.

    The star on a curve is the segmentation, which takes the class of the largest probability.
    """
    lines: dict[str, tuple[Sequence[float], Sequence[float]]] = {}
    stars = []
    for nickname, region in datasets.items():
        for class_id, row in enumerate(region.by_class()[1:], start=1):
            curve = region.precision_recall.curve(class_id)
            if math.isfinite(curve.average_precision):
                name = f"{nickname}, class {class_id}: AP {curve.average_precision:.3f}"
                # From recall 0 on, so that the average precision is what lies under the line's steps.
                start = curve.precision[0]
                lines[name] = ([0.0, *curve.recall], [start, *curve.precision])
                stars.append((row["recall"], row["precision"]))
    if not lines:
        return []
    return [
        Curve(
            title, lines, x_label="recall", y_label="precision", x_limits=(0, 1), y_limits=(0, 1),
            noisy=False, marks={"segmentation": stars},
        )
    ]  # fmt: skip
