"""What an evaluation leaves: `scores.json`, `scores.csv`, and a page with the curves over the thresholds."""

import json
import math
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from incasem.durable import write_durably
from incasem.errors import DataError
from incasem.evaluation.block_map import block_map, slowest_blocks
from incasem.evaluation.diagrams import HEADINGS
from incasem.evaluation.directories import report_directory
from incasem.evaluation.evaluate import Evaluation, score_of
from incasem.evaluation.report import Curve, Diagram, SlicePanel, write_report
from incasem.evaluation.report_text import as_csv
from incasem.geometry import Coordinate, Roi, format_roi
from incasem.metrics.thresholds import ThresholdScores, reaches
from incasem.volumes import Volume, exists, open_volume, split_path

COLUMNS = ("threshold", "jaccard", "f1", "precision", "recall")
_COUNTS = ("true_positives", "false_positives", "false_negatives", "true_negatives")
_METRIC_NAMES = {"jaccard": "Jaccard", "dice": "F1", "precision_recall": "precision + recall"}
_RAW = ("volumes/raw_equalized_0.02", "volumes/raw")
_SHOWN_VOXELS = 768


def as_rows(scores: list[ThresholdScores]) -> list[dict[str, float]]:
    """Return one row a threshold: scores, then counts of voxels."""
    return [
        {"threshold": at.threshold}
        | {name: getattr(at.scores, name) for name in COLUMNS[1:]}
        | {name: getattr(at, name) for name in _COUNTS}
        for at in scores
    ]


def table(evaluation: Evaluation) -> str:
    """Return the scores at the asked thresholds as lines for the terminal; the best one is starred."""
    metric = evaluation.options.metric
    lines = [f"{'threshold':>9}  {'Jaccard':>8}  {'F1':>8}  {'precision':>9}  {'recall':>8}"]
    for at in evaluation.sweep.scores():
        row = at.scores
        star = f"  * best {_METRIC_NAMES[metric]}" if at == evaluation.best else ""
        lines.append(
            f"{at.threshold:>9g}  {row.jaccard:>8.4f}  {row.f1:>8.4f}  {row.precision:>9.4f}  "
            f"{row.recall:>8.4f}{star}"
        )
    return "\n".join(lines)


def summary(evaluation: Evaluation) -> str:
    """Return what was counted, in a few words."""
    opened = evaluation.opened
    support = evaluation.best.scores.support
    share = evaluation.sweep.voxels / math.prod(opened.roi_voxels.shape)
    padding = " ".join(map(str, opened.roi_padding))
    return (
        f"{evaluation.sweep.voxels} voxels counted ({share:.1%} of {format_roi(opened.roi_voxels)}), "
        f"{support} of them in the labels; roi_padding {padding} ({opened.padding_reason})"
    )


def write_evaluation(evaluation: Evaluation) -> Path:
    """Write the three files and return the path of the page.

    Raises:
        DataError: the directory cannot be written.
    """
    options = evaluation.options
    directory = report_directory(options.out_directory, options.prediction, options.labels)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        write_durably(directory / "scores.json", json.dumps(_record(evaluation), indent=1).encode())
        write_durably(directory / "scores.csv", as_csv(as_rows(evaluation.sweep.scores())).encode())
    except OSError as error:
        raise DataError(f"{directory} cannot be written: {error}. Choose another --out_directory.") from error
    return write_report(
        directory,
        title=f"{Path(evaluation.options.prediction).name} against {Path(evaluation.options.labels).name}",
        summary=summary(evaluation),
        slices=_slices(evaluation),
        curves=_curves(evaluation),
        scores={
            _row_name(evaluation, at): {HEADINGS[name]: getattr(at.scores, name) for name in COLUMNS[1:]}
            for at in _for_page(evaluation)
        },
        facts={"What was compared": _facts(evaluation), **_slowest(evaluation)},
        diagrams=_diagrams(evaluation),
    )


def _row_name(evaluation: Evaluation, at: ThresholdScores) -> str:
    if evaluation.opened.kind != "probabilities":
        return "segmentation"
    best = f" (best {_METRIC_NAMES[evaluation.options.metric]})" if at == evaluation.best else ""
    return f"threshold {at.threshold:g}{best}"


def _for_page(evaluation: Evaluation) -> list[ThresholdScores]:
    """Return the rows of the page's table: all of a short sweep, else the best and some between."""
    scores = evaluation.sweep.scores()
    if len(scores) <= 21:
        return scores
    chosen = [scores[i] for i in np.linspace(0, len(scores) - 1, 20).round().astype(int)]
    return sorted({*chosen, evaluation.best}, key=lambda at: at.threshold)


def _facts(evaluation: Evaluation) -> dict[str, object]:
    options, opened = evaluation.options, evaluation.opened
    return {
        "prediction": f"{options.prediction} ({opened.prediction.dtype}, {opened.kind})",
        "labels": options.labels,
        "masks": list(options.masks) or None,
        "region (voxels; z, y, x)": format_roi(opened.roi_voxels),
        "roi_padding": f"{' '.join(map(str, opened.roi_padding))}: {opened.padding_reason}",
        "voxels counted": evaluation.sweep.voxels,
        "voxels of the structure": evaluation.best.scores.support,
        "best threshold": f"{evaluation.best.threshold:g}, by {_METRIC_NAMES[options.metric]}",
        "average precision": _average_precision(evaluation),
    }


def _slowest(evaluation: Evaluation) -> dict[str, dict[str, str]]:
    record = evaluation.report.blocks
    return {} if record is None else {"Slowest blocks": slowest_blocks(record)}


def _diagrams(evaluation: Evaluation) -> list[Diagram]:
    record = evaluation.report.blocks
    return [] if record is None else [block_map(record, evaluation.report.summary())]


def _average_precision(evaluation: Evaluation) -> float:
    """Return the area under the curve; of a segmentation, which ranks nothing, NaN."""
    probabilities = evaluation.opened.kind == "probabilities"
    return evaluation.sweep.curve().average_precision if probabilities else math.nan


def _record(evaluation: Evaluation) -> dict[str, Any]:
    options, opened = evaluation.options, evaluation.opened
    precision = _average_precision(evaluation)
    return {
        "prediction": options.prediction,
        "labels": options.labels,
        "masks": list(options.masks),
        "kind": opened.kind,
        "class_id": options.class_id,
        "roi_voxels": {"offset": list(opened.roi_voxels.begin), "shape": list(opened.roi_voxels.shape)},
        "roi_padding": list(opened.roi_padding),
        "voxels": evaluation.sweep.voxels,
        "metric": options.metric,
        "average_precision": None if math.isnan(precision) else precision,
        "best": {"threshold": evaluation.best.threshold, "score": score_of(evaluation.best, options.metric)},
        "thresholds": as_rows(evaluation.sweep.scores()),
    }


def _curves(evaluation: Evaluation) -> list[Curve]:
    if evaluation.opened.kind != "probabilities":
        return []
    levels = evaluation.sweep.level_scores()
    x = [at.threshold for at in levels]
    lines = {
        name: (x, [getattr(at.scores, field) for at in levels])
        for name, field in (
            ("Jaccard", "jaccard"),
            ("F1", "f1"),
            ("precision", "precision"),
            ("recall", "recall"),
        )
    }
    best, metric = evaluation.best, evaluation.options.metric
    starred = best.scores.f1 if metric == "dice" else best.scores.jaccard
    curves = [
        Curve(
            "Scores over the threshold", lines, x_label="threshold", y_label="score", x_limits=(0, 1),
            y_limits=(0, 1), noisy=False,
            marks={f"best asked for: {best.threshold:g}": [(best.threshold, starred)]},
        )
    ]  # fmt: skip
    curve = evaluation.sweep.curve()
    if math.isfinite(curve.average_precision):
        name = f"AP {curve.average_precision:.3f}"
        points = ([0.0, *curve.recall], [curve.precision[0], *curve.precision])
        curves.append(
            Curve(
                "Precision and recall", {name: points}, x_label="recall", y_label="precision",
                x_limits=(0, 1), y_limits=(0, 1), noisy=False,
                marks={f"threshold {best.threshold:g}": [(best.scores.recall, best.scores.precision)]},
            )
        )  # fmt: skip
    return curves


def _slices(evaluation: Evaluation) -> list[SlicePanel]:
    """Return three sections of the region: raw data where they are found, else the probabilities."""
    opened = evaluation.opened
    region = opened.roi_voxels
    options = evaluation.options
    raw = raw_beside((options.labels, options.prediction), opened.prediction.voxel_size)
    size = [min(_SHOWN_VOXELS, n) for n in region.shape[1:]]
    corner = [b + (n - s) // 2 for b, n, s in zip(region.begin[1:], region.shape[1:], size, strict=True)]
    depth = region.shape[0]
    panels = []
    for z in sorted({region.begin[0] + depth * k // 4 for k in (1, 2, 3)}):
        roi = Roi(Coordinate(z, *corner), Coordinate(1, *size))
        probabilities, counted = opened.probabilities(roi)[0], opened.counted(roi)
        grey = probabilities
        if raw is not None and raw.roi_voxels.contains(roi):
            grey = raw.read_voxels(roi)[0]
        panels.append(
            SlicePanel(
                title=f"z = {z}" + ("" if grey is not probabilities else ", on the probabilities"),
                raw_YX=grey,
                labels_YX=opened.truth(roi)[0].astype(np.uint8),
                prediction_YX=reaches(probabilities, evaluation.best.threshold or 1 / 255).astype(np.uint8),
                excluded_YX=None if counted is None else ~counted[0],
                pixel_nm=opened.prediction.voxel_size[2],
            )
        )
    return panels


def raw_beside(paths: Sequence[str], voxel_size: Sequence[float]) -> Volume | None:
    """Return the raw data in the containers of labels or predictions, if they have some that fit."""
    for path in paths:
        container = split_path(path)[0]
        for dataset in _RAW:
            with suppress(DataError):
                if exists(container / dataset):
                    volume = open_volume(container / dataset)
                    if volume.voxel_size == voxel_size:
                        return volume
    return None
