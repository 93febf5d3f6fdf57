"""Pictures of segmentations: sections in colours of the truth, and close-ups of mergers and splits."""

import numpy as np
from numpy.typing import NDArray

from incasem.evaluation.evaluate_report import raw_beside
from incasem.evaluation.object_pictures import RGB, id_colours, mixed
from incasem.evaluation.partition import Misfit, PartitionEvaluation
from incasem.evaluation.report_pictures import Diagram, encode_png, grey
from incasem.geometry import Coordinate, Roi
from incasem.metrics.boundaries import boundaries
from incasem.volumes import Volume, open_volume

_SECTION_VOXELS, _CLOSE_UP_VOXELS = 512, 96
_WIDTH_PIXELS = 1500
_CLOSE_UPS = 4  # of mergers, and as many of splits
_GAP = 6


def diagrams(evaluation: PartitionEvaluation) -> list[Diagram]:
    """Return sections of the best segmentation, and what it did worst."""
    opened = evaluation.opened
    region = opened.roi_voxels
    raw = raw_beside((evaluation.options.labels, evaluation.best.path), opened.labels.voxel_size)
    segmentation = open_volume(evaluation.best.path)
    found = []
    for z in sorted({region.begin[0] + region.shape[0] * k // 3 for k in (1, 2)}):
        middle = [b + n // 2 for b, n in zip(region.begin[1:], region.shape[1:], strict=True)]
        views = _views(evaluation, raw, segmentation, (z, *middle), _SECTION_VOXELS)
        found.append(
            Diagram(
                f"z = {z}: raw, truth, {evaluation.best.name}",
                encode_png(_in_row(list(views))),
                f"z = {z}: raw, truth, {evaluation.best.name}. A segment has the colour of the object that "
                "it shares most with here. Black: not counted.",
            )
        )
    for kind, misfits in (("Merger", evaluation.mergers), ("Split", evaluation.splits)):
        found += [
            _close_up(evaluation, raw, segmentation, f"{kind} {number}", misfit)
            for number, misfit in enumerate(misfits[:_CLOSE_UPS], start=1)
        ]
    return found


def _close_up(
    evaluation: PartitionEvaluation, raw: Volume | None, segmentation: Volume, title: str, misfit: Misfit
) -> Diagram:
    voxel = misfit.place.voxel
    views = [_crossed(view) for view in _views(evaluation, raw, segmentation, voxel, _CLOSE_UP_VOXELS)]
    name = f"{title}: {'segment' if title.startswith('Merger') else 'object'} {misfit.offender.id}"
    at = " ".join(map(str, voxel))
    return Diagram(name, encode_png(_in_row(views)), f"{name}; in the middle voxel {at} (z y x)")


def _views(
    evaluation: PartitionEvaluation, raw: Volume | None, segmentation: Volume,
    voxel: tuple[int, ...], side: int,
) -> tuple[RGB, RGB, RGB]:  # fmt: skip
    """Return grey values, truth and segmentation around a voxel; what lies outside of the region is black."""
    corner = [v - side // 2 for v in voxel[1:]]
    window = Roi(Coordinate(voxel[0], *corner), Coordinate(1, side, side))
    roi = window.intersect(evaluation.opened.roi_voxels)
    truth = evaluation.opened.labels.read_voxels(roi)[0].astype(np.uint64)
    segments = segmentation.read_voxels(roi)[0].astype(np.uint64)
    seen = np.full(truth.shape, 160, np.uint8)
    if raw is not None and raw.roi_voxels.contains(roi):
        seen = raw.read_voxels(roi)[0]
    image = grey(seen)
    counted = np.ones(truth.shape, np.bool_)
    inside = evaluation.opened.counted(roi)
    if inside is not None:
        counted = inside[0]
    if evaluation.options.ignored_truth is not None:
        counted = counted & (truth != evaluation.options.ignored_truth)
    painted = _painted(image, truth, truth, counted), _painted(image, truth, segments, counted)
    margins = [(int(b - w), int(we - e)) for b, w, we, e in zip(
        roi.begin[1:], window.begin[1:], window.end[1:], roi.end[1:], strict=True)]  # fmt: skip
    if side > _CLOSE_UP_VOXELS:
        return image, *painted
    y, x = margins
    padded = [np.pad(view, (y, x, (0, 0))) for view in (image, *painted)]
    return padded[0], padded[1], padded[2]


def _painted(
    image: RGB, truth: NDArray[np.uint64], ids: NDArray[np.uint64], counted: NDArray[np.bool_]
) -> RGB:
    """Return the image tinted by the object that each id shares most with, edges of ids white."""
    names, position = np.unique(ids, return_inverse=True)
    position = position.reshape(ids.shape)
    objects, where = np.unique(truth, return_inverse=True)
    pairs, shared = np.unique(position.reshape(-1) * len(objects) + where.reshape(-1), return_counts=True)
    order = np.argsort(shared)
    mostly = np.zeros(len(names), np.uint64)
    mostly[pairs[order] // len(objects)] = objects[pairs[order] % len(objects)]
    light = 0.75 + 0.25 * (mixed(names) & np.uint64(255)).astype(np.float32) / 255
    tints = id_colours(mostly) * light[:, None]
    view = 0.45 * image + 0.55 * tints[position]
    view[boundaries(ids)] = 0.5 * view[boundaries(ids)] + 110
    view[~counted] = 0
    return view.astype(np.uint8)


def _crossed(view: RGB) -> RGB:
    """Return the view with a cross around its middle, which itself stays visible."""
    out = view.copy()
    y, x = view.shape[0] // 2, view.shape[1] // 2
    for reach in (slice(-12, -4), slice(5, 13)):
        out[y + reach.start : y + reach.stop, x] = (255, 255, 0)
        out[y, x + reach.start : x + reach.stop] = (255, 255, 0)
    return out


def _in_row(views: list[RGB]) -> RGB:
    """Return views side by side, enlarged to about the width of a page."""
    space = np.full((views[0].shape[0], _GAP, 3), 255, np.uint8)
    row = np.concatenate([part for view in views for part in (view, space)][:-1], axis=1)
    times = max(1, _WIDTH_PIXELS // row.shape[1])
    return row.repeat(times, axis=0).repeat(times, axis=1)
