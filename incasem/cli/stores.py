"""How the commands that look into a run store are told which one is meant."""

import argparse
import os
from typing import TYPE_CHECKING

from incasem.cli.arguments import Parser

if TYPE_CHECKING:
    from incasem.tracking import RunStore

TRAININGS_FILE = "trainings_db.json"
PREDICTIONS_FILE = "predictions_db.json"


def add_store(parser: Parser, *, predictions: bool = False) -> None:
    """Add `--store`, and with ``predictions`` the choice between trainings and predictions."""
    parser.add_argument(
        "-s", "--store", metavar="WHERE",
        help="run store: a folder, host:port, mongodb://…, or a JSON file with url and db_name (default: "
        f"{TRAININGS_FILE} of this folder if there is one, else INCASEM_RUNS, else ~/incasem/training_runs)",
    )  # fmt: skip
    if predictions:
        parser.add_argument("-p", "--predictions", action="store_true", help="predictions, not trainings")


def open_chosen_store(options: argparse.Namespace) -> "RunStore":
    """Open the store that the options of `add_store` name."""
    from incasem.config import load_prediction_config
    from incasem.tracking import PREDICTIONS, TRAININGS, find_store

    predictions = bool(getattr(options, "predictions", False))
    return find_store(
        options.store,
        load_prediction_config(None).directories.runs,
        PREDICTIONS if predictions else TRAININGS,
        os.environ,
        PREDICTIONS_FILE if predictions else TRAININGS_FILE,
    )
