"""What a prediction needs, looked up and checked before anything is written.

`prepare_prediction` takes the steps one after the other and stops at the first that fails; `incasem check`
takes the same ones and goes on.
"""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import torch

from incasem.config import DataEntry, PredictionConfig, check_network_sizes, check_prediction_data
from incasem.errors import ConfigError, explain
from incasem.geometry import Coordinate
from incasem.networks import ValidNetwork, check_backend, choose_precision
from incasem.prediction.device import choose_devices
from incasem.prediction.entries import OpenedEntry, check_task, check_voxel_size, open_entry
from incasem.prediction.outputs import OutputSet, output_folders
from incasem.prediction.plan import BlockBuffers, Device, Planner, PredictionPlan
from incasem.prediction.speed import measured_speed
from incasem.prediction.symmetries import margin, views
from incasem.prediction.tiling import FixedTiling, tiling_for
from incasem.prediction.worker import BLOCKS_IN_FLIGHT, PublishedSizes, load_network
from incasem.tasks.chosen import task_of

_CORES_A_WORKER = 8
_WORTH_MEASURING_S = 60.0


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
        check_task(Path(checkpoint), self.config)
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
    for check in network_checks(config, checkpoint, network, devices):
        check()
    workers = num_workers or default_workers(config, devices)
    opened = tuple(open_entry(entry) for entry in entries)
    # Where outputs will lie inside their container makes no difference to the plan.
    folders = output_folders(entries, config, "volumes/predictions/planned")
    plans = tuple(
        plan_entry(config, network, devices, workers, entry, folder)
        for entry, folder in zip(opened, folders, strict=True)
    )
    return PreparedPrediction(config, checkpoint, network, devices, workers, opened, plans)


def network_checks(
    config: PredictionConfig, checkpoint: Path, network: ValidNetwork, devices: Sequence[torch.device]
) -> list[Callable[[], None]]:
    """Return the checks of a loaded network; each raises an IncasemError of its own."""
    settings = config.prediction
    checks: list[Callable[[], None]] = [
        partial(check_voxel_size, checkpoint, config),
        partial(check_task, checkpoint, config),
    ]
    if settings.tiling == "published" or not settings.are_default:  # aligned tiles have sizes of their own
        sizes = (network.output_shape, network.input_shape_for)
        checks.append(partial(check_network_sizes, "prediction", settings, *sizes))
    for device in dict.fromkeys(devices):
        precision = choose_precision(settings.precision, device)
        checks.append(partial(check_backend, settings.backend, network, device, precision))
    return checks


def default_workers(config: PredictionConfig, devices: Sequence[torch.device]) -> int:
    """Return the number of worker processes: one a device, or one for every 8 cores without a GPU."""
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


def outputs_of(config: PredictionConfig, opened: OpenedEntry, folder: Path) -> OutputSet:
    """Return the arrays of an entry in ``folder``, not made yet."""
    task, dtype = task_of(config), config.prediction.output_dtype
    return OutputSet(folder, opened.roi, opened.entry.voxel_size, task, dtype)


def published_sizes(config: PredictionConfig, opened: OpenedEntry) -> PublishedSizes | None:
    """Return the published tiling of an entry, None for the aligned one."""
    settings = config.prediction
    if settings.tiling == "aligned":
        return None
    return PublishedSizes(
        opened.roi, Coordinate(settings.input_size_voxels), Coordinate(settings.output_size_voxels)
    )


def fixed_tiling(network: ValidNetwork, config: PredictionConfig) -> FixedTiling | None:
    """Return the tiles of a network whose result depends on them (`norm: group`), None for all others.

    Their size is that of `prediction.output_size_voxels`, not what the planner finds fastest: it is part of
    the result, which must be the same on all machines.
    """
    tiling = tiling_for(network, config.prediction.output_size_voxels)
    return tiling if isinstance(tiling, FixedTiling) else None


def plan_entry(
    config: PredictionConfig,
    network: ValidNetwork,
    devices: Sequence[torch.device],
    num_workers: int,
    opened: OpenedEntry,
    folder: Path,
) -> PredictionPlan:
    """Return the blocks of one entry and what they cost.

    Args:
        config: settings.
        network: with any weights.
        devices: of all workers.
        num_workers: that share the devices.
        opened: the entry.
        folder: where its outputs go; the Zarr format of its container decides what one writer must own.

    Raises:
        ConfigError: `prediction.block_size_voxels` does not fit the chunks, too little memory, or devices
            that compute differently.
    """
    outputs, published = outputs_of(config, opened, folder), published_sizes(config, opened)
    used = Counter(devices[worker % len(devices)] for worker in range(num_workers))
    precision, backend = _precision(config, devices), config.prediction.backend
    sharing = [Device.of(device, precision, count, backend) for device, count in used.items()]
    seen = views(config.prediction.tta, network, task_of(config).meanings)
    tiling = fixed_tiling(network, config) if published is None else published.tiling(network)
    planner = Planner(
        network,
        min(sharing, key=lambda device: device.memory_bytes),
        opened.roi,
        outputs.write_shape,
        None if tiling is None else tiling.with_margin(margin(seen)),
        views=len(seen),
        margin=margin(seen),
        buffers=BlockBuffers(
            read_bytes=opened.raw.dtype.itemsize,
            written_bytes=outputs.bytes_per_voxel + 4 * network.num_fmaps_out,  # logits and what they become
            blocks=BLOCKS_IN_FLIGHT[devices[0].type],
        ),
    )
    return planner.plan(config.prediction.block_size_voxels, num_workers)
