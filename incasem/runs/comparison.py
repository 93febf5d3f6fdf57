"""The F1 of several runs over their iterations, in one picture."""

from collections.abc import Sequence
from pathlib import Path

from incasem.durable import write_durably
from incasem.errors import DataError, explain
from incasem.evaluation.report_pictures import Curve, curve_png
from incasem.runs.scored import F1, f1_curves
from incasem.tracking import RunStore


def write_comparison(store: RunStore, run_ids: Sequence[int], path: Path) -> None:
    """Draw the F1 of runs, of every foreground class and dataset that they were validated on.

    Args:
        store: holds the runs.
        run_ids: runs, in the order of the legend.
        path: PNG file, replaced if it exists.

    Raises:
        TrackingError: a run does not exist.
        DataError: none of them has an F1, or ``path`` does not end in .png.
    """
    if path.suffix.lower() != ".png":
        raise DataError(explain("the picture", path, "a path that ends in .png", "Name it so"))
    curve = f1_of_runs(store, run_ids)
    if curve.empty:
        ids = ", ".join(map(str, run_ids))
        raise DataError(
            explain("the F1 of runs", f"not recorded in {ids}", "runs with a validation", "Choose others")
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_durably(path, curve_png(curve))


def f1_of_runs(store: RunStore, run_ids: Sequence[int]) -> Curve:
    """Return a line for each run, class and dataset; class and dataset are named where there are several."""
    found = {run_id: f1_curves(store.metrics(run_id, F1)) for run_id in run_ids}
    several = len({key for curves in found.values() for key in curves}) > 1
    lines = {}
    for run_id, curves in found.items():
        run = f"{run_id}: {store.info(run_id).name}"
        for (class_id, dataset), metric in curves.items():
            name = f"{run}, class {class_id}, dataset {dataset}" if several else run
            lines[name] = (metric.steps, metric.values)
    return Curve("F1 of validations", lines, y_label="F1", y_limits=(0, 1), noisy=False)
