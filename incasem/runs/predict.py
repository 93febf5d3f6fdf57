"""A prediction from its settings to its scores: what `predict.py` and `incasem predict` do."""

import logging
import math
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
from incasem.evaluation.scoring import score_entry
from incasem.networks import best_checkpoint
from incasem.prediction import EntryPrediction, output_group, predict_prepared, prepare_prediction
from incasem.runs.interrupted import at_work, interrupted_run
from incasem.tracking import (
    MODEL_CARDS,
    PREDICTIONS,
    TRAININGS,
    Run,
    find_training_settings,
    open_store,
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


def predict(request: PredictionRequest, tell: Callable[[str], None]) -> int:
    """Predict as asked, record the run, and return its id.

    The same command after an interruption goes on with the interrupted prediction, under its number.

    Raises:
        IncasemError: bad settings or data (nothing is written), or a failure in the run.
    """
    places = load_prediction_config(request.settings_file, request.overrides).directories
    trainings = open_store(request.trainings, places.runs, TRAININGS, os.environ)
    settings = find_training_settings(trainings, request.run_id, request.models)
    config = load_prediction_config(
        request.settings_file,
        [*request.overrides, f"prediction.run_id_training={request.run_id}"],
        training_run=settings,
    )
    data_path = data_config_path(config.prediction.data, "prediction.data")
    entries = load_data_config(data_path, config.directories.data)
    check_prediction_data(config, entries)
    _check_scoring(config, entries)
    checkpoint = _checkpoint(config, request.run_id, settings)
    config = _with_checkpoint(config, checkpoint)
    prepared = prepare_prediction(config, entries, checkpoint=checkpoint)
    store = open_store(request.predictions, places.runs, PREDICTIONS, os.environ)
    interrupted = interrupted_run(store, config.to_dict(), data_path)

    def main(run: Run) -> dict[str, Any]:
        number = run.run_id if interrupted is None else interrupted
        _tell_start(tell, request, config, checkpoint, number, interrupted is not None)
        group = output_group(request.run_id, number)
        with at_work(store, run.run_id):
            predictions = predict_prepared(prepared, output_group=group, tell=tell)
        for prediction in predictions:
            tell(prediction.summary())
        return {"folders": [str(p.folder) for p in predictions]} | _scores(config, predictions, run, tell)

    outcome = run_experiment(
        name=request.name,
        kind="predict",
        config=config.to_dict(),
        store=store,
        main=main,
        artifacts=[data_path],
    )
    return outcome.run_id


def _checkpoint(config: PredictionConfig, run_id: int, settings: Mapping[str, Any]) -> Path:
    """Return the checkpoint that was asked for, or the best validated one of the training run."""
    if config.prediction.checkpoint is not None:
        return Path(config.prediction.checkpoint)
    folder = config.directories.runs / "models" / f"{_folder_of(settings, run_id):04d}"
    found = best_checkpoint(folder)
    if found is None:
        raise CheckpointError(
            explain(
                "prediction.checkpoint",
                "not set",
                f"a checkpoint file, or a training run with checkpoints in {folder}",
                "Add prediction.checkpoint=FILE",
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


def _scores(
    config: PredictionConfig, predictions: Sequence[EntryPrediction], run: Run, tell: Callable[[str], None]
) -> dict[str, Any]:
    """Score the entries with labels, record the published metrics, and return them by nickname."""
    if not config.prediction.log_metrics:
        return {}
    found: dict[str, Any] = {}
    for index, prediction in enumerate(predictions):
        if not prediction.entry.labels:
            continue
        scores = score_entry(
            prediction.segmentation,
            prediction.entry,
            config.data.num_classes,
            prob_maps=prediction.prob_maps,
        )
        rows = scores.by_class()
        found[prediction.entry.nickname] = [
            vars(counted) | row for counted, row in zip(scores.overlap.scores(), rows, strict=True)
        ]
        for class_id, row in enumerate(rows):
            _record(run, index, class_id, row)
            if class_id > 0:
                tell(f"{prediction.entry.nickname}, class {class_id}: {_in_words(row)}")
    return {"scores": found}


def _in_words(row: Mapping[str, float]) -> str:
    names = {"f1": "F1", "jaccard": "Jaccard", "average_precision": "average precision"}
    return ", ".join(
        f"{names.get(name, name)} {value:.4f}" for name, value in row.items() if math.isfinite(value)
    )


def _record(run: Run, dataset: int, class_id: int, row: Mapping[str, float]) -> None:
    """Record scores under their published names, and those that the published code has not."""
    names = {
        "jaccard": ("jaccard_class",), "f1": ("dice_class", "f1_class"), "precision": ("precision",),
        "recall": ("recall",), "average_precision": ("average_precision_class",),
    }  # fmt: skip
    for score, value in row.items():
        for name in names[score] if math.isfinite(value) else ():
            run.log_scalar(f"{name}_{class_id}_ds_{dataset}", value, 0)


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
