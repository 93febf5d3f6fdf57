"""The settings of a PyTorch Connectomics run: defaults < base file < file < KEY VALUE …, as there."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from incasem.config.files import read_yaml
from incasem.errors import ConfigError, did_you_mean, explain
from incasem.sharing.connectomics.keys import DEFAULTS, is_known, known_keys

_WORDS = {"None": None, "True": True, "False": False}


@dataclass(frozen=True)
class Settings:
    """What was asked for.

    Attributes:
        given: keys that a file or the command line set; dotted.
        unknown: those of them that version 1 does not have, with the nearest that it has.
    """

    given: Mapping[str, Any]
    unknown: Mapping[str, str]

    def __getitem__(self, key: str) -> Any:
        """Return the value of a key: as given, else its default."""
        return self.given.get(key, DEFAULTS[key])


def read_settings(
    base: Path | None, file: Path | None, options: Sequence[str], *, ignore_unknown: bool
) -> Settings:
    """Read the two YAML files and the options of the command line.

    Args:
        base: of ``--config-base``.
        file: of ``--config-file``.
        options: KEY VALUE KEY VALUE …
        ignore_unknown: take keys that version 1 does not have, rather than refuse them.

    Raises:
        ConfigError: a file that cannot be read, a key without a value, unknown keys, a group where a value
            belongs, a switch that is neither true nor false.
    """
    given: dict[str, Any] = {}
    for path in (base, file):
        if path is not None:
            given |= dict(_flat(read_yaml(path).values, "", path))
    given |= _pairs(options)
    unknown = {key: did_you_mean(key, known_keys()) for key in given if not is_known(key)}
    if unknown and not ignore_unknown:
        listed = "; ".join(f"{key}{hint}" for key, hint in unknown.items())
        raise ConfigError(
            f"PyTorch Connectomics v1 has no such keys: {listed} Correct them, or leave them out "
            "with --ignore_unknown."
        )
    for key, value in given.items():
        if isinstance(DEFAULTS.get(key), bool) and not isinstance(value, bool):
            raise ConfigError(explain(key, value, "True or False", "Correct it"))
    return Settings(given, unknown)


def _flat(values: Mapping[str, Any], prefix: str, path: Path) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping):
            if key in DEFAULTS:
                raise ConfigError(explain(f"{key} of {path}", "a group", "a value", "Correct the file"))
            yield from _flat(value, f"{key}.", path)
        else:
            yield key, _decoded(value)


def _pairs(words: Sequence[str]) -> dict[str, Any]:
    if len(words) % 2:
        raise ConfigError(
            explain(
                "the list of options",
                " ".join(words),
                "KEY VALUE KEY VALUE …",
                f"{words[-1]!r} has no value, or no key",
            )
        )
    return {key: _parsed(key, text) for key, text in zip(words[::2], words[1::2], strict=True)}


def _parsed(key: str, text: str) -> Any:
    """Return a value of the command line, which may be a list or tuple in Python's spelling."""
    stripped = text.strip()
    if stripped.startswith("(") and stripped.endswith(")"):
        stripped = f"[{stripped[1:-1].rstrip().rstrip(',')}]"
    try:
        return _decoded(yaml.safe_load(stripped))
    except yaml.YAMLError as error:
        raise ConfigError(explain(key, text, "a number, a text or a list", "Correct it")) from error


def _decoded(value: Any) -> Any:
    """Return a value as the other program reads it: words of Python and numbers in texts stand for these."""
    if isinstance(value, list | tuple):
        return [_WORDS.get(v, v) if isinstance(v, str) else _decoded(v) for v in value]
    if not isinstance(value, str):
        return value
    if value in _WORDS:
        return _WORDS[value]
    try:
        return float(value) if any(c in value for c in ".eE") else int(value)
    except ValueError:
        return value
