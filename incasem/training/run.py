"""A training from its settings to its report: what `train.py` and `incasem train` do."""

import json
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from incasem.config import (
    DataEntry,
    TrainingConfig,
    check_network_sizes,
    check_training_data,
    class_names,
    data_config_path,
    load_data_config,
    load_training_config,
    with_seed,
)
from incasem.errors import CheckpointError, ConfigError, explain
from incasem.networks import (
    Checkpoint,
    ScoredCheckpoint,
    best_scored_checkpoint,
    build_network,
    choose_precision,
    keep_freed_memory,
    latest_checkpoint,
    load_checkpoint,
)
from incasem.tracking import (
    MODEL_CARDS,
    TRAININGS,
    Run,
    RunStore,
    find_training_settings,
    git_state,
    open_store,
    run_experiment,
)
from incasem.training.directories import RunDirectories
from incasem.training.distributed import Processes, processes
from incasem.training.feed import SampleFeed
from incasem.training.history import History, scores_of
from incasem.training.monitor import Monitor
from incasem.training.report import write_training_report
from incasem.training.sources import check_entries
from incasem.training.state import TrainingState, initial_state
from incasem.training.step import Stepper
from incasem.training.trainer import Trainer
from incasem.training.validation import Validator

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingRequest:
    """What the command line asked for.

    Attributes:
        name: the run's name in the run store.
        settings_file: `config_training.yaml`, or None for the defaults.
        overrides: `a.b=c`.
        database: `trainings_db.json`, or None where there is none.
        models: the folder of published model cards.
        start_from: run id and checkpoint to fine-tune from.
        continue_run: run id to go on with.
        repeat_run: run id whose settings, seed included, are used again.
        check_commit: refuse to continue or repeat a run that another version of the code made.
    """

    name: str
    settings_file: Path | None = None
    overrides: Sequence[str] = ()
    database: Path | None = None
    models: Path = MODEL_CARDS
    start_from: tuple[int, Path] | None = None
    continue_run: int | None = None
    repeat_run: int | None = None
    check_commit: bool = False


@dataclass(frozen=True)
class _Prepared:
    """Settings, data and start of a run, checked, before anything is written.

    Attributes:
        start: first iteration.
        state: network, optimizer and so on at `start`.
        feed: its samples; no worker runs before the first one is asked for.
    """

    config: TrainingConfig
    training: list[DataEntry]
    validation: list[DataEntry]
    artifacts: list[Path]
    device: torch.device
    precision: torch.dtype
    start: int
    state: TrainingState
    feed: SampleFeed
    processes: Processes


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
    store, base = _store_and_base(request)
    config = with_seed(_config(request, base))
    prepared = _prepare(request, config, joined)
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
    prepared = _prepare(request, config, joined)
    joined.wait()
    stepper = _stepper(prepared)
    with prepared.feed as feed:
        batches = feed.batches(config.training.batch_size)
        for iteration in range(prepared.start, config.training.iterations + 1):
            stepper.step(iteration, list(islice(batches, config.training.accumulate)))
    return 0


def _store_and_base(request: TrainingRequest) -> tuple[RunStore, dict[str, Any] | None]:
    """Open the run store, and look up the settings that this run builds on, if any."""
    asked = {
        "--start_from": None if request.start_from is None else request.start_from[0],
        "--continue_run": request.continue_run,
        "--repeat_run": request.repeat_run,
    }
    given = {flag: run_id for flag, run_id in asked.items() if run_id is not None}
    if len(given) > 1:
        raise ConfigError(
            f"{' and '.join(given)} are given together; allowed: one of them, since each names the run to "
            "build on. Leave one."
        )
    # The store's place depends on directories.runs, which the earlier run cannot change.
    places = load_training_config(request.settings_file, request.overrides)
    store = open_store(request.database, places.directories.runs, TRAININGS, os.environ)
    if not given:
        return store, None
    (run_id,) = given.values()
    if request.check_commit and store.exists(run_id):
        _check_commit(store, run_id)
    return store, find_training_settings(store, run_id, request.models)


def _check_commit(store: RunStore, run_id: int) -> None:
    """Refuse to build on a run that another version of the code made."""
    state = git_state()
    here = None if state is None else state["commit"]
    made_by = store.info(run_id).commit
    if here != made_by:
        raise ConfigError(
            explain(
                "the commit of this code",
                here or "unknown",
                f"{made_by or 'unknown'}, which made run {run_id}, since --check_commit is given",
                f"Run `git checkout {made_by}`, or leave --check_commit out",
            )
        )


def _config(request: TrainingRequest, base: dict[str, Any] | None) -> TrainingConfig:
    overrides = list(request.overrides)
    of_base = (base or {}).get("training", {})  # where it began and what it went on with is not inherited
    start_from = request.start_from
    if request.repeat_run is not None and of_base.get("start_from"):
        start_from = of_base["start_from"]
    if start_from is not None:
        overrides.append(f"training.start_from=[{start_from[0]}, {str(start_from[1])!r}]")
    if request.continue_run is not None:
        # A run that is continued again goes on in the folder of its first part.
        overrides.append(f"training.continue_id={of_base.get('continue_id') or request.continue_run}")
    config = load_training_config(request.settings_file, overrides, base)
    repeats = request.continue_run is not None or request.repeat_run is not None
    seed = (base or {}).get("seed")
    if repeats and config.seed is None and seed is not None:
        config = config.model_copy(update={"seed": int(seed)})
    return config


def _prepare(request: TrainingRequest, config: TrainingConfig, joined: Processes) -> _Prepared:
    """Check everything that can be checked before a run is recorded."""
    training_path = data_config_path(config.training.data, "training.data")
    training = load_data_config(training_path, config.directories.data)
    artifacts, validation = [training_path], []
    if config.validation.data is not None:
        validation_path = data_config_path(config.validation.data, "validation.data")
        validation = load_data_config(validation_path, config.directories.data)
        artifacts.append(validation_path)
    check_training_data(config, training, validation)
    network = build_network(config.model.model_dump())
    for section, sizes in (("training", config.training), ("validation", config.validation)):
        # Validation runs in blocks of its own planning; only a size that somebody chose can be wrong.
        if section == "training" or not sizes.are_default:
            check_network_sizes(section, sizes, network.output_shape, network.input_shape_for)
    check_entries([*training, *validation])
    device = joined.device(config.torch.device)
    precision = choose_precision(config.training.precision, device)
    checkpoint, start = _checkpoint_to_start_from(request, config)
    continues = request.continue_run is not None
    state = initial_state(config, network, checkpoint, device, precision, continues=continues)
    feed = _feed(config, training, start, joined)
    return _Prepared(config, training, validation, artifacts, device, precision, start, state, feed, joined)


def _feed(config: TrainingConfig, entries: Sequence[DataEntry], start: int, joined: Processes) -> SampleFeed:
    settings = config.training
    first, end = (iteration * settings.accumulate for iteration in (start, settings.iterations + 1))
    return SampleFeed(
        entries,
        config,
        config.training.input_size_voxels,
        config.training.output_size_voxels,
        seed=config.seed if config.seed is not None else 0,
        numbers=joined.sample_numbers(first, end, settings.batch_size),
        num_samples=max(end - first, 0) * settings.batch_size,
    )


def _stepper(prepared: _Prepared) -> Stepper:
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
    prepared: _Prepared,
    directories: RunDirectories,
    log_scalar: Callable[[str, float, int], None],
    tell: Callable[[str], None],
) -> History:
    config, state, start = prepared.config, prepared.state, prepared.start
    stepper = _stepper(prepared)
    _tell_start(tell, request, prepared, directories, start)
    validator = Validator(prepared.validation, config, prepared.device, directories)
    nicknames = [entry.nickname for entry in prepared.validation]
    with Monitor(directories, log_scalar, nicknames) as monitor, prepared.feed as feed:
        monitor.record(start, {"num_params": sum(p.numel() for p in state.result.parameters())})
        trainer = Trainer(
            config=config,
            stepper=stepper,
            batches=feed.batches(config.training.batch_size),
            validator=validator if prepared.validation else None,
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


def _checkpoint_to_start_from(
    request: TrainingRequest, config: TrainingConfig
) -> tuple[Checkpoint | None, int]:
    """Return the checkpoint that the run builds on, if any, and its first iteration."""
    if request.continue_run is None:
        start_from = config.training.start_from
        return (None if start_from is None else load_checkpoint(start_from[1])), 0
    directories = RunDirectories(config.directories.runs, config.training.continue_id or request.continue_run)
    found = latest_checkpoint(directories.models)
    if found is None:
        raise CheckpointError(
            explain(
                "--continue_run",
                request.continue_run,
                f"a run with a whole checkpoint in {directories.models}",
                "Start the training anew, or correct directories.runs",
            )
        )
    iteration, path = found
    return load_checkpoint(path), iteration + 1


def _sidecar(request: TrainingRequest, prepared: _Prepared, directories: RunDirectories) -> dict[str, Any]:
    settings = prepared.config.to_dict()
    return {
        "run_id": directories.run_id,
        "name": request.name,
        "task": "semantic",
        "model": settings["model"],
        "data": settings["data"],
        "classes": class_names(prepared.training, prepared.config.data.num_classes),
        "training_data": prepared.config.training.data,
    }


def _tell_start(
    tell: Callable[[str], None],
    request: TrainingRequest,
    prepared: _Prepared,
    directories: RunDirectories,
    start: int,
) -> None:
    config = prepared.config
    parameters = sum(p.numel() for p in prepared.state.result.parameters())
    regions = f"{len(prepared.training)} training and {len(prepared.validation)} validation regions"
    precision = str(prepared.precision).removeprefix("torch.")
    world = prepared.processes.world
    device = f"{prepared.device}" + (f" in {world} processes" if world > 1 else "")
    tell(
        f"run {directories.run_id} ({request.name}): {config.model.type} with {parameters:,} parameters on "
        f"{device}, {precision}; {regions}; iterations {start} to {config.training.iterations}"
    )
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
