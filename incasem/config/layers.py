"""Lay settings over one another and report all that does not fit, each problem with its origin."""

import difflib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticUndefined

from incasem.errors import ConfigError, did_you_mean, explain

MOST_PROBLEMS = 5
Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class Layer:
    """Settings of one origin: a file, the command line, or an earlier run."""

    origin: str
    values: Mapping[str, Any]
    lines: Mapping[str, int] = field(default_factory=dict)

    def place(self, name: str) -> str:
        """Return where the setting (dotted) comes from, for messages."""
        while name:
            if name in self.lines:
                return f"{self.origin}, line {self.lines[name]}"
            name = name.rpartition(".")[0]
        return self.origin


@dataclass(frozen=True)
class Schema:
    """The dotted names that a model knows: sections and single settings."""

    sections: frozenset[str]
    settings: frozenset[str]

    def explain_unknown(self, name: str, place: str) -> str:
        """Return the message for a name that no setting has, with the nearest one that exists."""
        last = name.rpartition(".")[2]
        parent = name
        while parent and parent not in self.sections:
            parent = parent.rpartition(".")[0]
        prefix = f"{parent}." if parent else ""
        names = (n.removeprefix(prefix) for n in self.sections | self.settings if n.startswith(prefix))
        siblings = sorted(n for n in names if "." not in n)
        likely = {n for n in self.settings if n.rpartition(".")[2] == last}
        likely |= {f"{prefix}{n}" for n in siblings if parent and last in n}
        nearest = difflib.get_close_matches(name, sorted(likely), n=1, cutoff=0)
        if nearest:
            hint = f" Did you mean {nearest[0]!r}?"
        elif near := did_you_mean(name.removeprefix(prefix), siblings):
            hint = near.replace("mean '", f"mean '{prefix}")
        else:
            hint = did_you_mean(name, self.settings)
        inside = f"{parent!r}" if parent else "the settings"
        allowed = "" if hint else f" Allowed in {inside}: {', '.join(siblings)}."
        return f"{name} ({place}) is not a setting.{hint}{allowed}"


def schema_of(model: type[BaseModel]) -> Schema:
    """Return the names that ``model`` declares, with the aliases that files use."""
    sections: set[str] = set()
    settings: set[str] = set()
    for name, section in _walk(model, ""):
        (sections if section else settings).add(name)
    return Schema(frozenset(sections), frozenset(settings))


def _walk(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, bool]]:
    for attribute, info in model.model_fields.items():
        name = prefix + (info.alias or attribute)
        section = section_type(info.annotation)
        yield name, section is not None
        if section is not None:
            yield from _walk(section, f"{name}.")


def section_type(annotation: Any) -> type[BaseModel] | None:
    """Return the model of a field's annotation ``Section`` or ``Section | None``, else None."""
    candidates = (annotation,)
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        candidates = typing.get_args(annotation)
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)


def unknown_names(values: Mapping[str, Any], schema: Schema, prefix: str = "") -> list[str]:
    """Return the dotted names in ``values`` that the schema lacks."""
    unknown = []
    for key, value in values.items():
        name = f"{prefix}{key}"
        if name in schema.settings:
            continue
        if isinstance(value, Mapping) and (value or name in schema.sections):
            unknown += unknown_names(value, schema, f"{name}.")
        elif name not in schema.sections:
            unknown.append(name)
    return unknown


def without(values: Mapping[str, Any], names: Sequence[str], prefix: str = "") -> dict[str, Any]:
    """Return a copy of the nested ``values`` without the dotted ``names`` and the sections thus emptied."""
    result = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if name in names:
            continue
        if not isinstance(value, Mapping) or not value:
            result[key] = value
        elif kept := without(value, names, f"{name}."):
            result[key] = kept
    return result


def merge(layers: Sequence[Layer]) -> tuple[dict[str, Any], dict[str, str]]:
    """Lay the layers over one another, the last on top.

    Returns:
        the nested settings, and for each dotted name that a layer sets the place that set it last.
    """
    merged: dict[str, Any] = {}
    places: dict[str, str] = {}
    for layer in layers:
        _lay_over(merged, layer.values, "", layer, places)
    return merged, places


def _lay_over(
    below: dict[str, Any], above: Mapping[str, Any], prefix: str, layer: Layer, places: dict[str, str]
) -> None:
    for key, value in above.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            if not isinstance(below.get(key), dict):
                below[key] = {}
                places[name] = layer.place(name)
            _lay_over(below[key], value, f"{name}.", layer, places)
        else:
            below[key] = value
            places[name] = layer.place(name)


def build(model: type[Model], layers: Sequence[Layer]) -> Model:
    """Make the model from its defaults and the layers.

    Raises:
        ConfigError: unknown settings and values that are not allowed, together in one message.
    """
    schema = schema_of(model)
    problems, known = [], []
    for layer in layers:
        unknown = unknown_names(layer.values, schema)
        problems += [schema.explain_unknown(name, layer.place(name)) for name in unknown]
        known.append(Layer(layer.origin, without(layer.values, unknown), layer.lines))
    values, places = merge(known)
    try:
        result = model.model_validate(values)
    except ValidationError as error:
        problems += explain_errors(error, model, places)
    else:
        if not problems:
            return result
    raise ConfigError(report(problems))


def report(problems: Sequence[str], heading: str = "settings cannot be used") -> str:
    """Return one message for all problems: a line for a single one, else a list of at most five."""
    if len(problems) == 1:
        return problems[0]
    lines = [f"{len(problems)} {heading}:"]
    lines += [f"  - {problem}" for problem in problems[:MOST_PROBLEMS]]
    if len(problems) > MOST_PROBLEMS:
        lines.append(f"  - … and {len(problems) - MOST_PROBLEMS} more")
    return "\n".join(lines)


def explain_errors(
    error: ValidationError, model: type[BaseModel], places: Mapping[str, str], prefix: str = ""
) -> list[str]:
    """Return a message (setting, value, place, allowed, what to do) for each error of a validation."""
    return [
        _explain_one(".".join(str(part) for part in details["loc"]), details, model, places, prefix)
        for details in error.errors(include_url=False)
    ]


def _explain_one(
    name: str, details: Any, model: type[BaseModel], places: Mapping[str, str], prefix: str
) -> str:
    place = _nearest(name, places)
    if details["type"] == "missing":
        return explain(prefix + name, f"not set{place}", "a value", "Add it")
    value = details["input"]
    allowed = details["msg"].removeprefix("Input should be ")
    todo = "Correct the value"
    if details["type"] in ("model_type", "model_attributes_type", "dict_type"):
        keys = sorted(n.removeprefix(f"{name}.") for n, _ in _walk(model, "") if n.startswith(f"{name}."))
        allowed = f"the settings {', '.join(k for k in keys if '.' not in k)}"
        todo = f"Set them one by one, as in {name}.{keys[0]}=…" if keys else todo
    else:
        default = _default(name, model)
        if default is not None:
            todo = f"Correct it, or leave it out for the default {default}"
    return explain(prefix + name, f"{_short(value)}{place}", allowed, todo)


def _nearest(name: str, places: Mapping[str, str]) -> str:
    if name in places:
        return f" ({places[name]})"
    below = [place for other, place in places.items() if other.startswith(f"{name}.")]
    return f" ({below[0]})" if below else ""


def _default(name: str, model: type[BaseModel]) -> str | None:
    current: type[BaseModel] | None = model
    default: Any = None
    for part in name.split("."):
        if current is None:
            return None
        info = next((f for a, f in current.model_fields.items() if part in (a, f.alias)), None)
        if info is None or info.is_required():
            return None
        default, current = info.get_default(call_default_factory=False), section_type(info.annotation)
    if default is None or default is PydanticUndefined or isinstance(default, BaseModel):
        return None
    return str(list(default)) if isinstance(default, tuple) else repr(default)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"
