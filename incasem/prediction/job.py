"""Whole volumes: check everything, plan, and run the blocks of each entry."""

import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from incasem.blockwise import Grid, Job, JobReport, run_stage
from incasem.config import DataEntry, PredictionConfig, check_prediction_data
from incasem.errors import DataError, explain
from incasem.geometry import Coordinate, Roi, format_roi
from incasem.networks import ValidNetwork, choose_precision
from incasem.prediction.device import choose_device
from incasem.prediction.outputs import SEGMENTATION, OutputSet, output_folders
from incasem.prediction.plan import Device, Planner, PredictionPlan
from incasem.prediction.worker import PredictionWorker, PublishedSizes, load_network, mask_is_empty
from incasem.tasks.semantic import full_scale
from incasem.volumes import Volume, open_volume

logger = logging.getLogger(__name__)

_CORES_A_WORKER = 8
_BLOCK_TIMEOUT_S = 6 * 3600.0


@dataclass(frozen=True)
class EntryPrediction:
    """What was done for one entry.

    Attributes:
        entry: the region.
        roi_voxels: what was predicted, absolute voxels.
        folder: holds the arrays.
        segmentation: path of the class of each voxel.
        prob_maps: paths of the probabilities of class 0, 1, ….
        plan: blocks and their cost.
        report: blocks done, skipped and resumed, time.
    """

    entry: DataEntry
    roi_voxels: Roi
    folder: Path
    segmentation: Path
    prob_maps: tuple[Path, ...]
    plan: PredictionPlan
    report: JobReport

    def summary(self) -> str:
        """Return what the terminal shows when the entry is done."""
        place = ""
        if self.entry.file.suffix != ".zarr":
            place = f" ({self.entry.file.name} takes one writer only, so this is a Zarr container beside it)"
        return f"{self.report.summary()}\n  {self.folder}{place}"


@dataclass(frozen=True)
class _Checked:
    """One entry, opened and checked; nothing of it is written yet."""

    entry: DataEntry
    roi: Roi
    raw: Volume
    mask: Volume | None
    outputs: OutputSet
    published: PublishedSizes | None
    plan: PredictionPlan


@dataclass
class _Run:
    """What the entries of one command share."""

    config: PredictionConfig
    checkpoint: Path
    network: ValidNetwork
    device: torch.device
    num_workers: int
    model: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.model = self.config.to_dict()["model"]

    @property
    def precision(self) -> torch.dtype:
        return choose_precision(self.config.prediction.precision, self.device)


def predict_entries(
    config: PredictionConfig,
    entries: Sequence[DataEntry],
    *,
    checkpoint: Path | str,
    output_group: str,
    num_workers: int | None = None,
    progress: bool = True,
    tell: Callable[[str], None] = logger.info,
) -> list[EntryPrediction]:
    """Predict the region of every entry, block by block, and store classes and probabilities.

    Everything is checked before anything is written. A killed prediction continues when it is called again
    with the same ``output_group``; a finished one is left as it is.

    Args:
        config: settings; `model` describes the network of ``checkpoint``.
        entries: of one data configuration.
        checkpoint: weights.
        output_group: folder inside each container, see `outputs.output_group`.
        num_workers: worker processes that share device and cores. None: one, and on large machines without
            a GPU one for every 8 cores, up to `prediction.num_workers`; the published meaning of that
            setting (processes that feed one GPU) has no counterpart here.
        progress: whether to show a progress line on standard error.
        tell: gets the plan of each entry, a line, before its first block.

    Raises:
        ConfigError: settings that disagree, or too little memory.
        CheckpointError: the checkpoint is missing, damaged, or of another network.
        DataError: data missing or unfit, or an output that exists with another shape or other settings.
        FailedBlocksError: blocks that could not be done; the other entries are not begun.
    """
    check_prediction_data(config, entries)
    device = choose_device(config.prediction.torch.device)
    checkpoint = Path(checkpoint)
    network = load_network(config.to_dict()["model"], checkpoint)
    run = _Run(config, checkpoint, network, device, num_workers or _default_workers(config, device))
    folders = output_folders(entries, config, output_group)
    checked = [_check(run, entry, folder) for entry, folder in zip(entries, folders, strict=True)]
    predictions = []
    for entry in checked:
        tell(f"{entry.entry.nickname}: {entry.plan.describe()}")
        predictions.append(_predict(run, entry, progress))
    return predictions


def _default_workers(config: PredictionConfig, device: torch.device) -> int:
    if device.type != "cpu":
        return 1
    return max(1, min(config.prediction.num_workers, (os.cpu_count() or 1) // _CORES_A_WORKER))


def _check(run: _Run, entry: DataEntry, folder: Path) -> _Checked:
    raw = _open(entry, entry.raw)
    full_scale(raw.dtype)
    if raw.axes != ("z", "y", "x"):
        raise DataError(
            explain(
                f"axes of {raw.path}",
                ", ".join(raw.axes),
                "z, y, x",
                "Predict from a grey-value dataset without channels",
            )
        )
    roi = entry.roi_within(raw.roi_voxels)
    _warn_of_gaps(raw, roi)
    mask = None if entry.mask is None else _open(entry, entry.mask)
    if mask is not None and mask.roi_voxels.intersect(roi).empty:
        raise DataError(
            explain(
                f"the place of {mask.path}",
                f"{format_roi(mask.roi_voxels)} voxels",
                f"an overlap with the region {format_roi(roi)} of {entry.nickname!r}",
                "Correct the mask's offset, or leave the mask out",
            )
        )
    settings = run.config.prediction
    outputs = OutputSet(folder, roi, entry.voxel_size, run.network.num_fmaps_out, settings.output_dtype)
    outputs.check()
    published = None
    if settings.tiling == "published":
        published = PublishedSizes(
            roi, Coordinate(settings.input_size_voxels), Coordinate(settings.output_size_voxels)
        )
    planner = Planner(
        run.network,
        Device.of(run.device, run.precision, run.num_workers),
        roi,
        outputs.write_shape,
        None if published is None else published.tiling(run.network),
    )
    plan = planner.plan(settings.block_size_voxels, run.num_workers)
    return _Checked(entry, roi, raw, mask, outputs, published, plan)


def _open(entry: DataEntry, dataset: str) -> Volume:
    return open_volume(entry.file / dataset).with_place(voxel_size=entry.voxel_size)


def _warn_of_gaps(raw: Volume, roi: Roi) -> None:
    """Say how much of the raw data is not there: a broken copy looks just like black tissue."""
    if "://" in raw.path:
        return
    missing = raw.missing_chunks(roi)
    if missing:
        logger.warning(
            "%d chunks of %s in the region %s are not stored and are taken for 0, the first at %s. If they "
            "should be there, copy or convert the data again.",
            len(missing),
            raw.path,
            format_roi(roi),
            format_roi(missing[0]),
        )


def _predict(run: _Run, checked: _Checked, progress: bool) -> EntryPrediction:
    volumes = checked.outputs.open()
    grid = Grid(checked.roi, checked.plan.block_shape, run.network.context_voxels)
    settings = run.config.prediction
    worker = PredictionWorker(
        model=run.model,
        checkpoint=run.checkpoint,
        device=str(run.device),
        precision=settings.precision,
        tile_shape=checked.plan.tile_shape,
        published=checked.published,
        raw=checked.raw,
        mask=checked.mask,
        outputs=volumes,
        output_dtype=settings.output_dtype,
    )
    job = Job(
        name=f"predict {checked.entry.nickname}",
        grid=grid,
        start_worker=worker,
        identity=_identity(run, checked),
        state_dir=checked.outputs.state_dir,
        skip=_outside_mask(checked, grid),
        block_timeout_s=_BLOCK_TIMEOUT_S,
    )
    report = run_stage(job, volumes[SEGMENTATION], num_workers=run.num_workers, progress=progress)
    folder = checked.outputs.folder
    return EntryPrediction(
        entry=checked.entry,
        roi_voxels=checked.roi,
        folder=folder,
        segmentation=folder / SEGMENTATION,
        prob_maps=tuple(folder / name for name in checked.outputs.names if name != SEGMENTATION),
        plan=checked.plan,
        report=report,
    )


def _outside_mask(checked: _Checked, grid: Grid) -> NDArray[np.bool_] | None:
    """Return which blocks the mask leaves nothing of, reading it block by block."""
    if checked.mask is None or checked.published is not None:
        return None
    mask = checked.mask
    with ThreadPoolExecutor(4) as pool:
        empty = pool.map(lambda block: mask_is_empty(mask, block.write_roi), grid.blocks())
        skip = np.fromiter(empty, bool, len(grid)).reshape(grid.shape)
    if skip.all():
        logger.warning("the mask %s is 0 in the whole region of %s", mask.path, checked.entry.nickname)
    return skip


def _identity(run: _Run, checked: _Checked) -> dict[str, object]:
    """Return everything that determines the bytes written, but not how the region is cut."""
    settings = run.config.prediction
    identity: dict[str, object] = {
        "checkpoint": _sha256(run.checkpoint),
        "model": run.model,
        "precision": str(run.precision).removeprefix("torch."),
        "tiling": settings.tiling,
        "output_dtype": settings.output_dtype,
        "raw": checked.raw.fingerprint(),
        "mask": None if checked.mask is None else checked.mask.fingerprint(),
    }
    if checked.published is not None:
        identity["input_size_voxels"] = list(settings.input_size_voxels)
        identity["output_size_voxels"] = list(settings.output_size_voxels)
    return identity


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
