"""`incasem predict`, the same as `predict.py`."""

from collections.abc import Sequence

from incasem.cli.arguments import add_database, database_file, make_run_parser, parse_run, tell

TRAININGS_FILE = "../02_train/trainings_db.json"
PREDICTIONS_FILE = "predictions_db.json"


def predict(program: str, arguments: Sequence[str]) -> None:
    """Parse the published flags and predict."""
    parser = make_run_parser(
        program,
        "Segment the regions of a data configuration, block by block, with the network of a training run.",
        usage="--run_id ID [options] with config_prediction.yaml [prediction.data=cell.json ...]",
        name="prediction",
    )
    parser.add_argument("-r", "--run_id", type=int, required=True, help="training run that made the network")
    parser.add_argument(
        "--precision",
        choices=("auto", "fp32", "bf16", "fp16"),
        help="arithmetic of the network; wins over prediction.precision (default: what that says)",
    )
    add_database(parser, "--mongodb_training", TRAININGS_FILE, "trainings")
    add_database(parser, "--mongodb_predictions", PREDICTIONS_FILE, "predictions")
    options, settings_file, overrides = parse_run(parser, arguments)
    if options.precision is not None:
        overrides.append(f"prediction.precision={options.precision}")

    from incasem.runs.predict import PredictionRequest
    from incasem.runs.predict import predict as run_prediction

    request = PredictionRequest(
        name=options.name,
        run_id=options.run_id,
        settings_file=settings_file,
        overrides=overrides,
        trainings=database_file(options.mongodb_training, TRAININGS_FILE),
        predictions=database_file(options.mongodb_predictions, PREDICTIONS_FILE),
    )
    run_prediction(request, tell)
