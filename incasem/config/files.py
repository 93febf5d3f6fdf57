"""Read YAML and JSON files of users: every fault is named with its line, repeated keys are faults."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from incasem.errors import ConfigError


@dataclass(frozen=True)
class SettingsFile:
    """The content of a YAML file and the line on which each dotted key stands."""

    values: dict[str, Any]
    lines: Mapping[str, int]


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file (byte-order mark or not); unreadable ones are a ConfigError."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path} is not a text file (byte {error.start}); allowed: UTF-8 text. "
            "Name the YAML or JSON file itself."
        ) from None
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror}; allowed: a readable file. "
            "Check its path and permissions."
        ) from None


def read_yaml(path: Path) -> SettingsFile:
    """Read a YAML file of nested settings; an empty file holds none.

    Raises:
        ConfigError: not readable, not valid YAML, a repeated key, or not a mapping at the top.
    """
    text = read_text(path)
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}{_yaml_fault(error)}. Correct the file; it must be valid YAML.") from None
    if node is None:
        return SettingsFile({}, {})
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(
            f"{path} holds no settings at its top level; allowed: lines such as `training:` with indented "
            "settings. Name a configuration in YAML."
        )
    lines: dict[str, int] = {}
    _collect_lines(node, "", lines, path)
    return SettingsFile(values, lines)


def _yaml_fault(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f", line {mark.line + 1}, column {mark.column + 1}: {error.problem}"
    return f": {' '.join(str(error).split())}"


def _collect_lines(node: yaml.MappingNode, prefix: str, lines: dict[str, int], path: Path) -> None:
    own: dict[str, int] = {}
    for key_node, value_node in node.value:
        name = f"{prefix}{key_node.value}"
        line = key_node.start_mark.line + 1
        if name in own:
            raise ConfigError(
                f"{path}, line {line}: {name} is set a second time (first on line {own[name]}); "
                "allowed: each setting once. Remove one of the two."
            )
        own[name] = line
        if isinstance(value_node, yaml.MappingNode):
            _collect_lines(value_node, f"{name}.", lines, path)
    lines.update(own)


class _RepeatedKeyError(ValueError):
    """A key stands twice in one JSON object."""


def _object_without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise _RepeatedKeyError(key)
        result[key] = value
    return result


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        ConfigError: not readable, not valid JSON (with line and column), or a key repeated within an object.
    """
    text = read_text(path)
    try:
        return json.loads(text, object_pairs_hook=_object_without_repeats)
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"{path}, line {error.lineno}, column {error.colno}: {error.msg}. Correct the file; it must be "
            "valid JSON (no comments, no comma after the last item)."
        ) from None
    except _RepeatedKeyError as error:
        raise ConfigError(
            f"{path}: the key {str(error)!r} stands twice in one object; allowed: each name once. "
            "Rename or remove one of the two."
        ) from None
    except RecursionError:
        raise ConfigError(f"{path} is nested too deeply for a configuration. Correct the file.") from None
