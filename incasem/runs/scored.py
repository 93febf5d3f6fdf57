"""The scores of a recorded run in few numbers, whichever names they were logged under."""

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

from incasem.tracking import Metric

# Our name and the published one, of validations and of scored predictions; class 0 is the background.
F1 = r"^(f1|dice)_class_([1-9]\d*)_(?:validation_)?ds_(\d+)$"
VALIDATION_LOSS = r"^loss_val_ds_(\d+)_type_0$"
OVERVIEW = f"{F1}|{VALIDATION_LOSS}"


@dataclass(frozen=True)
class Best:
    """The best value of a score (mean over classes and datasets), and the iteration that reached it."""

    value: float
    iteration: int


def f1_curves(metrics: Mapping[str, Metric]) -> dict[tuple[int, int], Metric]:
    """Return the F1 of each foreground class and dataset of a run, by their numbers."""
    curves = {}
    for name in sorted(metrics):  # "dice" before "f1", which wins
        match = re.match(F1, name)
        if match:
            curves[int(match[2]), int(match[3])] = metrics[name]
    return curves


def best_f1(metrics: Mapping[str, Metric]) -> Best | None:
    """Return the highest F1 of a run, mean over foreground classes and datasets; None without any."""
    return _best(list(f1_curves(metrics).values()), sign=1)


def lowest_validation_loss(metrics: Mapping[str, Metric]) -> Best | None:
    """Return the lowest validation loss of a run, mean over datasets; None without any."""
    return _best([m for name, m in metrics.items() if re.match(VALIDATION_LOSS, name)], sign=-1)


def _best(curves: list[Metric], sign: int) -> Best | None:
    """Return the best mean over curves, among the steps that all of them have."""
    values: defaultdict[int, list[float]] = defaultdict(list)
    for curve in curves:
        for step, value in dict(zip(curve.steps, curve.values, strict=True)).items():
            values[step].append(value)
    complete = [Best(fmean(found), step) for step, found in values.items() if len(found) == len(curves)]
    return max(complete, key=lambda best: (sign * best.value, -best.iteration), default=None)
