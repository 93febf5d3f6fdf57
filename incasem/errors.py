"""The errors a user can meet: one tree, each message complete in itself.

A message names the setting, its value, what is allowed and what to do. Commands print it without
a traceback and exit with a non-zero code; anything outside this tree is a defect of incasem.
"""

import difflib
from collections.abc import Iterable
from typing import Any


class IncasemError(Exception):
    """Base of every error that a user can cause and mend."""

    exit_code = 1


class ConfigError(IncasemError):
    """A setting is missing, unknown, or disagrees with another one."""

    exit_code = 2


class DataError(IncasemError):
    """A file, volume or region of interest cannot be used as asked."""

    exit_code = 3


class CheckpointError(IncasemError):
    """A checkpoint is missing, damaged, or does not fit the network."""

    exit_code = 4


class FailedBlocksError(IncasemError):
    """A block-wise job ended with blocks that could not be done.

    Attributes:
        report: the job's `JobReport` of what was done all the same, if there is one.
    """

    exit_code = 5
    report: Any = None


class TrackingError(IncasemError):
    """The run store cannot be reached, or does not hold the run."""

    exit_code = 6


def explain(setting: str, value: object, allowed: str, todo: str) -> str:
    """Return the message ``SETTING is VALUE; allowed: ALLOWED. TODO``, the common form of our errors."""
    todo = todo if todo.endswith((".", "?")) else todo + "."
    return f"{setting} is {value!s}; allowed: {allowed}. {todo}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the known name nearest to ``name``, or an empty string."""
    nearest = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean {nearest[0]!r}?" if nearest else ""
