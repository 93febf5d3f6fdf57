"""What a training needs, looked up and checked before anything is written.

`prepare_training` takes the steps one after the other and stops at the first that fails; `incasem check`
takes the same ones and goes on.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from incasem.config import (
    DataEntry,
    TrainingConfig,
    check_network_sizes,
    check_training_data,
    data_config_path,
    load_data_config,
    load_training_config,
)
from incasem.errors import CheckpointError, ConfigError, explain
from incasem.networks import (
    Checkpoint,
    ValidNetwork,
    build_network,
    choose_precision,
    latest_checkpoint,
    load_checkpoint,
)
from incasem.tasks.chosen import task_of
from incasem.tracking import (
    MODEL_CARDS,
    TRAININGS,
    RunStore,
    find_training_settings,
    git_state,
    open_store,
)
from incasem.training.asynchronous import validation_device
from incasem.training.directories import RunDirectories
from incasem.training.distributed import Processes
from incasem.training.feed import SampleFeed
from incasem.training.sources import check_entries
from incasem.training.state import TrainingState, initial_state


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
class PreparedTraining:
    """Settings, data and start of a run, checked, before anything is written.

    Attributes:
        validation_device: where validations run; another one than `device` lets the training go on meanwhile.
        start: first iteration.
        state: network, optimizer and so on at `start`.
        feed: its samples; no worker runs before the first one is asked for.
    """

    config: TrainingConfig
    training: list[DataEntry]
    validation: list[DataEntry]
    artifacts: list[Path]
    device: torch.device
    validation_device: torch.device
    precision: torch.dtype
    start: int
    state: TrainingState
    feed: SampleFeed
    processes: Processes


def store_and_base(request: TrainingRequest) -> tuple[RunStore, dict[str, Any] | None]:
    """Open the run store, and look up the settings that this run builds on, if any.

    Raises:
        IncasemError: a store that cannot be reached, a run that it does not hold, or contradicting flags.
    """
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


def training_settings(request: TrainingRequest, base: dict[str, Any] | None) -> TrainingConfig:
    """Return the settings of a run, those of the run that it builds on underneath.

    Args:
        request: what the command line asked for.
        base: settings of the run that it builds on, see `store_and_base`.

    Raises:
        ConfigError: unknown settings or values.
    """
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


def prepare_training(request: TrainingRequest, config: TrainingConfig, joined: Processes) -> PreparedTraining:
    """Check everything that can be checked before a run is recorded.

    Raises:
        IncasemError: the first thing that is wrong; see `incasem.preflight` for all of them.
    """
    path, training = section_entries(config, "training")
    artifacts: list[Path] = [path]
    validation: list[DataEntry] = []
    if config.validation.data is not None:
        path, validation = section_entries(config, "validation")
        artifacts.append(path)
    check_training_data(config, training, validation)
    network = checked_network(config)
    check_entries([*training, *validation], task_of(config).label_kind)
    device = joined.device(config.torch.device)
    beside = validation_device(config.validation.device, device, joined)
    precision = choose_precision(config.training.precision, device)
    checkpoint, start = checkpoint_to_start_from(request, config)
    continues = request.continue_run is not None
    state = initial_state(config, network, checkpoint, device, precision, continues=continues)
    feed = _feed(config, training, start, joined, device)
    return PreparedTraining(
        config, training, validation, artifacts, device, beside, precision, start, state, feed, joined
    )


def section_entries(
    config: TrainingConfig, section: Literal["training", "validation"]
) -> tuple[Path, list[DataEntry]]:
    """Return the data configuration that a section of the settings names, and its entries.

    Raises:
        ConfigError: there is none, or it cannot be used.
    """
    path = data_config_path(getattr(config, section).data, f"{section}.data")
    return path, load_data_config(path, config.directories.data)


def checked_network(config: TrainingConfig) -> ValidNetwork:
    """Return the network of the settings, without weights, its sizes checked.

    Raises:
        ConfigError: settings that give no network, or sizes that do not belong to it.
    """
    network = build_network(config.model.model_dump())
    for section, sizes in (("training", config.training), ("validation", config.validation)):
        # Validation runs in blocks of its own planning; only a size that somebody chose can be wrong.
        if section == "training" or not sizes.are_default:
            check_network_sizes(section, sizes, network.output_shape, network.input_shape_for)
    return network


def checkpoint_to_start_from(
    request: TrainingRequest, config: TrainingConfig
) -> tuple[Checkpoint | None, int]:
    """Return the checkpoint that the run builds on, if any, and its first iteration.

    Raises:
        CheckpointError: it is missing or damaged.
    """
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


def _feed(
    config: TrainingConfig, entries: Sequence[DataEntry], start: int, joined: Processes, device: torch.device
) -> SampleFeed:
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
        device=device,
    )
