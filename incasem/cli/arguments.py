"""What the parsers of all verbs share."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import configargparse

from incasem.errors import ConfigError, did_you_mean, explain

if TYPE_CHECKING:
    from incasem.blockwise import JobReport

# The published scripts start 20 or 32 workers whatever the machine; more than cores only cost memory.
DEFAULT_WORKERS = min(os.cpu_count() or 1, 32)
ZYX = ("Z", "Y", "X")
_SETTINGS_SUFFIXES = (".yaml", ".yml", ".json")


class HelpFormatter(argparse.HelpFormatter):
    """Each option with its default as one would type it, unless its help says what happens without it."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        if action.default is argparse.SUPPRESS or "(default:" in text:
            return text
        if action.required:
            return f"{text} (required)"
        return f"{text} (default: {_as_typed(action.default)})".replace("%", "%%")


def _as_typed(default: Any) -> str:
    if isinstance(default, list | tuple):
        return " ".join(map(str, default))
    if default is None:
        return "none"
    if isinstance(default, bool):
        return "yes" if default else "no"
    return str(default)


class Parser(configargparse.ArgumentParser):
    """A parser whose errors are `ConfigError`, so that all bad input ends the same way."""

    takes_settings = False

    def error(self, message: str) -> None:
        """Raise the usage error that argparse would print."""
        _, unknown, words = message.partition("unrecognized arguments: ")
        hint = self._hint(words.split()[0]) if unknown and words else ""
        raise ConfigError(f"{message}.{hint} See: {self.prog} -h")

    def _hint(self, word: str) -> str:
        if word.startswith("-"):
            return did_you_mean(word.partition("=")[0], self._option_string_actions)
        if self.takes_settings:
            return " Settings and their file stand after the word `with`."
        return ""


def make_parser(program: str, description: str, *, config_flags: Sequence[str] = ("--config",)) -> Parser:
    """Return a parser that also reads its options from a file given by ``config_flags``."""
    parser = Parser(
        prog=program,
        description=description,
        formatter_class=HelpFormatter,
        add_config_file_help=False,
        add_env_var_help=False,
        allow_abbrev=False,
    )
    parser.add_argument(
        *config_flags, is_config_file=True, metavar="FILE", help="a file with lines `option: value`"
    )
    return parser


def make_run_parser(program: str, description: str, *, usage: str, name: str) -> Parser:
    """Return the parser of a recorded run, whose settings follow after ``with``; see `parse_run`.

    Args:
        program: name of the command.
        description: what it does.
        usage: what stands before and after ``with``.
        name: default name of the run.
    """
    parser = make_parser(
        program, f"{description} Settings follow after `with`: a YAML file, then single settings, name=value."
    )
    parser.usage = f"{program} {usage}"
    parser.takes_settings = True
    parser.add_argument("-n", "--name", default=name, help="name of the run in the run store")
    return parser


def parse_run(parser: Parser, arguments: Sequence[str]) -> tuple[argparse.Namespace, Path | None, list[str]]:
    """Return the options, the settings file and the ``a.b=c`` overrides of a recorded run.

    Raises:
        ConfigError: words that are not understood.
    """
    words, settings = split_with(arguments)
    options = parser.parse_args(words)
    return options, *split_settings(settings)


def add_database(parser: Parser, flag: str, default: str, what: str) -> None:
    """Add the file that names a run store; see `database_file`."""
    parser.add_argument(
        flag, type=path_argument, metavar="FILE",
        help=f"where {what} are recorded, JSON with url and db_name (default: {default}, if there is one)",
    )  # fmt: skip


def add_workers(parser: Parser, *flags: str) -> None:
    """Add the number of worker processes under its published flags."""
    parser.add_argument(
        *(flags or ("-n", "--num_workers")),
        type=int,
        default=DEFAULT_WORKERS,
        metavar="N",
        help="worker processes",
        dest="num_workers",
    )


def add_masks(parser: Parser) -> None:
    """Add where scores are taken: `--mask` and `--metric_mask`; see `masks`."""
    parser.add_argument(
        "--mask", type=path_argument, help="x.zarr/DATASET of the sample's mask (default: none)"
    )
    parser.add_argument(
        "--metric_mask", type=path_argument, nargs="+", metavar="MASK",
        help="exclusion zones, as x.zarr/DATASET; all of them hold (default: none)",
    )  # fmt: skip


def masks(options: argparse.Namespace) -> tuple[str, ...]:
    """Return the masks that `add_masks` has parsed."""
    return tuple(str(path) for path in (options.mask, *(options.metric_mask or [])) if path is not None)


def path_argument(text: str) -> Path:
    """Return a path with `~` expanded."""
    return Path(text).expanduser()


def split_with(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split ``flags… with settings…`` at the first ``with``.

    Returns:
        The words before and after it; without ``with`` the second list is empty.
    """
    words = list(arguments)
    if "with" not in words:
        return words, []
    position = words.index("with")
    return words[:position], words[position + 1 :]


def split_settings(words: Sequence[str]) -> tuple[Path | None, list[str]]:
    """Split what follows ``with`` into the settings file and the ``a.b=c`` overrides, in any order.

    Raises:
        ConfigError: a word is neither, or there are two files.
    """
    files = [word for word in words if "=" not in word]
    for word in files:
        if not word.lower().endswith(_SETTINGS_SUFFIXES) and not Path(word).expanduser().is_file():
            raise ConfigError(
                explain(
                    f"{word!r} after `with`",
                    "neither a file nor a setting",
                    "a YAML file such as config_training.yaml, or name=value",
                    "Correct it",
                )
            )
    if len(files) > 1:
        raise ConfigError(
            explain(
                "the settings file after `with`", " and ".join(files), "one YAML file", "Leave one of them"
            )
        )
    return (Path(files[0]).expanduser() if files else None), [word for word in words if "=" in word]


def tell(text: str) -> None:
    """Print a line of a report to the terminal, above a progress line if there is one."""
    from tqdm import tqdm

    tqdm.write(text, file=sys.stdout)
    sys.stdout.flush()


def tell_report(report: "JobReport", output: Path) -> None:
    """Print what a job did, and where its output lies."""
    tell(f"{report.summary()}\n  {output}")


def database_file(given: Path | None, default: str) -> Path | None:
    """Return the JSON file that names the run store: the given one, else the published one if it is there."""
    if given is not None:
        return given
    return Path(default) if Path(default).is_file() else None
