"""Settings on the command line, `a.b=c`, as Sacred reads them."""

import ast
from collections.abc import Sequence
from typing import Any

import yaml

from incasem.errors import ConfigError, explain

_WORDS = {"none": None, "null": None, "true": True, "false": False}


def parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """Return the nested settings of words such as ``training.optimizer.lr=1e-4``; later words win.

    Values are Python literals; `none`, `true` and `false` are understood in any case; whatever is no literal
    is a string, so that paths need no quotes.

    Raises:
        ConfigError: a word without a name or without `=`.
    """
    settings: dict[str, Any] = {}
    for word in overrides:
        name, equals, text = word.partition("=")
        name = name.strip()
        parts = name.split(".")
        if not equals or not all(parts):
            raise ConfigError(
                explain(f"the command-line setting {word!r}", "not of the form name=value",
                        "training.iterations=1000 and the like", "Correct it")
            )  # fmt: skip
        _put(settings, parts, parse_value(text))
    return settings


def _put(settings: dict[str, Any], parts: list[str], value: Any) -> None:
    for part in parts[:-1]:
        below = settings.get(part)
        if not isinstance(below, dict):
            below = settings[part] = {}
        settings = below
    last = parts[-1]
    if isinstance(value, dict) and isinstance(settings.get(last), dict):
        for key, inner in value.items():
            _put(settings[last], [str(key)], inner)
    else:
        settings[last] = value


def parse_value(text: str) -> Any:
    """Return the value that a command-line text stands for."""
    text = text.strip()
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        pass
    if text[:1] in ("[", "{"):
        try:
            return yaml.safe_load(text)  # lists whose strings have no quotes
        except yaml.YAMLError:
            return text
    return text
