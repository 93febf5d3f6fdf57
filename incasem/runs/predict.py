"""A prediction from its settings to its scores: what `predict.py` and `incasem predict` do."""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
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
from incasem.errors import CheckpointError, ConfigError, FailedBlocksError, IncasemError, explain
from incasem.networks import best_checkpoint
from incasem.prediction import EntryPrediction, output_group, predict_prepared, prepare_prediction
from incasem.runs.interrupted import at_work, interrupted_run
from incasem.runs.prediction_report import write_prediction_report
from incasem.runs.scores import as_record, score_predictions
from incasem.tasks.region_scores import RegionScores
from incasem.tracking import (
    MODEL_CARDS,
    PREDICTIONS,
    TRAININGS,
    Run,
    RunStore,
    checkpoint_folder,
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
    config, models = look_up_settings(request, defaults)
    data, entries = region_entries(config)
    check_prediction_data(config, entries)
    check_scoring(config, entries)
    return Asked(config, data, entries, models, predictions_store(request))


def look_up_settings(
    request: PredictionRequest, defaults: Sequence[str] = ()
) -> tuple[PredictionConfig, Path]:
    """Return the settings, those of the network from its training, and the folder of its checkpoints.

    Raises:
        IncasemError: bad settings, a store that cannot be reached, or an unknown training.
    """
    places = load_prediction_config(request.settings_file, request.overrides).directories
    trainings = open_store(request.trainings, places.runs, TRAININGS, os.environ)
    settings = find_training_settings(trainings, request.run_id, request.models)
    config = load_prediction_config(
        request.settings_file,
        [*defaults, *request.overrides, f"prediction.run_id_training={request.run_id}"],
        training_run=settings,
    )
    return config, checkpoint_folder(config.directories.runs, settings, request.run_id)


def predictions_store(request: PredictionRequest) -> RunStore:
    """Return where predictions are recorded.

    Raises:
        IncasemError: bad settings, or a store that cannot be reached.
    """
    places = load_prediction_config(request.settings_file, request.overrides).directories
    return open_store(request.predictions, places.runs, PREDICTIONS, os.environ)


def region_entries(config: PredictionConfig) -> tuple[Path, list[DataEntry]]:
    """Return the data configuration that the settings name, and its regions.

    Raises:
        ConfigError: there is none, or it cannot be used.
    """
    data = data_config_path(config.prediction.data, "prediction.data")
    return data, load_data_config(data, config.directories.data)


def predict(request: PredictionRequest, tell: Callable[[str], None]) -> int:
    """Predict as asked, record the run, and return its id.

    The same command after an interruption goes on with the interrupted prediction, under its number.

    Raises:
        IncasemError: bad settings or data (nothing is written), or a failure in the run.
    """
    asked = look_up(request)
    checkpoint = checkpoint_of(request, asked.config, asked.models)
    config = with_checkpoint(asked.config, checkpoint)
    prepared = prepare_prediction(config, asked.entries, checkpoint=checkpoint)
    interrupted = interrupted_run(asked.store, config.to_dict(), asked.data)

    def main(run: Run) -> dict[str, Any]:
        number = run.run_id if interrupted is None else interrupted
        _tell_start(tell, request, config, checkpoint, number, interrupted is not None)
        group = output_group(request.run_id, number)
        report = _Report(
            config,
            f"Prediction {number} ({request.name}) with training run {request.run_id}",
            config.directories.runs / "reports" / f"predict_{number:04d}",
            run,
            tell,
        )
        try:
            with at_work(asked.store, run.run_id):
                predictions = predict_prepared(prepared, output_group=group, tell=tell, ended=report.add)
        except FailedBlocksError as error:
            report.write(failure=str(error).splitlines()[0])
            raise
        for prediction in predictions:
            tell(prediction.summary())
        scores = score_predictions(config, predictions, run, tell)
        report.write(scores)
        return as_record(predictions, scores)

    outcome = run_experiment(
        name=request.name,
        kind="predict",
        config=config.to_dict(),
        store=asked.store,
        main=main,
        artifacts=[asked.data],
    )
    return outcome.run_id


@dataclass
class _Report:
    """The page of a prediction, from what has ended so far."""

    config: PredictionConfig
    title: str
    directory: Path
    run: Run
    tell: Callable[[str], None]
    predictions: list[EntryPrediction] = field(default_factory=list)

    def add(self, prediction: EntryPrediction) -> None:
        """Take the result of an entry."""
        self.predictions.append(prediction)

    def write(self, scores: Mapping[str, RegionScores] | None = None, failure: str = "") -> None:
        """Write the page, record it with the run, and tell where it is.

        A page that cannot be written takes nothing from the result, and hides no error.
        """
        try:
            page = write_prediction_report(
                self.directory, title=self.title, config=self.config, predictions=self.predictions,
                scores=scores, failure=failure,
            )  # fmt: skip
        except (IncasemError, OSError) as error:
            logger.warning("the report could not be written: %s", error)
            return
        self.run.add_artifact(page)
        self.tell(f"  report: {page}")


def checkpoint_of(request: PredictionRequest, config: PredictionConfig, models: Path) -> Path:
    """Return the checkpoint that was asked for, the best validated one of the run, or the published one.

    Args:
        request: what the command line asked for.
        config: settings.
        models: the folder of the training's checkpoints.

    Raises:
        CheckpointError: there is none.
    """
    if config.prediction.checkpoint is not None:
        return Path(config.prediction.checkpoint)
    found = best_checkpoint(models) or published_checkpoint(request.run_id, request.models)
    if found is None:
        raise CheckpointError(
            explain(
                "prediction.checkpoint",
                "not set",
                f"a checkpoint file, a training run with checkpoints in {models}, or a published model "
                f"in {request.models}/pretrained_checkpoints",
                "Add prediction.checkpoint=FILE; `incasem download models` fetches the published ones",
            )
        )
    return found


def with_checkpoint(config: PredictionConfig, checkpoint: Path) -> PredictionConfig:
    """Return the settings with the checkpoint that is used, as they are recorded."""
    prediction = config.prediction.model_copy(update={"checkpoint": checkpoint})
    return config.model_copy(update={"prediction": prediction})


def check_scoring(config: PredictionConfig, entries: Sequence[DataEntry]) -> None:
    """Check that there is something to score where scores are wanted (ConfigError)."""
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
