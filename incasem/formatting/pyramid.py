"""A pyramid: coarser and coarser levels of a dataset, so that viewers show terabytes at once.

As published, the dataset moves to ``<dataset>/s0`` and ``s1``, ``s2``, … are written beside it. Its name
stays usable: a group with ``s0`` stands for its finest level in every command
(`incasem.volumes.paths.locate`).

The data are never at risk. All levels are made in a hidden group beside the dataset, ``.<name>.pyramid``,
while the dataset stays where it is; what was made there is continued after a kill. Only when everything is
there, two renames, each atomic, put the dataset into that group and the group into its place. A kill between
the two leaves the data in ``.<name>.pyramid/s0``, and the same command does the second.

Who has the dataset open while it moves looks for chunks where they no longer are, and takes them for never
written: nothing else should read or write it meanwhile.
"""

import json
import math
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from incasem.blockwise import Block, BlockFunction, Grid, Job, JobReport, default_block_shape, run_stage
from incasem.blockwise.state import held
from incasem.durable import sync, write_durably
from incasem.errors import ConfigError, DataError, explain
from incasem.formatting._downscale import Factor, Method, coarser_roi, finer_roi, merge_windows
from incasem.formatting._outputs import check_chunks, check_workers, dataset_path, state_dir
from incasem.tasks.stored import require_finished
from incasem.volumes import Volume, create_volume, exists, open_volume, split_path
from incasem.volumes.metadata import tidy
from incasem.volumes.ngff_groups import announce_pyramid, describe_pyramid
from incasem.volumes.paths import find_format
from incasem.volumes.store import Place

JOB = "pyramid"
_SETTINGS = ".settings.json"
_ZARR: dict[str | None, Literal[2, 3]] = {"zarr2": 2, "zarr3": 3}
_LABEL_DTYPES = (np.uint32, np.uint64, np.int32, np.int64)
_MASKS = {"mask", "masks", "metric_masks"}
_BLOCK_VOXELS = 96**3


@dataclass(frozen=True)
class PyramidOptions:
    """Which dataset gets levels, and how much coarser each is than the one before.

    Attributes:
        file: the container, Zarr v2 or v3.
        dataset: an array, or a pyramid that is to get further levels.
        scales: factor of each level to the one before; z, y, x.
        chunk_shape: of the levels, voxels; None: that of the dataset.
        method: how a window of voxels becomes one: ``mean``, ``stride``, ``majority``; ``auto`` strides over
            labels (`is_label_data`) and masks and takes the mean of everything else.
    """

    file: Path
    dataset: str
    scales: Sequence[Factor]
    chunk_shape: tuple[int, int, int] | None = None
    method: Method | Literal["auto"] = "auto"


@dataclass(frozen=True)
class _Plan:
    """What is to be made, everything checked."""

    base: Volume
    group: Path
    dataset: str
    container: Path
    zarr_format: Literal[2, 3]
    scales: tuple[Factor, ...]
    chunk_shape: tuple[int, ...]
    shard_shape: tuple[int, ...] | None
    method: Method
    is_label: bool
    identity: dict[str, Any] = field(default_factory=dict)

    @property
    def staging(self) -> Path:
        """Where the levels are made."""
        return staging_of(self.group)

    @property
    def names(self) -> list[str]:
        """Names of the levels but the finest."""
        return [f"s{k}" for k in range(1, len(self.scales) + 1)]


def make_pyramid(
    options: PyramidOptions, *, num_workers: int, progress: bool = True
) -> list[tuple[str, JobReport]]:
    """Give a dataset coarser levels, continuing an interrupted run.

    Returns:
        name and report of each level.

    Raises:
        ConfigError: factors, chunks or method that cannot be.
        DataError: the dataset is missing, unfinished, not Zarr, or has other levels already.
        FailedBlocksError: blocks that could not be done, with the reason of each.
    """
    check_workers(num_workers)
    _check_scales(options.scales)
    if options.chunk_shape is not None:
        check_chunks(options.chunk_shape)
    group = Path(dataset_path(options.file, options.dataset))
    if group.name == "s0" and exists(group):  # published: the finest level stands for its pyramid
        group = group.parent
    container, dataset = split_path(group)
    if not dataset:
        raise DataError(
            explain("the dataset", f"the container {group} itself", "an array inside a container", "Move it")
        )
    if not group.parent.is_dir():
        open_volume(group)  # says what is missing
    lock = group.with_name(f".{group.name}.pyramid.lock")
    with held(lock):
        try:
            _end_swap(group)
            plan = _plan(options, group, container, dataset)
            _drop_other_levels(plan)
            reports = []
            for k, name in enumerate(plan.names):
                job, output = prepare_level(plan, k)
                reports.append((name, run_stage(job, output, num_workers, progress)))
            _publish(plan)
        finally:
            lock.unlink(missing_ok=True)
    return reports


def staging_of(group: Path) -> Path:
    """Return the hidden group in which the levels of ``group`` are made."""
    return group.with_name(f".{group.name}.pyramid")


def is_label_data(dataset: str, dtype: np.dtype[Any]) -> bool:
    """Tell whether values are identities rather than amounts, by dtype and the published names.

    Published, uint32 and uint64 are labels. So are class maps of one byte (``segmentation``) and everything
    in a group ``labels``.
    """
    parts = dataset.strip("/").split("/")
    return dtype in _LABEL_DTYPES or parts[-1] == "segmentation" or "labels" in parts[:-1]


def _check_scales(scales: Sequence[Factor]) -> None:
    good = all(len(f) == 3 and min(f) >= 1 and max(f) > 1 and math.prod(f) <= 4096 for f in scales)
    if not scales or not good:
        shown = " ".join(",".join(map(str, f)) for f in scales) or "empty"
        raise ConfigError(
            explain(
                "scales", shown, "factors of 2 or more, one a level, such as 2 2 2 or 1,2,2 2", "Correct it"
            )
        )


def _plan(options: PyramidOptions, group: Path, container: Path, dataset: str) -> _Plan:
    base = open_volume(group)
    array = group if find_format(group) else group / "s0"
    found = find_format(array)
    if found not in _ZARR:
        raise DataError(
            explain(
                f"the format of {group}",
                found or "a pyramid whose levels are not called s0, s1, …",
                "Zarr (v2 or v3)",
                "Convert it first: incasem convert, or incasem n5-to-zarr",
            )
        )
    require_finished(base)
    is_label = is_label_data(dataset, base.dtype)
    method = _method(options, base, is_label)
    chunks = tuple(options.chunk_shape or base.chunk_shape[-3:])
    sharded = base.write_shape != base.chunk_shape[-3:] and options.chunk_shape is None
    scales = tuple(options.scales)
    identity = {
        "finest": {k: v for k, v in base.fingerprint().items() if k != "path"},
        "method": method,
        "chunk_shape": list(chunks),
    }
    return _Plan(
        base, group, dataset, container, _ZARR[found], scales, chunks, base.write_shape if sharded else None,
        method, is_label, identity,
    )  # fmt: skip


def _method(options: PyramidOptions, base: Volume, is_label: bool) -> Method:
    parts = set(options.dataset.strip("/").split("/"))
    by_stride = is_label or bool(parts & _MASKS) or base.dtype == bool
    method: Method = options.method if options.method != "auto" else ("stride" if by_stride else "mean")
    if method == "mean" and (base.dtype.kind not in "uif" or base.dtype in (np.uint64, np.int64)):
        raise ConfigError(
            explain("method", f"mean of {base.dtype}", "stride or majority", "Labels have no mean: take one")
        )
    return method


def _place(volume: Volume) -> Place:
    return Place(volume.axes, volume.voxel_size, volume.offset_nm)


def _drop_other_levels(plan: _Plan) -> None:
    """Remove what an earlier run with other settings left in the hidden group; all of it is derived data."""
    settings = json.dumps(plan.identity | {"scales": plan.scales}, sort_keys=True)
    file = plan.staging / _SETTINGS
    if plan.staging.exists() and not (file.exists() and file.read_text() == settings):
        shutil.rmtree(plan.staging)
    plan.staging.mkdir(exist_ok=True)
    if not file.exists():
        write_durably(file, settings.encode())


def _level_path(plan: _Plan, name: str) -> Path:
    """Return where a level lies: in the pyramid if it is there already, else where it is being made."""
    final = plan.group / name
    is_pyramid = find_format(plan.group) is None
    return final if is_pyramid and exists(final) else plan.staging / name


def prepare_level(plan: _Plan, k: int, block_shape: Sequence[int] | None = None) -> tuple[Job, Volume]:
    """Create the array of level k + 1 and return the job that fills it from level k."""
    source = plan.base if k == 0 else open_volume(_level_path(plan, plan.names[k - 1]))
    factor = plan.scales[k]
    voxel_size = tuple(tidy(v * f) for v, f in zip(source.voxel_size, factor, strict=True))
    roi = coarser_roi(source.roi_voxels, factor)
    path = _level_path(plan, plan.names[k])
    if path.parent == plan.group and "incasem" not in open_volume(path).attributes:
        raise DataError(
            f"{path} exists and was not made by incasem; allowed: a dataset without levels. Delete its "
            "levels s1, s2, … to have them made anew."
        )
    output = create_volume(
        path,
        shape=(*source.shape[:-3], *roi.shape),
        dtype=source.dtype,
        voxel_size=voxel_size,
        offset_nm=tuple(tidy(b * v) for b, v in zip(roi.begin, voxel_size, strict=True)),
        chunk_shape=plan.chunk_shape,
        shard_shape=plan.shard_shape,
        zarr_format=plan.zarr_format,
        existing="resume",
        attributes={"incasem": {"begun_by": JOB}},
    )
    block = block_shape or default_block_shape(
        output.write_shape, _BLOCK_VOXELS, volume_shape=output.shape[-3:]
    )
    job = Job(
        name=f"{JOB} {plan.names[k]}",
        grid=Grid(output.roi_voxels, block),
        start_worker=partial(_start, source, output, factor, plan.method),
        identity=plan.identity | {"scales": [list(f) for f in plan.scales[: k + 1]]},
        state_dir=state_dir(output),
    )
    return job, output


def _start(source: Volume, output: Volume, factor: Factor, method: Method) -> BlockFunction:
    return partial(_merge_block, source, output, factor, method)


def _merge_block(source: Volume, output: Volume, factor: Factor, method: Method, block: Block) -> None:
    wanted = finer_roi(block.write_roi, factor)
    known = wanted.intersect(source.roi_voxels)
    missing = [
        (int(k - w), int(we - ke))
        for w, k, we, ke in zip(wanted.begin, known.begin, wanted.end, known.end, strict=True)
    ]
    merged = merge_windows(source.read_voxels(known), missing, factor, method)
    output.write_voxels(block.write_roi, np.ascontiguousarray(merged))


def _publish(plan: _Plan) -> None:
    """Put the finished levels in their place, and tell viewers of them."""
    made = [name for name in plan.names if exists(plan.staging / name)]
    places = {"s0": _place(plan.base)}
    for name in _all_levels(plan):
        places[name] = _place(open_volume(_level_path(plan, name)))
    source = _label_source(plan) if plan.is_label else None
    if find_format(plan.group) is not None:
        describe_pyramid(plan.staging, plan.group.name, places, plan.method, source)
        sync(plan.staging)
        os.rename(plan.group, plan.staging / "s0")
        sync(plan.staging)
        _end_swap(plan.group)
    else:
        for name in made:
            os.rename(plan.staging / name, plan.group / name)
        sync(plan.group)
        describe_pyramid(plan.group, plan.group.name, places, plan.method, source)
        shutil.rmtree(plan.staging)
    (plan.group / _SETTINGS).unlink(missing_ok=True)
    announce_pyramid(plan.container, plan.dataset, places, plan.method, is_label=plan.is_label)


def _all_levels(plan: _Plan) -> list[str]:
    """Return the levels of this run and those, coarser still, that the pyramid has already."""
    last = len(plan.names)
    while find_format(plan.group) is None and exists(plan.group / f"s{last + 1}"):
        last += 1
    return [f"s{k}" for k in range(1, last + 1)]


def _end_swap(group: Path) -> None:
    """Do the second rename of a swap whose first one has been done."""
    staging = staging_of(group)
    if not (staging / "s0").exists():
        return
    if group.exists():
        raise DataError(
            f"{staging}/s0 holds the data of {group} from an interrupted run, and there is a new {group}. "
            "Move one of the two away, then run this command again."
        )
    os.rename(staging, group)
    sync(group.parent)


def _label_source(plan: _Plan) -> str:
    """Return the path from the labels' group to their image: `volumes/raw` where it is, as published."""
    for raw in (plan.group.parents[1] / "raw", plan.container / "volumes" / "raw"):
        with suppress(DataError):
            if exists(raw):
                return os.path.relpath(raw, plan.group)
    return "../../"
