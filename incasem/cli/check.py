"""`incasem check`: what would go wrong, all of it, before anything is started or written."""

import argparse
import shutil
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from incasem.cli.arguments import Parser, make_parser, parse_run
from incasem.cli.predict import make_prediction_parser, prediction_request
from incasem.cli.train import make_training_parser, training_request
from incasem.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from incasem.preflight.findings import Findings

_NARROWEST = 60


def check(program: str, arguments: Sequence[str]) -> int:
    """Check a training, a prediction or volumes; return 0 where nothing stands against it, else 1."""
    words = list(arguments)
    kinds: dict[str, Callable[[str, Sequence[str]], int]] = {
        "train": _check_training, "predict": _check_prediction, "volume": _check_volumes,
    }  # fmt: skip
    what = next((word for word in words if not word.startswith("-")), "")
    if what in kinds:
        words.remove(what)
        return kinds[what](f"{program} {what}", words)
    if not what:
        _overview(program).parse_args(words or ["-h"])
    raise ConfigError(
        f"{what!r} cannot be checked; allowed: {', '.join(kinds)}.{did_you_mean(what, kinds)} "
        f"See: {program} -h"
    )


def _overview(program: str) -> Parser:
    parser = make_parser(
        program,
        "Check everything that a training or a prediction needs before it starts, or what volumes hold: "
        "paths, regions and context, voxel sizes, classes, grey values, missing chunks, masks, memory, disk, "
        "checkpoint, run store, duration. All findings are listed; nothing is written. The exit code is 1 if "
        "one of them is an error.",
    )
    parser.usage = (
        f"{program} train [options of train] [--json] with config_training.yaml [name=value ...]\n"
        f"       {program} predict --run_id ID [options of predict] [--json] with config_prediction.yaml "
        f"[name=value ...]\n       {program} volume [--json] cell.zarr/volumes/raw ..."
    )
    parser.add_argument("what", nargs="?", help="train, predict or volume")
    _add_json(parser)
    return parser


def _add_json(parser: Parser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON, for other programs")


def _check_training(program: str, arguments: Sequence[str]) -> int:
    parser = make_training_parser(program, "Check everything that a training needs; options as of `train`.")
    _add_json(parser)
    options, settings_file, overrides = parse_run(parser, arguments)

    from incasem.preflight.train import check_training

    return _show(options, check_training(training_request(options, settings_file, overrides)))


def _check_prediction(program: str, arguments: Sequence[str]) -> int:
    parser = make_prediction_parser(
        program, "Check everything that a prediction needs; options as of `predict`."
    )
    _add_json(parser)
    options, settings_file, overrides = parse_run(parser, arguments)

    from incasem.preflight.predict import check_prediction

    return _show(options, check_prediction(prediction_request(options, settings_file, overrides)))


def _check_volumes(program: str, arguments: Sequence[str]) -> int:
    parser = make_parser(
        program,
        "Check datasets: type, place, chunks that are missing, grey values, odd sections. Of large ones a "
        "part is read.",
    )
    parser.add_argument(
        "paths", nargs="+", metavar="PATH",
        help="datasets such as cell.zarr/volumes/raw, or a container, of which all are checked",
    )  # fmt: skip
    parser.add_argument(
        "--kind", choices=("auto", "raw", "labels", "mask"), default="auto",
        help="what they hold; auto: by name and type",
    )  # fmt: skip
    _add_json(parser)
    options = parser.parse_args(list(arguments))

    from incasem.preflight.volume import check_volumes

    return _show(options, check_volumes(options.paths, options.kind))


def _show(options: argparse.Namespace, findings: "Findings") -> int:
    if options.json:
        print(findings.as_json())
    else:
        columns = max(_NARROWEST, shutil.get_terminal_size((100, 24)).columns)
        print(findings.as_text(min(columns, 140)))
    return 0 if findings.passed else 1
