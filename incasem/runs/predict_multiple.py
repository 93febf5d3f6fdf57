"""A series of checkpoints predicted and scored: what `predict_multiple.py` and `incasem predict-multiple` do.

As published, the series is one recorded run. Each prediction lies below `predict_%04d/iteration_%06d`, and
its metrics are recorded at the step of its iteration.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from incasem.config import PredictionConfig
from incasem.networks import mean_f1
from incasem.prediction import (
    EntryPrediction,
    PreparedPrediction,
    output_group,
    predict_prepared,
    prepare_prediction,
)
from incasem.runs.checkpoint_series import CheckpointSeries
from incasem.runs.interrupted import at_work, interrupted_run
from incasem.runs.predict import Asked, PredictionRequest, look_up
from incasem.runs.scores import as_record, score_predictions
from incasem.runs.series_report import write_series_report
from incasem.tasks.region_scores import RegionScores
from incasem.tracking import Run, run_experiment

logger = logging.getLogger(__name__)

SCORED = "prediction.log_metrics=True"


@dataclass
class SeriesResult:
    """What is known of the predictions that are done.

    Attributes:
        checkpoints: iteration → file.
        records: iteration → what the run store keeps of a prediction.
        scores: iteration → dataset → scores.
    """

    checkpoints: dict[int, Path] = field(default_factory=dict)
    records: dict[int, dict[str, Any]] = field(default_factory=dict)
    scores: dict[int, dict[str, RegionScores]] = field(default_factory=dict)

    @property
    def best(self) -> tuple[float, int] | None:
        """Mean F1 over datasets and classes but the background, and iteration; of equals the newest."""
        scored = [(f1, i) for i, regions in self.scores.items() if (f1 := _mean_f1(regions)) is not None]
        return max(scored, default=None)


def predict_multiple(
    request: PredictionRequest, series: CheckpointSeries, tell: Callable[[str], None]
) -> int:
    """Predict with each checkpoint, score, write table and curve, record the run, and return its id.

    The same command after an interruption goes on with the interrupted series, under its number.

    Args:
        request: as for one prediction; scores are taken unless it says `prediction.log_metrics=False`.
        series: the checkpoints.
        tell: prints a line to the terminal.

    Raises:
        IncasemError: bad settings, data or checkpoints (nothing is written), or a failure in the run.
    """
    asked = look_up(request, defaults=[SCORED])
    if asked.config.prediction.checkpoint is not None:
        logger.warning("prediction.checkpoint has no effect on a series of checkpoints")
    checkpoints = series.find(asked.models)
    prepared = prepare_prediction(asked.config, asked.entries, checkpoint=checkpoints[0][1])
    for _, path in checkpoints[1:]:
        prepared.with_checkpoint(path)  # a damaged one is found before hours of predictions, not after them
    settings = _settings(asked.config, series)
    interrupted = interrupted_run(asked.store, settings, asked.data)

    def main(run: Run) -> dict[str, Any]:
        number = run.run_id if interrupted is None else interrupted
        what = "goes on" if interrupted is not None else f"({request.name})"
        iterations = f"{len(checkpoints)} checkpoints, iterations {checkpoints[0][0]} to {checkpoints[-1][0]}"
        tell(f"prediction {number} {what}: training run {request.run_id}, {iterations}, {asked.data}")
        report = asked.config.directories.runs / "reports" / f"predict_{number:04d}"
        with at_work(asked.store, run.run_id):
            result = _predict_all(prepared, checkpoints, output_group(request.run_id, number), run, tell)
            return _finish(asked, request, result, report, run, tell)

    outcome = run_experiment(
        name=request.name,
        kind="predict_multiple",
        config=settings,
        store=asked.store,
        main=main,
        artifacts=[asked.data],
    )
    return outcome.run_id


def _settings(config: PredictionConfig, series: CheckpointSeries) -> dict[str, Any]:
    """Return what is recorded: the series as it was asked for, so that a series of all may grow."""
    settings = config.to_dict()
    settings["prediction"]["checkpoint"] = None
    return settings | {"checkpoints": series.as_asked()}


def _predict_all(
    prepared: PreparedPrediction,
    checkpoints: Sequence[tuple[int, Path]],
    group: str,
    run: Run,
    tell: Callable[[str], None],
) -> SeriesResult:
    result = SeriesResult()
    for position, (iteration, path) in enumerate(checkpoints):
        tell(f"iteration {iteration} ({position + 1} of {len(checkpoints)}): {path}")
        predictions = predict_prepared(
            prepared.with_checkpoint(path),
            output_group=f"{group}/iteration_{iteration:06d}",
            tell=tell if position == 0 else logger.info,  # the same plan each time
        )
        _tell_predictions(predictions, tell)
        scores = score_predictions(prepared.config, predictions, run, tell, iteration)
        result.checkpoints[iteration] = path
        result.records[iteration] = as_record(predictions, scores)
        result.scores[iteration] = scores
    return result


def _tell_predictions(predictions: Sequence[EntryPrediction], tell: Callable[[str], None]) -> None:
    for prediction in predictions:
        tell(prediction.summary())


def _finish(
    asked: Asked,
    request: PredictionRequest,
    result: SeriesResult,
    report: Path,
    run: Run,
    tell: Callable[[str], None],
) -> dict[str, Any]:
    """Write table and curve, tell the best, and return what the run store keeps."""
    record: dict[str, Any] = {"iterations": {str(i): kept for i, kept in result.records.items()}}
    if result.best is None:
        return record
    f1, best = result.best
    files = write_series_report(
        report,
        title=f"{request.name}: checkpoints of training run {request.run_id}",
        checkpoints=result.checkpoints,
        scores=result.scores,
        best=(f1, best),
        settings={"training run": request.run_id, "data configuration": asked.data},
    )
    for file in files:
        run.add_artifact(file)
    tell(f"the best: iteration {best}, F1 {f1:.4f}, {result.checkpoints[best]}")
    for file in files:
        tell(f"  {file}")
    best_record = {"iteration": best, "f1": f1, "checkpoint": str(result.checkpoints[best])}
    return record | {"best": best_record}


def _mean_f1(regions: dict[str, RegionScores]) -> float | None:
    scores = {
        nickname: {f"f1_class_{class_id}": row["f1"] for class_id, row in enumerate(region.by_class())}
        for nickname, region in regions.items()
    }
    return mean_f1({"scores": scores})
