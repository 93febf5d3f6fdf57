"""What an evaluation of segmentations leaves: `scores.json`, `scores.csv`, a page with the worst errors."""

import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

from incasem.durable import write_durably
from incasem.errors import DataError
from incasem.evaluation.directories import report_directory
from incasem.evaluation.partition import Misfit, PartitionEvaluation, Scored, error_of
from incasem.evaluation.partition_inputs import Metric, split_threshold
from incasem.evaluation.partition_pictures import diagrams
from incasem.evaluation.report import Curve, write_report
from incasem.evaluation.report_text import as_csv
from incasem.geometry import format_roi

COLUMNS = (
    "adapted_rand_error",
    "rand_precision",
    "rand_recall",
    "voi_split",
    "voi_merge",
    "voi",
    "adapted_rand_snemi",
)
_NAMES: dict[Metric, str] = {"adapted_rand": "adapted Rand", "voi": "VOI"}


def as_row(scored: Scored) -> dict[str, float]:
    """Return the scores of one segmentation by name."""
    row = {name: float(getattr(scored.scores, name)) for name in COLUMNS}
    if scored.boundary is not None:
        row |= {f"boundary_{name}": getattr(scored.boundary, name) for name in ("f1", "precision", "recall")}
    return row | {"segments": scored.segments}


def table(evaluation: PartitionEvaluation) -> str:
    """Return the scores as lines for the terminal; the best segmentation by either score is starred."""
    width = max(12, *(len(one.name) for one in evaluation.scored))
    head = f"{'segmentation':<{width}}  adapted Rand  precision  recall  VOI split + merge   VOI"
    edges = evaluation.best.boundary is not None
    lines = [f"{head}{'  boundary F1' if edges else ''}  segments"]
    for one in evaluation.scored:
        s = one.scores
        stars = [
            f"* best {_NAMES[metric]}"
            for metric in _NAMES
            if len(evaluation.scored) > 1 and one == min(evaluation.scored, key=lambda o: error_of(o, metric))
        ]
        edge = f"  {one.boundary.f1:>11.4f}" if one.boundary is not None else ""
        lines.append(
            f"{one.name:<{width}}  {s.adapted_rand_error:>12.4f}  {s.rand_precision:>9.4f}"
            f"  {s.rand_recall:>6.4f}  {s.voi_split:>9.4f} + {s.voi_merge:<6.4f} {s.voi:>6.4f}{edge}"
            f"  {one.segments:>8}  {' '.join(stars)}".rstrip()
        )
    return "\n".join(lines)


def summary(evaluation: PartitionEvaluation) -> str:
    """Return what was counted, in a few words."""
    region = evaluation.opened.roi_voxels
    voxels = evaluation.best.scores.voxels
    tolerance = evaluation.tolerance_nm
    edges = "" if tolerance is None else f"; boundaries within {tolerance:g} nm"
    return (
        f"{voxels} voxels counted ({voxels / math.prod(region.shape):.1%} of {format_roi(region)}), in "
        f"{evaluation.best.objects} objects{edges}"
    )


def misfit_rows(misfits: tuple[Misfit, ...], noun: str) -> dict[str, str]:
    """Return mergers (of ``segment``s) or splits (of ``object``s) for a table: which one → what and where."""
    part = "object" if noun == "segment" else "segment"
    rows = {}
    for misfit in misfits:
        offender = misfit.offender
        parts = ", ".join(f"{name} ({voxels})" for name, voxels in offender.parts)
        more = f" and {offender.count - len(offender.parts)} more" if offender.count > 5 else ""
        at = " ".join(map(str, misfit.place.voxel))
        where = f"the first two touch at {at}" if misfit.place.contact else f"the second is at {at}"
        rows[f"{noun} {offender.id}"] = (
            f"{offender.voi:.4f} bits, {offender.voxels} voxels; {part}s {parts}{more}; {where}"
        )
    return rows


def write_evaluation(evaluation: PartitionEvaluation) -> Path:
    """Write the three files and return the path of the page.

    Raises:
        DataError: the directory cannot be written.
    """
    options = evaluation.options
    directory = report_directory(options.out_directory, options.segmentations[0], options.labels)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        write_durably(directory / "scores.json", json.dumps(_record(evaluation), indent=1).encode())
        rows = [{"segmentation": one.name} | as_row(one) for one in evaluation.scored]
        write_durably(directory / "scores.csv", as_csv(rows).encode())
    except OSError as error:
        raise DataError(f"{directory} cannot be written: {error}. Choose another --out_directory.") from error
    best = evaluation.best
    what = best.name if len(evaluation.scored) == 1 else f"{len(evaluation.scored)} segmentations"
    return write_report(
        directory,
        title=f"{what} against {Path(options.labels).name}",
        summary=summary(evaluation),
        curves=_curves(evaluation),
        scores={_starred(evaluation, one): _shown(one) for one in evaluation.scored},
        diagrams=diagrams(evaluation),
        rows="segmentation",
        diagrams_title="Sections, and the worst errors close up",
        facts={
            f"Worst mergers of {best.name} (voxels z y x)": misfit_rows(evaluation.mergers, "segment"),
            f"Worst splits of {best.name} (voxels z y x)": misfit_rows(evaluation.splits, "object"),
            "What was compared": _facts(evaluation),
        },
    )


def _starred(evaluation: PartitionEvaluation, one: Scored) -> str:
    several = len(evaluation.scored) > 1
    return f"{one.name} ★" if several and one == evaluation.best else one.name


def _shown(one: Scored) -> dict[str, float]:
    s = one.scores
    shown = {
        "adapted Rand error": s.adapted_rand_error,
        "precision": s.rand_precision,
        "recall": s.rand_recall,
        "VOI split": s.voi_split,
        "VOI merge": s.voi_merge,
        "VOI": s.voi,
    }
    if one.boundary is not None:
        shown["boundary F1"] = one.boundary.f1
    return shown


def _facts(evaluation: PartitionEvaluation) -> dict[str, object]:
    options, opened = evaluation.options, evaluation.opened
    rule = "lowest total VOI" if options.metric == "voi" else "lowest adapted Rand error"
    return {
        "truth": f"{options.labels} ({opened.labels.dtype})",
        "segmentations": ", ".join(one.path for one in evaluation.scored),
        "best (★)": f"{evaluation.best.path}: {rule}",
        "masks": list(options.masks) or None,
        "ignored id of the truth": options.ignored_truth,
        "region (voxels; z, y, x)": format_roi(opened.roi_voxels),
        "voxels counted": evaluation.best.scores.voxels,
        "objects; segments": f"{evaluation.best.objects}; {evaluation.best.segments}",
        "tolerance of boundaries": None
        if evaluation.tolerance_nm is None
        else f"{evaluation.tolerance_nm:g} nm",
        "adapted Rand error by SNEMI3D's count": evaluation.best.scores.adapted_rand_snemi,
    }


def _record(evaluation: PartitionEvaluation) -> dict[str, Any]:
    options, opened = evaluation.options, evaluation.opened
    region = opened.roi_voxels
    return {
        "labels": options.labels,
        "masks": list(options.masks),
        "ignored_truth": options.ignored_truth,
        "roi_voxels": {"offset": list(region.begin), "shape": list(region.shape)},
        "voxels": evaluation.best.scores.voxels,
        "objects": evaluation.best.objects,
        "boundary_tolerance_nm": evaluation.tolerance_nm,
        "metric": options.metric,
        "best": evaluation.best.path,
        "segmentations": [{"path": one.path, "name": one.name} | as_row(one) for one in evaluation.scored],
        "mergers": [_misfit_record(evaluation, misfit) for misfit in evaluation.mergers],
        "splits": [_misfit_record(evaluation, misfit) for misfit in evaluation.splits],
    }


def _misfit_record(evaluation: PartitionEvaluation, misfit: Misfit) -> dict[str, Any]:
    offender, place = misfit.offender, misfit.place
    size = evaluation.opened.labels.voxel_size
    return {
        "id": offender.id,
        "voxels": offender.voxels,
        "voi": offender.voi,
        "parts": [{"id": name, "voxels": voxels} for name, voxels in offender.parts],
        "number_of_parts": offender.count,
        "voxel": list(place.voxel),
        "nm": [(v + 0.5) * s for v, s in zip(place.voxel, size, strict=True)],
        "contact": place.contact,
    }


def _curves(evaluation: PartitionEvaluation) -> list[Curve]:
    """Return the scores over the thresholds at the end of the names, one line a family of names."""
    families: dict[str, list[tuple[float, Scored]]] = defaultdict(list)
    for one in evaluation.scored:
        stem, threshold = split_threshold(one.name)
        if not math.isnan(threshold):
            families[stem or "segmentation"].append((threshold, one))
    lines = {stem: sorted(found, key=lambda f: f[0]) for stem, found in families.items() if len(found) > 1}
    if not lines:
        return []

    def over(name: str) -> dict[str, tuple[list[float], list[float]]]:
        return {
            stem: ([at for at, _ in found], [getattr(one.scores, name) for _, one in found])
            for stem, found in lines.items()
        }

    def curve(title: str, values: dict[str, tuple[list[float], list[float]]], label: str) -> Curve:
        return Curve(title, values, x_label="threshold", y_label=label, noisy=False)

    parts = {
        f"{stem}, {name.removeprefix('voi_')}": line
        for name in ("voi_split", "voi_merge")
        for stem, line in over(name).items()
    }
    return [
        curve("Adapted Rand error over the threshold", over("adapted_rand_error"), "adapted Rand error"),
        curve("Variation of information over the threshold", over("voi") | parts, "bits"),
    ]
