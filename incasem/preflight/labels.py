"""Labels and masks of a region: whether there is something to learn, and something to leave out."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from incasem.config import DataEntry
from incasem.errors import DataError, explain
from incasem.geometry import Roi
from incasem.preflight.findings import Findings
from incasem.preflight.grey_values import looked_at
from incasem.preflight.sampling import choose_sample
from incasem.tasks.ground_truth import GroundTruth, LabelKind
from incasem.volumes import Volume, open_volume

_SCARCE = 0.001
_ABUNDANT = 0.95


@dataclass(frozen=True)
class _Counts:
    """Of the voxels that were read: each class, inside the mask, scored, claimed by several classes."""

    classes: NDArray[np.int64]
    masked_in: int
    scored: int
    claimed_twice: int
    voxels: int
    share: float


def check_labels(findings: Findings, entry: DataEntry, roi: Roi, kind: LabelKind = "classes") -> None:
    """Add class balance or number of objects, and the effect of the masks of a region, by a bounded sample.

    Args:
        findings: gets them.
        entry: with labels or masks; nothing is added without either.
        roi: its region, absolute voxels.
        kind: what the label datasets hold.
    """
    names = [*entry.labels, *([entry.mask] if entry.mask else []), *entry.metric_masks]
    if not names:
        findings.warning(
            "labels", entry.nickname, "no labels: every voxel counts as background",
            'If there are some, add "labels": {"volumes/labels/er": 1} to the entry.',
        )  # fmt: skip
        return
    volumes = {
        name: volume
        for name in names
        if (volume := findings.attempt("labels", entry.nickname, lambda n=name: _open(entry, n))) is not None  # type: ignore[misc]
    }
    if len(volumes) < len(names):
        return
    counts = findings.attempt("labels", entry.nickname, lambda: _count(entry, volumes, roi))
    if counts is None:
        return
    if kind == "classes":
        _check_balance(findings, entry, counts)
    else:
        findings.attempt("labels", entry.nickname, lambda: _check_objects(findings, entry, volumes, roi))
    _check_masks(findings, entry, counts)


def _check_objects(findings: Findings, entry: DataEntry, volumes: dict[str, Volume], roi: Roi) -> None:
    """Add how many objects there are in a sample, and what they cover."""
    for name in entry.labels:
        available = roi.intersect(volumes[name].roi_voxels)
        sample = choose_sample(volumes[name], available)
        truth = GroundTruth(entry, available, labels="instances")
        ids, labelled, voxels = set[int](), 0, 0
        for box in sample.boxes:
            found, sizes = np.unique(truth.instances(box), return_counts=True)
            ids.update(int(one) for one in found if one)
            labelled += int(sizes[found != 0].sum())
            voxels += box.size
        share, seen = labelled / max(voxels, 1), looked_at(sample.share)
        figures = {"objects": len(ids), "share_labelled": share, "share_read": min(sample.share, 1.0)}
        covered = f"{name}: {len(ids)} objects, {100 * share:.3g} % of the voxels{seen}"
        if len(ids) > 1:
            findings.ok("labels", entry.nickname, covered, **figures)
            continue
        findings.warning(
            "labels", entry.nickname, f"{covered}: there is no border between two objects to learn from",
            "Check dataset and region: each object needs an id of its own.", **figures,
        )  # fmt: skip


def _open(entry: DataEntry, name: str) -> Volume:
    volume = open_volume(entry.file / name, voxel_size=entry.voxel_size)
    if volume.dtype.kind not in "uib":
        raise DataError(
            explain(f"data type of {name} of {entry.nickname!r}", volume.dtype, "integers", "Convert it")
        )
    return volume


def _count(entry: DataEntry, volumes: dict[str, Volume], roi: Roi) -> _Counts:
    first = next(iter(volumes.values()))
    available = roi.intersect(first.roi_voxels)
    if available.empty:
        raise DataError(
            explain(
                f"the place of {first.path}", f"{first.roi_voxels}", f"an overlap with the region {roi}",
                "Correct the stored offset (nm), or offset and shape of the entry",
            )
        )  # fmt: skip
    sample = choose_sample(first, available)
    classes = np.zeros(len(entry.labels) + 1, np.int64)
    masked_in = scored = claimed_twice = voxels = 0
    for box in sample.boxes:
        arrays = {n: v.read_voxels(box, beyond="constant", fill=0) != 0 for n, v in volumes.items()}
        inside = arrays[entry.mask] if entry.mask else np.ones(box.shape, bool)
        claims = np.zeros(box.shape, np.uint8)
        for name, index in entry.labels.items():
            claims += arrays[name]
            classes[index] += int((arrays[name] & inside).sum())
        claimed_twice += int((claims > 1).sum())
        masked_in += int(inside.sum())
        for name in entry.metric_masks:
            inside = inside & arrays[name]
        scored += int(inside.sum())
        voxels += box.size
    classes[0] = max(masked_in - int(classes[1:].sum()), 0)
    return _Counts(classes, masked_in, scored, claimed_twice, voxels, sample.share)


def _check_balance(findings: Findings, entry: DataEntry, counts: _Counts) -> None:
    if not entry.labels:
        return
    seen = looked_at(counts.share)
    shares = {
        name: float(counts.classes[index] / max(counts.masked_in, 1)) for name, index in entry.labels.items()
    }
    figures = {"share_of_class": shares, "share_read": min(counts.share, 1.0)}
    if counts.claimed_twice:
        findings.warning(
            "labels", entry.nickname,
            f"{100 * counts.claimed_twice / counts.voxels:.3g} % of the voxels belong to two classes and "
            f"become background{seen}",
            "Decide which class they belong to.", claimed_twice=counts.claimed_twice,
        )  # fmt: skip
    scarce = {name: share for name, share in shares.items() if share < _SCARCE}
    full = {name: share for name, share in shares.items() if share > _ABUNDANT}
    for name, share in scarce.items():
        empty = "is empty" if share == 0 else f"covers {100 * share:.3g} % of the voxels"
        findings.warning(
            "labels", entry.nickname, f"{name} {empty} in the region{seen}",
            "Check dataset and region; where objects are that rare, training.sampling.foreground draws more "
            "samples around them.", **figures,
        )  # fmt: skip
    for name, share in full.items():
        findings.warning(
            "labels", entry.nickname,
            f"{name} covers {100 * share:.3g} % of the voxels: is 0 really its background?{seen}",
            "Check the dataset, or use the inverse.", **figures,
        )  # fmt: skip
    if not scarce and not full:
        listed = ", ".join(f"{name} {100 * share:.3g} %" for name, share in shares.items())
        findings.ok("labels", entry.nickname, f"share of the voxels: {listed}{seen}", **figures)


def _check_masks(findings: Findings, entry: DataEntry, counts: _Counts) -> None:
    seen, whole = looked_at(counts.share), counts.share >= 1
    if entry.mask is not None:
        share = counts.masked_in / counts.voxels
        _check_mask(findings, entry, entry.mask, share, seen, whole, "trained on or predicted")
    if entry.metric_masks:
        names = ", ".join(entry.metric_masks)
        share = counts.scored / max(counts.masked_in, 1)
        _check_mask(findings, entry, names, share, seen, whole, "scored")


def _check_mask(
    findings: Findings, entry: DataEntry, name: str, share: float, seen: str, whole: bool, use: str
) -> None:
    figures = {"mask": name, "share": share}
    if share == 0:
        (findings.error if whole else findings.warning)(
            "masks", entry.nickname, f"{name} is 0 in the whole region: nothing is {use}{seen}",
            "Correct the mask or the region, or leave the mask out.", **figures,
        )  # fmt: skip
    elif share == 1:
        findings.warning(
            "masks", entry.nickname, f"{name} has no effect: nonzero in the whole region{seen}",
            "Leave it out, or check that it is the mask that was meant.", **figures,
        )  # fmt: skip
    else:
        findings.ok("masks", entry.nickname, f"{name}: {100 * share:.3g} % are {use}{seen}", **figures)
