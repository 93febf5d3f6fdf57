"""A training from its settings to its report: what `train.py` and `incasem train` do."""

import json
import logging
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from incasem.allocation import keep_freed_memory
from incasem.config import TrainingConfig, with_seed
from incasem.networks import ScoredCheckpoint, best_scored_checkpoint
from incasem.tasks.chosen import task_of
from incasem.tracking import Run, run_experiment
from incasem.training.asynchronous import Validations
from incasem.training.directories import RunDirectories
from incasem.training.distributed import Processes, processes
from incasem.training.history import History, scores_of
from incasem.training.monitor import Monitor
from incasem.training.preparation import (
    PreparedTraining,
    TrainingRequest,
    prepare_training,
    store_and_base,
    training_settings,
)
from incasem.training.report import write_training_report
from incasem.training.step import Stepper
from incasem.training.trainer import Trainer
from incasem.training.validation import Validator

logger = logging.getLogger(__name__)

__all__ = ["TrainingRequest", "train"]


def train(request: TrainingRequest, tell: Callable[[str], None]) -> int:
    """Train as asked, record the run, and return its id; 0 in a process that does not lead.

    Args:
        request: what the command line asked for.
        tell: prints a line to the terminal.

    Raises:
        IncasemError: bad settings or data (nothing is written), or a failure in the run.
    """
    with processes() as joined:
        return _lead(request, joined, tell) if joined.leads else _follow(request, joined)


def _lead(request: TrainingRequest, joined: Processes, tell: Callable[[str], None]) -> int:
    """Train and record the run; the other processes learn the settings once they have been checked."""
    store, base = store_and_base(request)
    config = with_seed(training_settings(request, base))
    prepared = prepare_training(request, config, joined)
    joined.from_leader(json.dumps(config.to_dict()))
    joined.wait()  # what the others cannot use is not recorded either

    def main(run: Run) -> str:
        run_id = run.run_id
        directories = RunDirectories(config.directories.runs, config.training.continue_id or run_id)
        history = _run(request, prepared, directories, run.log_scalar, tell)
        best = best_scored_checkpoint(directories.models)
        report = write_training_report(directories.report, request.name, prepared.config, history, best)
        _tell_results(tell, directories, run_id, report, best)
        return _result_line(history, best)

    outcome = run_experiment(
        name=request.name,
        kind="train",
        config=config.to_dict(),
        store=store,
        main=main,
        artifacts=prepared.artifacts,
    )
    return outcome.run_id


def _follow(request: TrainingRequest, joined: Processes) -> int:
    """Take the same steps with other samples."""
    config = TrainingConfig.model_validate(json.loads(joined.from_leader()))
    prepared = prepare_training(request, config, joined)
    joined.wait()
    stepper = _stepper(prepared)
    with prepared.feed as feed:
        batches = feed.batches(config.training.batch_size)
        for iteration in range(prepared.start, config.training.iterations + 1):
            stepper.step(iteration, list(islice(batches, config.training.accumulate)))
    return 0


def _stepper(prepared: PreparedTraining) -> Stepper:
    """Make this process ready to compute, and return what takes its steps."""
    config, state = prepared.config, prepared.state
    if prepared.device.type == "cpu":
        keep_freed_memory()
    if config.training.num_threads is not None:
        torch.set_num_threads(config.training.num_threads)
    return Stepper(
        config, state.network, state.optimizer, state.scaler, prepared.device, prepared.precision,
        prepared.processes,
    )  # fmt: skip


def _run(
    request: TrainingRequest,
    prepared: PreparedTraining,
    directories: RunDirectories,
    log_scalar: Callable[[str, float, int], None],
    tell: Callable[[str], None],
) -> History:
    config, state, start = prepared.config, prepared.state, prepared.start
    stepper = _stepper(prepared)
    _tell_start(tell, request, prepared, directories, start)
    nicknames = [entry.nickname for entry in prepared.validation]
    with (
        Monitor(directories, log_scalar, nicknames) as monitor,
        prepared.feed as feed,
        _validations(prepared, directories) as validations,
    ):
        monitor.record(start, {"num_params": sum(p.numel() for p in state.result.parameters())})
        trainer = Trainer(
            config=config,
            stepper=stepper,
            batches=feed.batches(config.training.batch_size),
            validations=validations if prepared.validation else None,
            monitor=monitor,
            directories=directories,
            sidecar=_sidecar(request, prepared, directories),
            result=state.result,
            average=state.average,
            start=start,
            tell=tell,
        )
        history = trainer.run()
        best = best_scored_checkpoint(directories.models)  # perhaps of an earlier part
        monitor.outcome(config, config.training.iterations, scores_of(best))
        return history


def _validations(prepared: PreparedTraining, directories: RunDirectories) -> Validations:
    """Return what runs the validations: beside the training, if asked for or another device is free."""
    device = prepared.validation_device
    validator = Validator(prepared.validation, prepared.config, device, directories)
    asked = prepared.config.validation.device is not None
    return Validations(validator, beside=asked or device != prepared.device)


def _sidecar(
    request: TrainingRequest, prepared: PreparedTraining, directories: RunDirectories
) -> dict[str, Any]:
    settings, task = prepared.config.to_dict(), task_of(prepared.config)
    return {
        "run_id": directories.run_id,
        "name": request.name,
        "task": task.name,
        "task_settings": settings["task"],
        "model": settings["model"],
        "data": settings["data"],
        "classes": task.class_names(prepared.training),
        "training_data": prepared.config.training.data,
    }


def _tell_start(
    tell: Callable[[str], None],
    request: TrainingRequest,
    prepared: PreparedTraining,
    directories: RunDirectories,
    start: int,
) -> None:
    config = prepared.config
    parameters = sum(p.numel() for p in prepared.state.result.parameters())
    regions = f"{len(prepared.training)} training and {len(prepared.validation)} validation regions"
    precision = str(prepared.precision).removeprefix("torch.")
    world = prepared.processes.world
    device = f"{prepared.device}" + (f" in {world} processes" if world > 1 else "")
    if prepared.validation_device != prepared.device:
        device += f", validated on {prepared.validation_device}"
    tell(
        f"run {directories.run_id} ({request.name}): {config.model.type} with {parameters:,} parameters on "
        f"{device}, {precision}; {regions}; iterations {start} to {config.training.iterations}"
    )
    if task_of(config).scored_as:
        tell(f"  scores: {task_of(config).scored_as}")
    tell(f"  watch it: tensorboard --logdir {directories.tensorboard}")


def _tell_results(
    tell: Callable[[str], None],
    directories: RunDirectories,
    run_id: int,
    report: Path,
    best: ScoredCheckpoint | None,
) -> None:
    goes_on = f", which went on with run {directories.run_id}," if directories.run_id != run_id else ""
    tell(f"run {run_id}{goes_on} is done")
    tell(f"  checkpoints: {directories.models}")
    if best is not None:
        tell(f"  the best:    {best.path.name}, validated F1 {best.f1:.4f}")
    tell(f"  report:      {report}")


def _result_line(history: History, best: ScoredCheckpoint | None) -> str:
    if not history.validations:
        return (
            f"training loss: {history.losses[-1][1]:.4f}" if history.losses else "nothing was left to train"
        )
    iteration, validations = history.validations[-1]
    line = f"iteration {iteration}: " + "; ".join(validation.line() for validation in validations)
    return line if best is None else f"{line}; best: {best.path.name}, F1 {best.f1:.4f}"
