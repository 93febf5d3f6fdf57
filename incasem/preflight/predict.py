"""`incasem check predict`: everything that a prediction needs, before it starts."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch

from incasem.blockwise import count_of
from incasem.config import DataEntry, PredictionConfig, prediction_checks
from incasem.networks import ValidNetwork
from incasem.prediction import choose_devices, output_group
from incasem.prediction.entries import OpenedEntry, open_entry
from incasem.prediction.outputs import output_folders
from incasem.prediction.preparation import (
    PreparedPrediction,
    default_workers,
    network_checks,
    outputs_of,
    plan_entry,
)
from incasem.prediction.worker import load_network
from incasem.preflight.findings import Findings
from incasem.preflight.grey_values import check_grey_values
from incasem.preflight.labels import check_labels
from incasem.preflight.machine import check_devices, check_disk, check_memory
from incasem.preflight.regions import check_region
from incasem.preflight.stores import check_store
from incasem.runs.interrupted import interrupted_run
from incasem.runs.predict import (
    PredictionRequest,
    check_scoring,
    checkpoint_of,
    look_up_settings,
    predictions_store,
    region_entries,
    with_checkpoint,
)
from incasem.tasks.chosen import task_of
from incasem.tasks.ground_truth import LabelKind
from incasem.volumes import exists

_MEMORY_TODO = "Set prediction.block_size_voxels smaller, or use fewer workers."


def check_prediction(request: PredictionRequest) -> Findings:
    """Return all findings about a prediction; nothing is written.

    Args:
        request: what the command line would ask of a prediction.
    """
    findings = Findings("predict", f"prediction with training run {request.run_id}")
    found = findings.attempt("settings", "settings", lambda: look_up_settings(request))
    if found is None:
        store = findings.attempt("settings", "settings", lambda: predictions_store(request))
        if store is not None:
            store.close()
        return findings.without_repeats()
    config, models = found
    findings.ok("settings", "settings", f"those of training run {request.run_id}")
    entries = _entries(findings, config)
    checkpoint = findings.attempt(
        "checkpoint", "prediction.checkpoint", lambda: checkpoint_of(request, config, models)
    )
    number = _number(findings, request, config, checkpoint)
    devices = findings.attempt(
        "device", "prediction.torch.device", lambda: choose_devices(config.prediction.torch.device)
    )
    network = None if checkpoint is None else _network(findings, config, checkpoint, devices)
    context = (0, 0, 0) if network is None else tuple(int(c) for c in network.context_voxels)
    opened = [_check_entry(findings, entry, context, task_of(config).label_kind) for entry in entries]
    usable = [one for one in opened if one is not None]
    if network is not None and checkpoint is not None and devices is not None and usable:
        _check_run(findings, config, checkpoint, network, devices, usable, entries)
        if number is not None:
            _check_outputs(findings, config, usable, entries, output_group(request.run_id, number))
    return findings.without_repeats()


def _entries(findings: Findings, config: PredictionConfig) -> list[DataEntry]:
    found = findings.attempt("paths", "prediction.data", lambda: region_entries(config))
    if found is None:
        return []
    path, entries = found
    names = ", ".join(entry.nickname for entry in entries)
    findings.ok("paths", "prediction.data", f"{path}: {names}", entries=[e.nickname for e in entries])
    for check in prediction_checks(config, entries):
        findings.passes("classes-and-voxels", "data", check)
    findings.passes("labels", "prediction.log_metrics", lambda: check_scoring(config, entries))
    return entries


def _number(
    findings: Findings, request: PredictionRequest, config: PredictionConfig, checkpoint: Path | None
) -> int | None:
    """Return the number of the prediction: the next one, or that of the interrupted one that goes on."""
    store = findings.attempt("run-store", "predictions", lambda: predictions_store(request))
    if store is None:
        return None
    with store:
        number = check_store(findings, "predictions", store)
        if number is None or checkpoint is None or config.prediction.data is None:
            return number
        recorded = with_checkpoint(config, checkpoint).to_dict()
        data = Path(config.prediction.data).expanduser()
        if not data.is_file():
            return number
        before = interrupted_run(store, recorded, data)
    if before is None:
        return number
    findings.ok("output", "predictions", f"goes on with the interrupted prediction {before}", goes_on=before)
    return None  # its outputs are there, and are meant to be


def _network(
    findings: Findings, config: PredictionConfig, checkpoint: Path, devices: Sequence[torch.device] | None
) -> ValidNetwork | None:
    network = findings.attempt(
        "checkpoint", str(checkpoint), lambda: load_network(config.to_dict()["model"], checkpoint)
    )
    if network is None:
        return None
    checks = findings.attempt(
        "device", "prediction.precision",
        lambda: network_checks(config, checkpoint, network, devices or [torch.device("cpu")]),
    )  # fmt: skip
    fits = [findings.passes("checkpoint", str(checkpoint), check) for check in checks or []]
    if all(fits):
        parameters = sum(p.numel() for p in network.parameters())
        findings.ok(
            "checkpoint", str(checkpoint),
            f"fits the network, {config.model.type}, {parameters:,} parameters",
            parameters=parameters,
        )  # fmt: skip
    return network if checks is not None else None


def _check_entry(
    findings: Findings, entry: DataEntry, context: Sequence[int], label_kind: LabelKind
) -> OpenedEntry | None:
    opened = findings.attempt("data", entry.nickname, lambda: open_entry(entry))
    if opened is None:
        return None
    check_region(findings, entry, opened.raw, opened.roi, context)
    check_grey_values(findings, entry.nickname, opened.raw, opened.roi)
    if entry.labels or entry.mask or entry.metric_masks:
        check_labels(findings, entry, opened.roi, label_kind)
    return opened


def _check_run(
    findings: Findings, config: PredictionConfig, checkpoint: Path, network: ValidNetwork,
    devices: Sequence[torch.device], opened: Sequence[OpenedEntry], entries: Sequence[DataEntry],
) -> None:  # fmt: skip
    """Add device, blocks, memory, disk and duration."""
    workers = default_workers(config, devices)
    folders = dict(
        zip((e.nickname for e in entries), output_folders(entries, config, "planned"), strict=True)
    )
    planned = []
    for one in opened:
        name = one.entry.nickname
        plan = findings.attempt(
            "blocks", name,
            lambda e=one, f=folders[name]: plan_entry(config, network, devices, workers, e, f),  # type: ignore[misc]
        )  # fmt: skip
        if plan is not None:
            planned.append((one, plan))
    if not planned:
        return
    everything = PreparedPrediction(
        config, checkpoint, network, tuple(devices), workers,
        tuple(one for one, _ in planned), tuple(plan for _, plan in planned),
    )  # fmt: skip
    check_devices(findings, devices, str(everything.precision).removeprefix("torch."))
    for one, plan in planned:
        name = one.entry.nickname
        expected = findings.attempt("blocks", name, lambda p=plan: everything.expected(p))  # type: ignore[misc]
        if expected is not None:
            findings.ok(
                "blocks", name, f"{expected.describe()}, in {count_of(workers, 'worker')}",
                blocks=expected.num_blocks, block_shape=list(expected.block_shape), workers=workers,
                flops=expected.flops, seconds=expected.seconds,
            )  # fmt: skip
        outputs = outputs_of(config, one, folders[name])
        needed = outputs.bytes_per_voxel * math.prod(one.roi.shape)
        check_disk(findings, name, needed, folders[name].parent, compresses=True)
    largest = max(plan.memory_bytes for _, plan in planned)
    per_device = -(-workers // len(set(devices)))
    check_memory(findings, "prediction", largest * per_device, devices[0], _MEMORY_TODO)


def _check_outputs(
    findings: Findings, config: PredictionConfig, opened: Sequence[OpenedEntry],
    entries: Sequence[DataEntry], group: str,
) -> None:  # fmt: skip
    """Add outputs that lie where the next prediction writes, left by runs of another store."""
    folders = dict(zip((e.nickname for e in entries), output_folders(entries, config, group), strict=True))
    for one in opened:
        name = one.entry.nickname
        outputs = outputs_of(config, one, folders[name])
        there = [array for array in outputs.names if exists(outputs.folder / array)]
        if there and findings.passes("output", name, outputs.check):
            findings.warning(
                "output", name,
                f"{outputs.folder} exists already, of a run that this store does not hold; its blocks are "
                "kept where it has the same settings, else the prediction is refused",
                f"Delete or move {outputs.folder} to predict anew.", exists=there,
            )  # fmt: skip
        elif not there:
            findings.ok("output", name, f"{outputs.folder / outputs.main}", folder=str(outputs.folder))
