"""A prediction from its settings to its scores: what `predict.py` and `incasem predict` do."""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from incasem.config import (
    DataEntry,
    PredictionConfig,
    check_prediction_data,
    data_config_path,
    load_data_config,
    load_prediction_config,
)
from incasem.errors import CheckpointError, ConfigError, explain
from incasem.networks import best_checkpoint
from incasem.prediction import output_group, predict_prepared, prepare_prediction
from incasem.runs.interrupted import at_work, interrupted_run
from incasem.runs.scores import as_record, score_predictions
from incasem.tracking import (
    MODEL_CARDS,
    PREDICTIONS,
    TRAININGS,
    Run,
    RunStore,
    find_training_settings,
    open_store,
    published_checkpoint,
    run_experiment,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PredictionRequest:
    """What the command line asked for.

    Attributes:
        name: the run's name in the run store.
        run_id: training run that made the network.
        settings_file: `config_prediction.yaml`, or None for the defaults.
        overrides: `a.b=c`.
        trainings: `trainings_db.json`, or None where there is none.
        predictions: `predictions_db.json`, or None where there is none.
        models: the folder of published model cards.
    """

    name: str
    run_id: int
    settings_file: Path | None = None
    overrides: Sequence[str] = ()
    trainings: Path | None = None
    predictions: Path | None = None
    models: Path = MODEL_CARDS


@dataclass(frozen=True)
class Asked:
    """What a request means.

    Attributes:
        config: settings, those of the network from its training.
        data: the data configuration.
        entries: its regions.
        models: the folder of the training's checkpoints.
        store: where predictions are recorded.
    """

    config: PredictionConfig
    data: Path
    entries: list[DataEntry]
    models: Path
    store: RunStore


def look_up(request: PredictionRequest, defaults: Sequence[str] = ()) -> Asked:
    """Read settings and data configuration, and look the training up; nothing is written.

    Args:
        request: what the command line asked for.
        defaults: `a.b=c`, stronger than the settings file but weaker than the command line.

    Raises:
        IncasemError: bad settings or data, or an unknown training.
    """
    places = load_prediction_config(request.settings_file, request.overrides).directories
    trainings = open_store(request.trainings, places.runs, TRAININGS, os.environ)
    settings = find_training_settings(trainings, request.run_id, request.models)
    config = load_prediction_config(
        request.settings_file,
        [*defaults, *request.overrides, f"prediction.run_id_training={request.run_id}"],
        training_run=settings,
    )
    data = data_config_path(config.prediction.data, "prediction.data")
    entries = load_data_config(data, config.directories.data)
    check_prediction_data(config, entries)
    _check_scoring(config, entries)
    models = config.directories.runs / "models" / f"{_folder_of(settings, request.run_id):04d}"
    store = open_store(request.predictions, places.runs, PREDICTIONS, os.environ)
    return Asked(config, data, entries, models, store)


def predict(request: PredictionRequest, tell: Callable[[str], None]) -> int:
    """Predict as asked, record the run, and return its id.

    The same command after an interruption goes on with the interrupted prediction, under its number.

    Raises:
        IncasemError: bad settings or data (nothing is written), or a failure in the run.
    """
    asked = look_up(request)
    checkpoint = _checkpoint(request, asked)
    config = _with_checkpoint(asked.config, checkpoint)
    prepared = prepare_prediction(config, asked.entries, checkpoint=checkpoint)
    interrupted = interrupted_run(asked.store, config.to_dict(), asked.data)

    def main(run: Run) -> dict[str, Any]:
        number = run.run_id if interrupted is None else interrupted
        _tell_start(tell, request, config, checkpoint, number, interrupted is not None)
        group = output_group(request.run_id, number)
        with at_work(asked.store, run.run_id):
            predictions = predict_prepared(prepared, output_group=group, tell=tell)
        for prediction in predictions:
            tell(prediction.summary())
        return as_record(predictions, score_predictions(config, predictions, run, tell))

    outcome = run_experiment(
        name=request.name,
        kind="predict",
        config=config.to_dict(),
        store=asked.store,
        main=main,
        artifacts=[asked.data],
    )
    return outcome.run_id


def _checkpoint(request: PredictionRequest, asked: Asked) -> Path:
    """Return the checkpoint that was asked for, the best validated one of the run, or the published one."""
    if asked.config.prediction.checkpoint is not None:
        return Path(asked.config.prediction.checkpoint)
    found = best_checkpoint(asked.models) or published_checkpoint(request.run_id, request.models)
    if found is None:
        raise CheckpointError(
            explain(
                "prediction.checkpoint",
                "not set",
                f"a checkpoint file, a training run with checkpoints in {asked.models}, or a published model "
                f"in {request.models}/pretrained_checkpoints",
                "Add prediction.checkpoint=FILE; `incasem download models` fetches the published ones",
            )
        )
    return found


def _folder_of(settings: Mapping[str, Any], run_id: int) -> int:
    """Return the run whose folder holds the checkpoints: a continued run writes to that of its first part."""
    return int(settings.get("training", {}).get("continue_id") or run_id)


def _with_checkpoint(config: PredictionConfig, checkpoint: Path) -> PredictionConfig:
    prediction = config.prediction.model_copy(update={"checkpoint": checkpoint})
    return config.model_copy(update={"prediction": prediction})


def _check_scoring(config: PredictionConfig, entries: Sequence[DataEntry]) -> None:
    if config.prediction.log_metrics and not any(entry.labels for entry in entries):
        raise ConfigError(
            explain(
                "prediction.log_metrics",
                "True, but no entry has labels",
                "True where there is ground truth",
                "Add labels to the data configuration, or leave log_metrics out",
            )
        )


def _tell_start(
    tell: Callable[[str], None],
    request: PredictionRequest,
    config: PredictionConfig,
    checkpoint: Path,
    number: int,
    continues: bool,
) -> None:
    what = "goes on" if continues else f"({request.name})"
    tell(f"prediction {number} {what}: training run {request.run_id}, {checkpoint}, {config.prediction.data}")
