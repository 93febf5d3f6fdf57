"""`incasem predict`, the same as `predict.py`."""

from collections.abc import Sequence

from incasem.cli.arguments import database_file, make_parser, path_argument, split_settings, split_with, tell

TRAININGS_FILE = "../02_train/trainings_db.json"
PREDICTIONS_FILE = "predictions_db.json"


def predict(program: str, arguments: Sequence[str]) -> None:
    """Parse the published flags and predict."""
    words, settings = split_with(arguments)
    parser = make_parser(
        program,
        "Segment the regions of a data configuration, block by block, with the network of a training run. "
        "Settings follow after `with`: a YAML file, then single settings such as prediction.data=cell.json.",
    )
    parser.usage = f"{program} --run_id ID [options] with config_prediction.yaml [setting=value ...]"
    parser.add_argument("-n", "--name", default="prediction", help="name of the run in the run store")
    parser.add_argument("-r", "--run_id", type=int, required=True, help="training run that made the network")
    parser.add_argument(
        "--precision",
        choices=("auto", "fp32", "bf16", "fp16"),
        help="arithmetic of the network; short for prediction.precision=…, over which it wins",
    )
    for flag, default in (
        ("--mongodb_training", TRAININGS_FILE),
        ("--mongodb_predictions", PREDICTIONS_FILE),
    ):
        parser.add_argument(
            flag, type=path_argument, default=None, metavar="FILE",
            help=f"where these runs are recorded (JSON: url, db_name); default: {default}, if there",
        )  # fmt: skip
    options = parser.parse_args(words)
    settings_file, overrides = split_settings(settings)
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
