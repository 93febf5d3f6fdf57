"""`incasem train`, the same as `train.py`."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from incasem.cli.arguments import Parser, add_database, database_file, make_run_parser, parse_run, tell
from incasem.errors import ConfigError, explain

if TYPE_CHECKING:
    from incasem.training.preparation import TrainingRequest

DATABASE_FILE = "trainings_db.json"


def train(program: str, arguments: Sequence[str]) -> None:
    """Parse the published flags and train."""
    parser = make_training_parser(
        program, "Train a network on annotated regions, fine-tune one, or continue a training."
    )
    parser.add_argument(
        "--local-rank",
        "--local_rank",
        type=int,
        metavar="N",
        help="number of this process on its machine, as `python -m torch.distributed.launch` gives it "
        "(default: the environment variable LOCAL_RANK, which torchrun sets)",
    )
    options, settings_file, overrides = parse_run(parser, arguments)
    _set_local_rank(options.local_rank)

    from incasem.training.run import train as run_training

    run_training(training_request(options, settings_file, overrides), tell)


def _set_local_rank(rank: int | None) -> None:
    """Put a number from the command line where `incasem.training.distributed` looks for it."""
    if rank is None:
        return
    if rank < 0:
        raise ConfigError(
            explain("--local-rank", rank, "0 or more", "Leave it to whoever starts the processes")
        )
    os.environ["LOCAL_RANK"] = str(rank)


def make_training_parser(program: str, description: str) -> Parser:
    """Return the parser of the published flags of a training; see `training_request`."""
    parser = make_run_parser(
        program,
        description,
        usage="[options] with config_training.yaml [training.iterations=15000 ...]",
        name="training",
    )
    parser.add_argument(
        "--start_from",
        nargs=2,
        metavar=("RUN_ID", "CHECKPOINT"),
        help="fine-tune: settings of that run as base, weights of that checkpoint",
    )
    parser.add_argument(
        "--continue_run", type=int, metavar="RUN_ID", help="go on with an interrupted training"
    )
    parser.add_argument("--repeat_run", type=int, metavar="RUN_ID", help="train again with a run's settings")
    parser.add_argument(
        # Published as a flag with a value, any of which meant yes.
        "--check_commit",
        nargs="?",
        const=True,
        default=False,
        type=_is_true,
        metavar="yes|no",
        help="refuse to build on a run that other code made",
    )
    add_database(parser, "--mongodb", DATABASE_FILE, "trainings")
    return parser


def training_request(
    options: argparse.Namespace, settings_file: Path | None, overrides: list[str]
) -> "TrainingRequest":
    """Return what was asked for by the flags of `make_training_parser` and by the settings."""
    from incasem.training.preparation import TrainingRequest

    return TrainingRequest(
        name=options.name,
        settings_file=settings_file,
        overrides=overrides,
        database=database_file(options.mongodb, DATABASE_FILE),
        start_from=None if options.start_from is None else _start_from(*options.start_from),
        continue_run=options.continue_run,
        repeat_run=options.repeat_run,
        check_commit=options.check_commit,
    )


def _is_true(text: str) -> bool:
    return text.lower() not in ("false", "no", "0", "")


def _start_from(run_id: str, checkpoint: str) -> tuple[int, Path]:
    if not run_id.isdigit():
        raise ConfigError(
            explain(
                "--start_from", run_id, "a run id and a checkpoint", "For example: --start_from 1847 FILE"
            )
        )
    return int(run_id), Path(checkpoint).expanduser().absolute()
