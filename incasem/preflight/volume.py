"""`incasem check volume`: whether a dataset is what it should be, without any run."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from incasem.errors import DataError
from incasem.preflight.findings import Findings
from incasem.preflight.grey_values import check_grey_values, looked_at
from incasem.preflight.machine import gigabytes
from incasem.preflight.regions import check_chunks
from incasem.preflight.sampling import choose_sample
from incasem.tasks.grey_values import full_scale
from incasem.volumes import Volume, exists, list_datasets, open_volume, split_path

Kind = Literal["auto", "raw", "labels", "mask"]

_MOST_DATASETS = 50
_LARGE_CHUNK_BYTES = 2**28
_SMALL_CHUNK_BYTES = 2**12


def check_volumes(paths: Sequence[str], kind: Kind = "auto") -> Findings:
    """Return all findings about datasets, or about all those of a container; nothing is written.

    Args:
        paths: such as ``cell.zarr/volumes/raw``, or ``cell.zarr``.
        kind: what they hold; auto: by their names and types.
    """
    findings = Findings("volume", ", ".join(paths))
    opened = []
    for path in _datasets(findings, paths):
        volume = findings.attempt("open", path, lambda p=path: open_volume(p))  # type: ignore[misc]
        if volume is not None:
            _check_volume(findings, volume, kind)
            opened.append(volume)
    _check_agreement(findings, opened)
    return findings.without_repeats()


def _datasets(findings: Findings, paths: Sequence[str]) -> list[str]:
    found = []
    for path in paths:
        names = [] if exists(path) or not Path(path).exists() else _names(findings, path)
        found += [f"{path}/{name}" for name in names] or [path]
    return found


def _names(findings: Findings, container: str) -> list[str]:
    names = findings.attempt("open", container, lambda: list_datasets(container)) or []
    if len(names) > _MOST_DATASETS:
        findings.warning(
            "open", container, f"holds {len(names)} datasets; the first {_MOST_DATASETS} are checked",
            "Name the others on the command line.",
        )  # fmt: skip
    return names[:_MOST_DATASETS]


def _check_volume(findings: Findings, volume: Volume, kind: Kind) -> None:
    path = volume.path
    size = "×".join(map(str, volume.shape))
    total = math.prod(volume.shape) * volume.dtype.itemsize
    findings.ok(
        "open", path,
        f"{volume.dtype}, {size} ({', '.join(volume.axes)}), {gigabytes(total)} uncompressed, chunks "
        f"{'×'.join(map(str, volume.chunk_shape))}",
        dtype=volume.dtype.name, shape=list(volume.shape), axes=list(volume.axes), bytes=total,
        chunk_shape=list(volume.chunk_shape),
    )  # fmt: skip
    _check_place(findings, volume)
    _check_chunk_size(findings, volume)
    check_chunks(findings, path, volume, volume.roi_voxels)
    if volume.axes != ("z", "y", "x"):
        findings.warning(
            "axes", path, f"{', '.join(volume.axes)}: training and prediction take z, y, x",
            "Extract the channel that is meant.",
        )  # fmt: skip
        return
    held = _kind_of(volume) if kind == "auto" else kind
    if held == "raw":
        if findings.passes("grey-values", path, lambda: full_scale(volume.dtype)):
            check_grey_values(findings, path, volume, volume.roi_voxels)
    else:
        findings.attempt("labels", path, lambda: _check_integers(findings, volume, held))


def _kind_of(volume: Volume) -> Kind:
    name = str(split_path(volume.path)[1]).lower()
    if "mask" in name:
        return "mask"
    if any(word in name for word in ("label", "segmentation")) or volume.dtype.itemsize > 2:
        return "raw" if volume.dtype.kind == "f" else "labels"
    return "raw" if volume.dtype.kind in "uf" else "labels"


def _check_place(findings: Findings, volume: Volume) -> None:
    voxel = ", ".join(f"{v:g}" for v in volume.voxel_size)
    offset = ", ".join(f"{o:g}" for o in volume.offset_nm)
    figures = {"voxel_size_nm": list(volume.voxel_size), "offset_nm": list(volume.offset_nm)}
    if volume.has_stated_place:
        findings.ok("voxel-size", volume.path, f"voxel size {voxel} nm, offset {offset} nm", **figures)
    else:
        findings.warning(
            "voxel-size", volume.path, f"no voxel size is stored; taken for {voxel} nm",
            "Viewers will show a wrong scale; write the volume with `incasem convert --resolution Z Y X`.",
            **figures,
        )  # fmt: skip


def _check_chunk_size(findings: Findings, volume: Volume) -> None:
    size = math.prod(volume.chunk_shape) * volume.dtype.itemsize
    if size > _LARGE_CHUNK_BYTES:
        findings.warning(
            "chunks", volume.path, f"a chunk holds {gigabytes(size)}, all of which is read for each voxel",
            "Write it again in chunks of 128 128 128: `incasem convert --chunks 128 128 128`.",
            chunk_bytes=size,
        )  # fmt: skip
    elif size < _SMALL_CHUNK_BYTES < math.prod(volume.shape) // 1000:
        findings.warning(
            "chunks", volume.path, f"a chunk holds {size} bytes only: millions of files, slow to read",
            "Write it again in chunks of 128 128 128: `incasem convert --chunks 128 128 128`.",
            chunk_bytes=size,
        )  # fmt: skip


def _check_integers(findings: Findings, volume: Volume, kind: Kind) -> None:
    """Add how much of labels or of a mask is not 0, by a bounded sample."""
    if volume.dtype.kind not in "uib":
        raise DataError(
            f"{volume.path} is {volume.dtype}; allowed for {kind}: integers. Convert it, or say --kind raw."
        )
    sample = choose_sample(volume, volume.roi_voxels)
    nonzero, most, least = 0, 0, 0
    for box in sample.boxes:
        array = volume.read_voxels(box)
        nonzero += int(np.count_nonzero(array))
        most, least = max(most, int(array.max())), min(least, int(array.min()))
    share = nonzero / max(sum(box.size for box in sample.boxes), 1)
    seen = looked_at(sample.share)
    figures = {"nonzero_share": share, "largest": most, "share_read": min(sample.share, 1.0)}
    if least < 0:
        findings.error(kind, volume.path, f"holds negative values, down to {least}", "Convert it.", **figures)
    elif share in (0, 1):
        what = "0 everywhere" if share == 0 else "nonzero everywhere"
        findings.warning(
            "masks" if kind == "mask" else "labels", volume.path, f"{what}{seen}",
            "Check the path, and whether the conversion went through.", **figures,
        )  # fmt: skip
    else:
        findings.ok(
            "masks" if kind == "mask" else "labels", volume.path,
            f"{100 * share:.3g} % nonzero, largest value {most}{seen}", **figures,
        )  # fmt: skip


def _check_agreement(findings: Findings, volumes: Sequence[Volume]) -> None:
    """Add datasets of one container that do not lie at one place."""
    firsts: dict[Path, Volume] = {}
    for volume in volumes:
        first = firsts.setdefault(split_path(volume.path)[0], volume)
        if volume.voxel_size != first.voxel_size:
            findings.warning(
                "voxel-size", volume.path,
                f"{list(volume.voxel_size)} nm, but {first.path} has {list(first.voxel_size)} nm",
                "Datasets of one entry need the same voxels.",
            )  # fmt: skip
        elif volume.roi_voxels.intersect(first.roi_voxels).empty:
            findings.warning(
                "place", volume.path,
                f"at {volume.roi_voxels} voxels, which has nothing in common with {first.path} at "
                f"{first.roi_voxels}",
                "Correct the stored offset (nm) of one of them.",
            )  # fmt: skip
