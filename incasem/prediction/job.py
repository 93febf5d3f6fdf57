"""Whole volumes: check everything, plan, and run the blocks of each entry."""

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from incasem.blockwise import Grid, Job, JobReport, count_of, run_stage
from incasem.config import DataEntry, PredictionConfig, check_network_sizes, check_prediction_data
from incasem.errors import ConfigError, explain
from incasem.geometry import Coordinate, Roi
from incasem.networks import ValidNetwork, check_backend, choose_precision
from incasem.prediction.device import choose_devices
from incasem.prediction.entries import OpenedEntry, check_voxel_size, open_entry
from incasem.prediction.outputs import SEGMENTATION, OutputSet, output_folders
from incasem.prediction.plan import BlockBuffers, Device, Planner, PredictionPlan
from incasem.prediction.speed import measured_speed
from incasem.prediction.symmetries import views
from incasem.prediction.worker import (
    BLOCKS_IN_FLIGHT,
    PredictionWorker,
    PublishedSizes,
    load_network,
    mask_is_empty,
)

logger = logging.getLogger(__name__)

_CORES_A_WORKER = 8
_BLOCK_TIMEOUT_S = 6 * 3600.0
_WORTH_MEASURING_S = 60.0


@dataclass(frozen=True)
class EntryPrediction:
    """What was done for one entry.

    Attributes:
        entry: the region.
        roi_voxels: what was predicted, absolute voxels.
        folder: holds the arrays.
        segmentation: path of the class of each voxel.
        prob_maps: paths of the probabilities, see `stored_classes`.
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
class PreparedPrediction:
    """Everything that can be checked without knowing where the outputs go; see `prepare_prediction`.

    Attributes:
        config: settings.
        checkpoint: weights.
        network: with these weights.
        devices: one a worker; several workers share one where there are more of them.
        num_workers: worker processes.
        entries: opened and checked.
        plans: one an entry.
    """

    config: PredictionConfig
    checkpoint: Path
    network: ValidNetwork
    devices: tuple[torch.device, ...]
    num_workers: int
    entries: tuple[OpenedEntry, ...]
    plans: tuple[PredictionPlan, ...]

    @cached_property
    def precision(self) -> torch.dtype:
        """The arithmetic, the same on all devices."""
        return _precision(self.config, self.devices)

    @cached_property
    def flops_per_second(self) -> float | None:
        """Measured speed of all workers together; None where it could not be measured."""
        tile = self.plans[0].tile_shape
        settings = self.config.prediction
        speed = measured_speed(self.network, self.devices[0], settings.precision, settings.backend, tile)
        gpus = {str(device) for device in self.devices[: self.num_workers] if device.type != "cpu"}
        return None if speed is None else speed * max(1, len(gpus))

    def expected(self, plan: PredictionPlan) -> PredictionPlan:
        """Return the plan with the time to expect, measured where it matters."""
        if plan.seconds < _WORTH_MEASURING_S or self.flops_per_second is None:
            return plan
        return plan.at_speed(self.flops_per_second)

    def with_checkpoint(self, checkpoint: Path | str) -> "PreparedPrediction":
        """Return the same prediction with other weights of the same network.

        Raises:
            CheckpointError: the checkpoint is missing, damaged, or of another network or voxel size.
        """
        network = load_network(self.config.to_dict()["model"], Path(checkpoint))
        check_voxel_size(Path(checkpoint), self.config)
        return replace(self, checkpoint=Path(checkpoint), network=network)


def prepare_prediction(
    config: PredictionConfig,
    entries: Sequence[DataEntry],
    *,
    checkpoint: Path | str,
    num_workers: int | None = None,
) -> PreparedPrediction:
    """Load the network, open the data, check all of it and plan the blocks; nothing is written.

    Args:
        config: settings; `model` describes the network of ``checkpoint``.
        entries: of one data configuration.
        checkpoint: weights.
        num_workers: worker processes. None: one a device of `prediction.torch.device`, and on large machines
            without a GPU one for every 8 cores, up to `prediction.num_workers`; the published meaning of that
            setting (processes that feed one GPU) has no counterpart here.

    Raises:
        ConfigError: settings that disagree, or too little memory.
        CheckpointError: the checkpoint is missing, damaged, or of another network or voxel size.
        DataError: data missing or unfit.
    """
    check_prediction_data(config, entries)
    devices = choose_devices(config.prediction.torch.device)
    checkpoint = Path(checkpoint)
    network = load_network(config.to_dict()["model"], checkpoint)
    check_voxel_size(checkpoint, config)
    settings = config.prediction
    if settings.tiling == "published" or not settings.are_default:  # aligned tiles have sizes of their own
        check_network_sizes("prediction", settings, network.output_shape, network.input_shape_for)
    for device in set(devices):
        check_backend(settings.backend, network, device, choose_precision(settings.precision, device))
    workers = num_workers or _default_workers(config, devices)
    opened = tuple(open_entry(entry) for entry in entries)
    # Where outputs will lie inside their container makes no difference to the plan.
    folders = output_folders(entries, config, "volumes/predictions/planned")
    plans = tuple(
        _plan(config, network, devices, workers, entry, folder)
        for entry, folder in zip(opened, folders, strict=True)
    )
    return PreparedPrediction(config, checkpoint, network, devices, workers, opened, plans)


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
    """Prepare and predict in one go; see `prepare_prediction` and `predict_prepared`."""
    prepared = prepare_prediction(config, entries, checkpoint=checkpoint, num_workers=num_workers)
    return predict_prepared(prepared, output_group=output_group, progress=progress, tell=tell)


def predict_prepared(
    prepared: PreparedPrediction,
    *,
    output_group: str,
    progress: bool = True,
    tell: Callable[[str], None] = logger.info,
) -> list[EntryPrediction]:
    """Predict the region of every entry, block by block, and store classes and probabilities.

    A killed prediction continues when it is called again with the same ``output_group``; a finished one is
    left as it is.

    Args:
        prepared: checked and planned.
        output_group: folder inside each container, see `outputs.output_group`.
        progress: whether to show a progress line on standard error.
        tell: gets the plan of each entry, a line, before its first block.

    Raises:
        DataError: an output exists with another shape or other settings; nothing is written then.
        FailedBlocksError: blocks that could not be done; the other entries are not begun.
    """
    entries = [opened.entry for opened in prepared.entries]
    folders = output_folders(entries, prepared.config, output_group)
    outputs = [
        _outputs(prepared.config, prepared.network, opened, folder)
        for opened, folder in zip(prepared.entries, folders, strict=True)
    ]
    for output in outputs:
        output.check()
    return [
        _predict(prepared, opened, output, plan, progress, tell)
        for opened, output, plan in zip(prepared.entries, outputs, prepared.plans, strict=True)
    ]


def _default_workers(config: PredictionConfig, devices: Sequence[torch.device]) -> int:
    if len(devices) > 1 or devices[0].type != "cpu":
        return len(devices)
    return max(1, min(config.prediction.num_workers, (os.cpu_count() or 1) // _CORES_A_WORKER))


def _precision(config: PredictionConfig, devices: Sequence[torch.device]) -> torch.dtype:
    setting = config.prediction.precision
    found = {str(device): choose_precision(setting, device) for device in devices}
    if len(set(found.values())) > 1:
        what = ", ".join(f"{str(dtype).removeprefix('torch.')} on {name}" for name, dtype in found.items())
        raise ConfigError(
            explain(
                "prediction.precision",
                f"{setting}, which means {what}",
                "the same arithmetic on all devices, since bytes must not depend on who did a block",
                "Set prediction.precision to fp32, bf16 or fp16",
            )
        )
    return next(iter(found.values()))


def _outputs(config: PredictionConfig, network: ValidNetwork, opened: OpenedEntry, folder: Path) -> OutputSet:
    return OutputSet(
        folder, opened.roi, opened.entry.voxel_size, network.num_fmaps_out, config.prediction.output_dtype
    )


def _published(config: PredictionConfig, opened: OpenedEntry) -> PublishedSizes | None:
    settings = config.prediction
    if settings.tiling == "aligned":
        return None
    return PublishedSizes(
        opened.roi, Coordinate(settings.input_size_voxels), Coordinate(settings.output_size_voxels)
    )


def _plan(
    config: PredictionConfig,
    network: ValidNetwork,
    devices: Sequence[torch.device],
    num_workers: int,
    opened: OpenedEntry,
    folder: Path,
) -> PredictionPlan:
    outputs, published = _outputs(config, network, opened, folder), _published(config, opened)
    used = Counter(devices[worker % len(devices)] for worker in range(num_workers))
    precision, backend = _precision(config, devices), config.prediction.backend
    sharing = [Device.of(device, precision, count, backend) for device, count in used.items()]
    planner = Planner(
        network,
        min(sharing, key=lambda device: device.memory_bytes),
        opened.roi,
        outputs.write_shape,
        None if published is None else published.tiling(network),
        views=len(views(config.prediction.tta, network)),
        buffers=BlockBuffers(
            read_bytes=opened.raw.dtype.itemsize,
            written_bytes=outputs.bytes_per_voxel + 4 * network.num_fmaps_out,  # logits and what they become
            blocks=BLOCKS_IN_FLIGHT[devices[0].type],
        ),
    )
    return planner.plan(config.prediction.block_size_voxels, num_workers)


def _predict(
    prepared: PreparedPrediction,
    opened: OpenedEntry,
    outputs: OutputSet,
    plan: PredictionPlan,
    progress: bool,
    tell: Callable[[str], None],
) -> EntryPrediction:
    settings = prepared.config.prediction
    grid = Grid(opened.roi, plan.block_shape, prepared.network.context_voxels)
    skip = _outside_mask(opened, grid, settings.tiling)
    plan = prepared.expected(plan)
    tell(f"{opened.entry.nickname}: {_described(plan, skip)}")
    volumes = outputs.open()
    worker = PredictionWorker(
        model=prepared.config.to_dict()["model"],
        checkpoint=prepared.checkpoint,
        devices=[str(device) for device in prepared.devices],
        precision=settings.precision,
        tile_shape=plan.tile_shape,
        published=_published(prepared.config, opened),
        raw=opened.raw,
        mask=opened.mask,
        outputs=volumes,
        output_dtype=settings.output_dtype,
        tta=settings.tta,
        backend=settings.backend,
    )
    job = Job(
        name=f"predict {opened.entry.nickname}",
        grid=grid,
        start_worker=worker,
        identity=_identity(prepared, opened),
        state_dir=outputs.state_dir,
        skip=skip,
        block_timeout_s=_BLOCK_TIMEOUT_S,
    )
    report = run_stage(job, volumes[SEGMENTATION], num_workers=prepared.num_workers, progress=progress)
    return EntryPrediction(
        entry=opened.entry,
        roi_voxels=opened.roi,
        folder=outputs.folder,
        segmentation=outputs.folder / SEGMENTATION,
        prob_maps=tuple(outputs.folder / name for name in outputs.names if name != SEGMENTATION),
        plan=plan,
        report=report,
    )


def _described(plan: PredictionPlan, skip: NDArray[np.bool_] | None) -> str:
    if skip is None or not skip.any():
        return plan.describe()
    left_out = int(skip.sum())
    shorter = replace(plan, seconds=plan.seconds * (1 - left_out / skip.size))
    return f"{shorter.describe()}; {count_of(left_out, 'block')} outside the mask left out"


def _outside_mask(opened: OpenedEntry, grid: Grid, tiling: str) -> NDArray[np.bool_] | None:
    """Return which blocks the mask leaves nothing of, reading it block by block."""
    if opened.mask is None or tiling == "published":
        return None
    mask = opened.mask
    with ThreadPoolExecutor(4) as pool:
        empty = pool.map(lambda block: mask_is_empty(mask, block.write_roi), grid.blocks())
        skip = np.fromiter(empty, bool, len(grid)).reshape(grid.shape)
    if skip.all():
        logger.warning("the mask %s is 0 in the whole region of %s", mask.path, opened.entry.nickname)
    return skip


def _identity(prepared: PreparedPrediction, opened: OpenedEntry) -> dict[str, object]:
    """Return everything that determines the bytes written, but not how the region is cut."""
    settings = prepared.config.prediction
    identity: dict[str, Any] = {
        "checkpoint": _sha256(prepared.checkpoint),
        "model": prepared.config.to_dict()["model"],
        "precision": str(prepared.precision).removeprefix("torch."),
        "tiling": settings.tiling,
        "output_dtype": settings.output_dtype,
        "raw": opened.raw.fingerprint(),
        "mask": None if opened.mask is None else opened.mask.fingerprint(),
    }
    if settings.tta != "none":
        identity["tta"] = settings.tta
    if settings.backend != "torch":
        identity["backend"] = settings.backend
    if settings.tiling == "published":
        identity["input_size_voxels"] = list(settings.input_size_voxels)
        identity["output_size_voxels"] = list(settings.output_size_voxels)
    return identity


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
