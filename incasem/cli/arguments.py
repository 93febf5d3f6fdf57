"""What the parsers of all verbs share."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import configargparse

from incasem.errors import ConfigError

# The published scripts start 20 or 32 workers whatever the machine; more than cores only cost memory.
DEFAULT_WORKERS = min(os.cpu_count() or 1, 32)


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Each option with its default, except where there is none."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default in (None, argparse.SUPPRESS) or action.required:
            return action.help
        return super()._get_help_string(action)


class Parser(configargparse.ArgumentParser):
    """A parser whose errors are `ConfigError`, so that all bad input ends the same way."""

    def error(self, message: str) -> None:
        """Raise the usage error that argparse would print."""
        raise ConfigError(f"{message}. See: {self.prog} -h")


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


def add_workers(parser: Parser, *flags: str) -> None:
    """Add the number of worker processes under its published flags."""
    parser.add_argument(
        *(flags or ("-n", "--num_workers")),
        type=int,
        default=DEFAULT_WORKERS,
        help="worker processes",
        dest="num_workers",
    )


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
    """Split what follows ``with`` into the settings file and the ``a.b=c`` overrides."""
    files = [word for word in words if "=" not in word]
    if len(files) > 1:
        raise ConfigError(
            f"after `with` stand the files {', '.join(files)}; allowed: one YAML file and settings `a.b=c`. "
            "Leave one file, and check for a missing `=`."
        )
    return (Path(files[0]).expanduser() if files else None), [word for word in words if "=" in word]


def tell(text: str) -> None:
    """Print a line of a report to the terminal, above a progress line if there is one."""
    from tqdm import tqdm

    tqdm.write(text, file=sys.stdout)
    sys.stdout.flush()


def database_file(given: Path | None, default: str) -> Path | None:
    """Return the JSON file that names the run store: the given one, else the published one if it is there."""
    if given is not None:
        return given
    return Path(default) if Path(default).is_file() else None
