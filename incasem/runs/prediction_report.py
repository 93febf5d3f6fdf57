"""The page that a prediction leaves: how it looks, how it was cut, where the time went, how good it is."""

import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from incasem.blockwise import FAILED, JobReport, format_seconds
from incasem.config import DataEntry, PredictionConfig
from incasem.evaluation.block_map import block_map, failed_blocks, slowest_blocks
from incasem.evaluation.diagrams import HEADINGS, precision_recall_diagram
from incasem.evaluation.report import Diagram, SlicePanel, write_report
from incasem.evaluation.report_text import flat_settings
from incasem.geometry import Coordinate, Roi, format_roi
from incasem.prediction import EntryPrediction
from incasem.tasks.chosen import task_of
from incasem.tasks.ground_truth import GroundTruth
from incasem.tasks.region_scores import RegionScores
from incasem.tasks.task import Predicted, Task
from incasem.volumes import Volume, open_volume, split_path

__all__ = [
    "block_facts",
    "block_maps",
    "decoded_voxels",
    "middle_sections",
    "middle_window",
    "scored_as",
    "write_prediction_report",
]

_WINDOW = 512
"""Most voxels along a side of a shown section, around the region's middle: a terabyte is read as quickly as a
box."""
_MOST_DECODED = 2**28
"""Voxels of raw data, for one section."""
_MOST_REGIONS = 4


def write_prediction_report(
    directory: Path,
    *,
    title: str,
    config: PredictionConfig,
    predictions: Sequence[EntryPrediction],
    scores: Mapping[str, RegionScores] | None = None,
    failure: str = "",
) -> Path:
    """Write sections, scores, planner figures and block times; return the path of the page.

    Args:
        directory: where to.
        title: heading.
        config: settings of the run.
        predictions: finished ones; the last one may have failed blocks.
        scores: by nickname.
        failure: why the run ended early; empty where it did not.
    """
    scores, task = scores or {}, task_of(config)
    return write_report(
        directory,
        title=title,
        summary=failure or _summary(predictions),
        slices=middle_sections(predictions, config),
        curves=precision_recall_diagram("Precision and recall", scores) if scores else [],
        scores={
            f"{nickname}, class {class_id}": {HEADINGS[name]: value for name, value in row.items()}
            for nickname, region in scores.items()
            for class_id, row in enumerate(region.by_class()[1:], start=1)
        },
        class_names=[f"class {c}" for c in range(1, task.num_classes)],
        facts=scored_as(task) | block_facts(predictions) | {"Settings": flat_settings(config.to_dict())},
        commands=list(_commands([one for one in predictions if _is_complete(one)][:1])),
        diagrams=block_maps(predictions),
    )


def scored_as(task: Task) -> dict[str, Mapping[str, object]]:
    """Return what the scored classes are, where the labels do not say it: heading → name → value."""
    return {"What is scored and shown": {"classes": task.scored_as}} if task.scored_as else {}


def middle_sections(predictions: Sequence[EntryPrediction], config: PredictionConfig) -> list[SlicePanel]:
    """Return the sections through the middle of the first regions, of those without failed blocks."""
    complete = [one for one in predictions[:_MOST_REGIONS] if _is_complete(one)]
    return [panel for one in complete for panel in _panels(one, task_of(config))]


def block_maps(predictions: Sequence[EntryPrediction]) -> list[Diagram]:
    """Return a map of the blocks of each of the first regions whose times are known."""
    return [
        Diagram(one.entry.nickname, diagram.png, f"{one.entry.nickname}: {diagram.caption}")
        for one in predictions[:_MOST_REGIONS]
        if one.report.blocks is not None
        for diagram in [block_map(one.report.blocks, _caption(one.report))]
    ]


def block_facts(predictions: Sequence[EntryPrediction]) -> dict[str, Mapping[str, object]]:
    """Return plan, time, failed and slowest blocks of each of the first regions: heading → name → value."""
    return dict(_facts(predictions[:_MOST_REGIONS]))


def _is_complete(prediction: EntryPrediction) -> bool:
    return prediction.report.blocks is None or not prediction.report.blocks.count(FAILED)


def _summary(predictions: Sequence[EntryPrediction]) -> str:
    voxels = sum(math.prod(one.roi_voxels.shape) for one in predictions)
    seconds = sum(one.report.seconds for one in predictions)
    regions = f"{len(predictions)} region{'s' if len(predictions) != 1 else ''}"
    return f"{regions}, {voxels / 1e6:.4g} Mvoxel predicted; this run took {format_seconds(seconds)}."


def _caption(report: JobReport) -> str:
    return ", ".join(filter(None, (_in_words(report), _throughput(report))))


def _throughput(report: JobReport) -> str:
    return f"{report.voxels_per_second / 1e6:.3g} Mvoxel/s" if report.blocks_done else ""


def _in_words(report: JobReport) -> str:
    counts = _counts(report)
    return ", ".join(f"{number} {name}" for name, number in counts.items() if number)


def _counts(report: JobReport) -> dict[str, int]:
    failed = 0 if report.blocks is None else report.blocks.count(FAILED)
    return {
        "done": report.blocks_done,
        "done before": report.blocks_resumed,
        "left out (mask)": report.blocks_skipped,
        "failed": failed,
    }


def _facts(predictions: Sequence[EntryPrediction]) -> Iterable[tuple[str, dict[str, object]]]:
    for one in predictions:
        plan, report = one.plan, one.report
        name = one.entry.nickname
        yield (
            f"{name}: region and blocks",
            {
                "region (voxels)": format_roi(one.roi_voxels),
                one.main.name: one.main,
                "other arrays": [str(path) for path in one.others],
                "block (voxels)": "×".join(map(str, plan.block_shape)),
                "tile of the network (voxels)": "×".join(map(str, plan.tile_shape)),
                "arithmetic": f"{plan.flops / 1e12:.3g} TFLOP, {plan.flop_overhead:.2f} × the ideal",
                "read": f"{plan.read_overhead:.2f} × the volume",
                "memory of a worker, estimated": f"{plan.memory_bytes / 1e9:.1f} GB",
                "expected time": format_seconds(plan.seconds),
                "time of this run": format_seconds(report.seconds),
                "throughput of this run": _throughput(report) or "nothing was left to do",
                "blocks": _in_words(report),
            },
        )
        if report.blocks is None:
            continue
        failed = failed_blocks(report.blocks)
        if failed:
            yield f"{name}: failed blocks", dict(failed)
        slowest = slowest_blocks(report.blocks)
        if slowest:
            yield f"{name}: slowest blocks", dict(slowest)


def _panels(prediction: EntryPrediction, task: Task) -> Iterable[SlicePanel]:
    """Yield the three sections through the middle of a region, at most a window of each."""
    entry, roi = prediction.entry, prediction.roi_voxels
    raw = open_volume(entry.file / entry.raw, voxel_size=entry.voxel_size)
    volumes = {name: _open(path, entry) for name, path in prediction.arrays.items()}
    truth = GroundTruth(entry, roi, labels=task.label_kind) if entry.labels else None
    for axis in range(3):
        window = _affordable_window(raw, roi, axis)
        if window is None or min(size for i, size in enumerate(window.shape) if i != axis) < 2:
            continue
        y, x = (a for a in range(3) if a != axis)
        true = None if truth is None else task.truth(truth, window)
        arrays = {name: volume.read_voxels(window) for name, volume in volumes.items()}
        predicted, affinities = task.predicted(arrays), task.nearest_affinities(arrays[prediction.main.name])
        yield SlicePanel(
            title=f"{entry.nickname}, {'zyx'[axis]} = {window.begin[axis]}",
            raw_YX=_section(raw.read_voxels(window), axis),
            labels_YX=None if true is None else _section(true.classes_ZYX, axis),
            prediction_YX=_section(predicted.classes_ZYX, axis),
            excluded_YX=None if true is None else _section(~true.counted_ZYX, axis),
            pixel_nm=entry.voxel_size[x] if entry.voxel_size[y] == entry.voxel_size[x] else None,
            probability_YX=_foreground(predicted, axis, task.num_classes),
            ids_YX=None if true is None or true.ids_ZYX is None else _section(true.ids_ZYX, axis),
            affinities_CYX=None if affinities is None else _section(affinities, axis),
        )


def middle_window(roi: Roi, axis: int, largest: int = _WINDOW) -> Roi:
    """Return the section through a region's middle across ``axis``, one voxel thick, cut to a window."""
    shape = [1 if a == axis else min(size, largest) for a, size in enumerate(roi.shape)]
    begin = [b + (s - n) // 2 for b, s, n in zip(roi.begin, roi.shape, shape, strict=True)]
    return Roi(Coordinate(begin), Coordinate(shape))


def _affordable_window(raw: Volume, roi: Roi, axis: int) -> Roi | None:
    """Return the window of a section, smaller where the chunks are large; None where even that is too much.

    A section across a stack of images touches as many images as it is high, and each is decoded whole.
    """
    for largest in (_WINDOW, _WINDOW // 2, _WINDOW // 4):
        window = middle_window(roi, axis, largest)
        if decoded_voxels(raw, window) <= _MOST_DECODED:
            return window
    return middle_window(roi, axis, _WINDOW // 4) if axis == 0 else None


def decoded_voxels(volume: Volume, roi: Roi) -> int:
    """Return the voxels of all chunks of ``volume`` that a region (absolute voxels) touches."""
    local = roi - volume.roi_voxels.begin
    chunks = volume.chunk_shape[-3:]
    counts = [-(-e // c) - b // c for b, e, c in zip(local.begin, local.end, chunks, strict=True)]
    return int(math.prod(counts) * math.prod(chunks))


def _open(path: Path, entry: DataEntry) -> Volume:
    return open_volume(path, voxel_size=entry.voxel_size)


def _section(array_ZYX: NDArray[Any], axis: int) -> NDArray[Any]:
    """Return the section of an array (…, Z, Y, X) that is one voxel thick along ``axis``."""
    return array_ZYX.take(0, axis=axis - 3)


def _foreground(predicted: Predicted, axis: int, num_classes: int) -> NDArray[np.float32] | None:
    """Return the probability of any class but the background, from the stored ones."""
    foreground = predicted.probabilities[-(num_classes - 1) :] if num_classes > 1 else []
    if not foreground:
        return None
    total = np.zeros(_section(predicted.classes_ZYX, axis).shape, np.float32)
    for probability in foreground:
        scale = 255 if probability.dtype == np.uint8 else 1
        total += _section(probability, axis).astype(np.float32) / scale
    return np.clip(total, 0, 1)


def _commands(predictions: Sequence[EntryPrediction]) -> Iterable[tuple[str, str]]:
    for one in predictions:
        container, dataset = split_path(one.entry.file / one.entry.raw)
        results = one.main
        root = next((p for p in results.parents if p.suffix == ".zarr"), results.parent)
        inside = str(results.relative_to(root))
        view = ["incasem", "view", "-f", str(container), "-d", dataset]
        view += [inside] if root == container else ["-f", str(root), "-d", inside]
        yield "Look at it in the browser:", shlex.join(view)
        if len(open_volume(results).shape) == 3:
            export = ["incasem", "export", "-f", str(root), "-d", inside, "-o", "tiff"]
            yield f"Write the {results.name} as a TIFF stack:", shlex.join(export)
        else:
            segment = ["incasem", "segment", "-f", str(root), "-d", inside]
            yield "Make objects of them:", shlex.join(segment)
