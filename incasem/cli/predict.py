"""`incasem predict` and `predict-multiple`, the same as `predict.py` and `predict_multiple.py`."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from incasem.cli.arguments import (
    Parser,
    add_database,
    database_file,
    make_run_parser,
    parse_run,
    path_argument,
    tell,
)

if TYPE_CHECKING:
    from incasem.runs.predict import PredictionRequest

TRAININGS_FILE = "../02_train/trainings_db.json"
PREDICTIONS_FILE = "predictions_db.json"


def predict(program: str, arguments: Sequence[str]) -> None:
    """Parse the published flags and predict."""
    parser = make_prediction_parser(
        program,
        "Segment the regions of a data configuration, block by block, with the network of a training run.",
    )
    words = parse_run(parser, arguments)

    from incasem.runs.predict import predict as run_prediction

    run_prediction(prediction_request(*words), tell)


def make_prediction_parser(program: str, description: str) -> Parser:
    """Return the parser of the published flags of a prediction; see `prediction_request`."""
    parser = make_run_parser(
        program,
        description,
        usage="--run_id ID [options] with config_prediction.yaml [prediction.data=cell.json ...]",
        name="prediction",
    )
    _add_options(parser)
    return parser


def predict_multiple(program: str, arguments: Sequence[str]) -> None:
    """Parse the published flags and predict with each checkpoint of a series."""
    parser = make_run_parser(
        program,
        "Predict and score the regions of a data configuration with a series of checkpoints of a training "
        "run, and draw F1 over the iterations.",
        usage="--run_id ID [options] with config_prediction.yaml [prediction.data=cell.json ...]",
        name="prediction",
    )
    parser.add_argument(
        "--checkpoint_dir",
        type=path_argument,
        metavar="FOLDER",
        help="where the checkpoints lie (default: the folder of the training run)",
    )
    parser.add_argument(
        "--checkpoint_basename", default="model_checkpoint_", metavar="NAME", help="name up to the iteration"
    )
    parser.add_argument(
        "--start", type=int, metavar="N", help="first iteration (default: the first there is)"
    )
    parser.add_argument(
        "--stop", type=int, metavar="N", help="last iteration, included (default: the last there is)"
    )
    parser.add_argument(
        "--step", type=int, metavar="N", help="from one iteration to the next (default: all there are)"
    )
    parser.add_argument(
        "--iterations", type=int, nargs="+", metavar="N", help="these iterations (default: all there are)"
    )
    _add_options(parser)
    options, settings_file, overrides = parse_run(parser, arguments)

    from incasem.runs.checkpoint_series import CheckpointSeries
    from incasem.runs.predict_multiple import predict_multiple as run_predictions

    series = CheckpointSeries(
        directory=None if options.checkpoint_dir is None else options.checkpoint_dir.absolute(),
        basename=options.checkpoint_basename,
        start=options.start,
        stop=options.stop,
        step=options.step,
        iterations=None if options.iterations is None else tuple(options.iterations),
    )
    run_predictions(prediction_request(options, settings_file, overrides), series, tell)


def _add_options(parser: Parser) -> None:
    parser.add_argument("-r", "--run_id", type=int, required=True, help="training run that made the network")
    parser.add_argument(
        "--precision",
        choices=("auto", "fp32", "bf16", "fp16"),
        help="arithmetic of the network; wins over prediction.precision (default: what that says)",
    )
    add_database(parser, "--mongodb_training", TRAININGS_FILE, "trainings")
    add_database(parser, "--mongodb_predictions", PREDICTIONS_FILE, "predictions")


def prediction_request(
    options: argparse.Namespace, settings_file: Path | None, overrides: list[str]
) -> "PredictionRequest":
    """Return what was asked for by the flags of `make_prediction_parser` and by the settings."""
    from incasem.runs.predict import PredictionRequest

    precision = [] if options.precision is None else [f"prediction.precision={options.precision}"]
    return PredictionRequest(
        name=options.name,
        run_id=options.run_id,
        settings_file=settings_file,
        overrides=[*overrides, *precision],
        trainings=database_file(options.mongodb_training, TRAININGS_FILE),
        predictions=database_file(options.mongodb_predictions, PREDICTIONS_FILE),
    )
