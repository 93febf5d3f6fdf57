"""`incasem check train`: everything that a training needs, before it starts."""

import math
from pathlib import Path
from typing import Literal

import torch

from incasem.blockwise import count_of, format_seconds
from incasem.config import DataEntry, TrainingConfig, training_checks
from incasem.geometry import Roi
from incasem.networks import Checkpoint, ValidNetwork, choose_precision
from incasem.prediction import choose_device
from incasem.prediction.cost import training_cost
from incasem.prediction.speed import measured_speed
from incasem.preflight.findings import Findings
from incasem.preflight.grey_values import check_grey_values
from incasem.preflight.labels import check_labels
from incasem.preflight.machine import check_devices, check_disk, check_memory
from incasem.preflight.regions import check_chunks, check_overlaps, check_region, region_of
from incasem.preflight.stores import check_store
from incasem.tasks.chosen import task_of
from incasem.tasks.ground_truth import LabelKind
from incasem.tracking import RunStore
from incasem.training.directories import RunDirectories
from incasem.training.feed import CACHE_BYTES, checked_indices
from incasem.training.preparation import (
    TrainingRequest,
    checked_network,
    checkpoint_to_start_from,
    section_entries,
    store_and_base,
    training_settings,
)
from incasem.training.sources import EntrySource, open_entry
from incasem.training.state import initial_state

_COUNTED_VOXELS = 2**28
"""Labels of a training that are counted here as the training does; a few seconds."""
_MEMORY_FACTOR = 1.7
"""Measured peak over the sum of living tensors: 0.49 GB of 0.28 GB (fp32, CPU, 132³, 8 feature maps)."""
_SNAPSHOT_BYTES = 12
Section = Literal["training", "validation"]


def check_training(request: TrainingRequest) -> Findings:
    """Return all findings about a training; nothing is written.

    Args:
        request: what the command line would ask of a training.
    """
    findings = Findings("train", f"training {request.name!r}")
    looked_up = findings.attempt("settings", "settings", lambda: store_and_base(request))
    store, base = looked_up if looked_up is not None else (None, None)
    config = findings.attempt("settings", "settings", lambda: training_settings(request, base))
    if config is None:
        return findings.without_repeats()
    findings.ok("settings", "settings", _in_words(config))
    _check_store(findings, request, config, store)
    training = _entries(findings, config, "training")
    validation = _entries(findings, config, "validation") if config.validation.data is not None else []
    if config.validation.data is None:
        findings.warning(
            "paths", "validation.data", "not set: no checkpoint will be scored",
            "Name a data configuration of annotated regions that are not trained on.",
        )  # fmt: skip
    if training is not None and validation is not None:
        for check in training_checks(config, training, validation):
            findings.passes("classes-and-voxels", "data", check)
    network = findings.attempt("network", "model", lambda: checked_network(config))
    context = tuple(int(c) for c in network.context_voxels) if network is not None else (0, 0, 0)
    sources: list[EntrySource] = []
    placed: dict[Section, dict[str, tuple[DataEntry, Roi]]] = {"training": {}, "validation": {}}
    of_sections: tuple[tuple[Section, list[DataEntry]], ...] = (
        ("training", training or []), ("validation", validation or []),
    )  # fmt: skip
    for section, entries in of_sections:
        for index, entry in enumerate(entries):
            source = _check_entry(findings, entry, index, context, task_of(config).label_kind)
            if source is None:
                continue
            placed[section][entry.nickname] = (source.entry, source.roi)
            if section == "training":
                sources.append(source)
    check_overlaps(findings, placed["training"], placed["validation"], context)
    if training and len(sources) == len(training):
        _check_offsets(findings, config, sources)
        _check_learnable(findings, config, sources)
    _check_run(findings, request, config, network)
    return findings.without_repeats()


def _in_words(config: TrainingConfig) -> str:
    seed = "a seed of its own" if config.seed is None else f"seed {config.seed}"
    return f"{config.training.iterations} iterations, {seed}"


def _check_store(
    findings: Findings, request: TrainingRequest, config: TrainingConfig, store: RunStore | None
) -> None:
    if store is None:
        return
    number = check_store(findings, "trainings", store)
    store.close()
    if number is None or request.continue_run is not None:
        return
    folder = RunDirectories(config.directories.runs, number).models
    if folder.is_dir() and any(folder.iterdir()):
        findings.warning(
            "output", "directories.runs",
            f"{folder} exists already, though run {number} is not recorded: its "
            "checkpoints would be mixed with those of the new run",
            "Move the folder away, or choose another directories.runs.",
        )  # fmt: skip


def _entries(findings: Findings, config: TrainingConfig, section: Section) -> list[DataEntry] | None:
    found = findings.attempt("paths", f"{section}.data", lambda: section_entries(config, section))
    if found is None:
        return None
    path, entries = found
    names = ", ".join(entry.nickname for entry in entries)
    findings.ok("paths", f"{section}.data", f"{path}: {names}", entries=[e.nickname for e in entries])
    return entries


def _check_entry(
    findings: Findings, entry: DataEntry, index: int, context: tuple[int, ...], label_kind: LabelKind
) -> EntrySource | None:
    source = findings.attempt("data", entry.nickname, lambda: open_entry(entry, index, labels=label_kind))
    if source is None:
        return None
    roi = region_of(source.entry, source.raw)
    check_region(findings, source.entry, source.raw, roi, context)
    check_chunks(findings, entry.nickname, source.raw, roi)
    check_grey_values(findings, entry.nickname, source.raw, roi)
    check_labels(findings, source.entry, roi, label_kind)
    return source


def _check_offsets(findings: Findings, config: TrainingConfig, sources: list[EntrySource]) -> None:
    """Say which channels of affinities reach across every region: nothing is learnt in them."""
    if config.task.type != "affinities":
        return
    shapes = [source.roi.shape for source in sources]
    lost = [
        list(offset)
        for offset in config.task.offsets
        if all(any(abs(o) >= s for o, s in zip(offset, shape, strict=True)) for shape in shapes)
    ]
    if lost:
        findings.warning(
            "offsets", "task.offsets",
            f"{', '.join(map(str, lost))}: longer than every training region, so nothing is learnt there",
            "Leave them out, or annotate larger regions.", offsets=lost,
        )  # fmt: skip


def _check_learnable(findings: Findings, config: TrainingConfig, sources: list[EntrySource]) -> None:
    """Count labels and try locations as the feed of a training does, where that is quick."""
    voxels = sum(source.roi.size for source in sources)
    if voxels > _COUNTED_VOXELS:
        findings.ok(
            "samples",
            "training.data",
            f"labels of {voxels / 1e6:.0f} Mvoxel are counted when training starts",
        )
    elif not findings.passes("samples", "training.data", lambda: checked_indices(sources, config)):
        return
    settings = config.training
    number = (settings.iterations + 1) * settings.accumulate * settings.batch_size
    blocks = voxels / math.prod(settings.output_size_voxels)
    findings.ok(
        "samples", "training.data",
        f"{number} samples of {'×'.join(map(str, settings.output_size_voxels))} voxels are drawn from "
        f"regions of {blocks:.3g} times that size",
        samples=number, blocks_in_regions=blocks,
    )  # fmt: skip


def _check_run(
    findings: Findings, request: TrainingRequest, config: TrainingConfig, network: ValidNetwork | None
) -> None:
    """Add device, checkpoint, memory, disk and duration; without a network what can be said without it."""
    device = findings.attempt("device", "torch.device", lambda: choose_device(config.torch.device))
    if config.validation.device is not None:
        beside = config.validation.device
        findings.attempt("device", "validation.device", lambda: choose_device(beside, "validation.device"))
    found = findings.attempt("checkpoint", "model", lambda: checkpoint_to_start_from(request, config))
    if device is None or network is None:
        return
    precision = findings.attempt(
        "device", "training.precision", lambda: choose_precision(config.training.precision, device)
    )
    if precision is None:
        return
    check_devices(findings, [device], str(precision).removeprefix("torch."))
    parameters = sum(p.numel() for p in network.parameters())
    findings.ok("network", "model", f"{config.model.type}, {parameters:,} parameters", parameters=parameters)
    start = 0
    if found is not None:
        checkpoint, start = found
        _check_checkpoint(findings, request, config, network, checkpoint, precision)
        if start > config.training.iterations:
            findings.warning(
                "samples", "training.iterations", f"run {request.continue_run} is at iteration {start - 1} "
                f"already, the last is to be {config.training.iterations}: nothing is left to train",
                "Set training.iterations higher.",
            )  # fmt: skip
    _check_needs(findings, config, network, device, precision, start, parameters)


def _check_checkpoint(
    findings: Findings, request: TrainingRequest, config: TrainingConfig, network: ValidNetwork,
    checkpoint: Checkpoint | None, precision: torch.dtype,
) -> None:  # fmt: skip
    """Add whether weights and optimizer fit the network, which is loaded as the training loads it."""
    if checkpoint is None:
        return
    continues = request.continue_run is not None
    state = findings.attempt(
        "checkpoint", "model",
        lambda: initial_state(
            config, network, checkpoint, torch.device("cpu"), precision, continues=continues
        ),
    )  # fmt: skip
    if state is not None:
        findings.ok("checkpoint", "model", "the weights fit the network")


def _check_needs(
    findings: Findings, config: TrainingConfig, network: ValidNetwork, device: torch.device,
    precision: torch.dtype, start: int, parameters: int,
) -> None:  # fmt: skip
    settings = config.training
    cost = training_cost(network, settings.input_size_voxels)
    step = cost.peak_elements * precision.itemsize * settings.batch_size * _MEMORY_FACTOR
    feed = settings.precache.num_workers * CACHE_BYTES
    needed = int(step + 16 * parameters + (feed if device.type == "cpu" else 0))
    check_memory(
        findings, "training", needed, device,
        "Set training.batch_size=1, smaller training.input_size_voxels and output_size_voxels, or "
        "training.precision=bf16.",
    )  # fmt: skip
    left = max(settings.iterations - start, 0)
    checkpoints = left // settings.save_every + 2
    if settings.checkpoints.keep is not None:
        checkpoints = min(checkpoints, settings.checkpoints.keep + 1)
    snapshots = left // settings.snapshot.every + 1
    sizes = 12 * parameters * checkpoints
    sizes += snapshots * _SNAPSHOT_BYTES * math.prod(settings.input_size_voxels) // 4
    check_disk(findings, "training", sizes, Path(config.directories.runs), compresses=False)
    speed = measured_speed(network, device, settings.precision, "torch", network.smallest_input)
    steps = (left + 1) * settings.accumulate * settings.batch_size
    if speed is not None:
        seconds = cost.flops * steps / speed
        findings.ok(
            "duration", "training",
            f"{cost.flops * steps / 1e12:.3g} TFLOP in {count_of(steps, 'sample')}: about "
            f"{format_seconds(seconds)} at the speed measured here, if samples are ready in time; "
            "validations come on top",
            flops=float(cost.flops * steps), seconds=seconds,
        )  # fmt: skip
