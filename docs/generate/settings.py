"""A page for the settings of training, prediction and data configurations, from their models.

Names, defaults and what is allowed come from the pydantic models; what a setting means is said by the string
below it in its model, and where there is none by the comment in the commented YAML file.
"""

import ast
import inspect
import re
import textwrap
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from incasem.config import PredictionConfig, TrainingConfig
from incasem.config import data_config as data_configuration
from incasem.config.layers import section_type

SCRIPTS = Path(__file__).parents[2] / "scripts"


@dataclass(frozen=True)
class Setting:
    """One setting as the reference shows it."""

    name: str
    default: str
    allowed: str
    meaning: str


@dataclass(frozen=True)
class Group:
    """The settings of one section, without those of the sections in it."""

    name: str
    purpose: str
    settings: list[Setting]


def groups_of(model: type[BaseModel], comments: dict[str, str], prefix: str = "") -> Iterator[Group]:
    """Return the sections of a model with their settings, in their order."""
    said = _strings_below_fields(model)
    settings: list[Setting] = []
    sections: list[tuple[type[BaseModel], str]] = []
    for attribute, info in model.model_fields.items():
        name = prefix + (info.alias or attribute)
        section = section_type(info.annotation)
        if section is not None:
            sections.append((section, f"{name}."))
            continue
        meaning = " ".join((said.get(attribute) or comments.get(name, "")).split())
        settings.append(Setting(name, _default(info), _allowed(info), meaning[:1].upper() + meaning[1:]))
    if settings:
        yield Group(prefix.removesuffix("."), inspect.getdoc(model) or "", settings)
    for section, section_prefix in sections:
        yield from groups_of(section, comments, section_prefix)


def settings_pages() -> dict[str, str]:
    """Return file name and text of the pages."""
    pages = {}
    for kind, model, file in (
        ("training", TrainingConfig, "02_train/config_training.yaml"),
        ("prediction", PredictionConfig, "03_predict/config_prediction.yaml"),
    ):
        path = SCRIPTS / file
        comments = yaml_comments(path.read_text())
        if kind == "prediction":  # `model` and `data` are those of the training
            comments = yaml_comments((SCRIPTS / "02_train/config_training.yaml").read_text()) | comments
        pages[f"settings-{kind}.md"] = _page(kind, file, list(groups_of(model, comments)), path.read_text())
    (entry,) = groups_of(data_configuration._Entry, _entry_attributes())
    pages["data-configuration.md"] = _data_page(entry.settings)
    return pages


def yaml_comments(text: str) -> dict[str, str]:
    """Return the comment behind each key of a YAML file by the key's dotted name.

    A comment that ends in … goes on in that of the next key, and is shown with both.
    """
    comments: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    for line in text.splitlines():
        found = re.match(r"( *)(\w+):(.*)$", line)
        if not found:
            continue
        indent = len(found[1])
        path = [(i, key) for i, key in path if i < indent] + [(indent, found[2])]
        comment = re.search(r"(?:^|\s)# ?(.*)$", found[3])
        if comment:
            comments[".".join(key for _, key in path)] = comment[1].strip()
    return comments


def _page(kind: str, file: str, groups: list[Group], yaml_text: str) -> str:
    lines = [
        f"# Settings of a {kind}", "",
        f"Every setting may stand in a YAML file such as "
        f"`scripts/{file}` (below), or on the command line after `with` as `name=value`, which wins. "
        "A key that is not a setting is an error with a suggestion. Sizes are voxels in z, y, x.", "",
    ]  # fmt: skip
    for group in sorted(groups, key=lambda group: not group.name):  # those without a section at the end
        purpose = _cell(" ".join(group.purpose.split())) if group.name else "In no section."
        lines += [f"## {group.name or 'seed'}", "", purpose, "", *_table(group.settings), ""]
    lines += ["## The commented file", "", f"`scripts/{file}`:", "", "```yaml", yaml_text.rstrip(), "```", ""]
    return "\n".join(lines)


def _data_page(entry: list[Setting]) -> str:
    example = (SCRIPTS / "02_train/data_configs/example_validation_er.json").read_text().rstrip()
    return "\n".join([
        "# Data configurations", "",
        "A JSON file that says which regions of which volumes are used: an object with one entry a region, "
        "whose name (nickname) becomes the name of folders and curves.", "",
        *_table(entry), "",
        "- The region must lie within the raw volume. `offset` counts voxels on the absolute grid, that is, "
        "offset in nm divided by the voxel size; attributes of volumes say nm.",
        "- Any nonzero voxel of a label dataset belongs to its class; ids of instances are fine. A voxel of "
        "two classes is background.",
        "- Everything inside the region that belongs to a class must be annotated.",
        "- With more than one class, `data.num_classes`, `model.num_fmaps_out` and the length of "
        "`loss.weight` are the number of classes with the background.", "",
        "`scripts/02_train/data_configs/example_validation_er.json`, as the published guide prints it:", "",
        "```json", example, "```", "",
    ])  # fmt: skip


def _table(settings: list[Setting]) -> list[str]:
    rows = [f"| `{s.name}` | {s.default} | {s.allowed} | {_cell(s.meaning)} |" for s in settings]
    return ["| setting | default | allowed | meaning |", "|---|---|---|---|", *rows]


def _cell(text: str) -> str:
    text = re.sub(r"\bNone: ", "empty: ", text)
    text = re.sub(r", or None(: all)?\.$", lambda found: f"; empty{found[1] or ': all of the volume'}.", text)
    return re.sub(r"([|<>*_\[\]])", r"\\\1", text) if "`" not in text else text.replace("|", "\\|")


@cache
def _strings_below_fields(model: type[BaseModel]) -> dict[str, str]:
    """Return the documentation strings that stand below the fields of a model and of its bases."""
    said: dict[str, str] = {}
    for cls in reversed(model.__mro__):
        if not issubclass(cls, BaseModel) or cls.__module__.startswith("pydantic"):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, text in zip(body.body, body.body[1:], strict=False):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
                and isinstance(text.value.value, str)
            ):
                said[field.target.id] = text.value.value
    return said


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    value = info.get_default(call_default_factory=False)
    if value is PydanticUndefined or value is None or value == () or value == {}:
        return ""
    return f"`{_written(value)}`"


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(_written(v) for v in value)}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _allowed(info: FieldInfo) -> str:
    """Return what a setting may be, in the words of the message that an impossible value gets."""
    choices = [c for option in _options(info.annotation) for c in typing.get_args(option)]
    if choices and any(typing.get_origin(o) is Literal for o in _options(info.annotation)):
        return ", ".join(f"`{choice}`" for choice in choices)
    try:
        kind = typing.Annotated[info.annotation, *info.metadata] if info.metadata else info.annotation
        TypeAdapter(kind).validate_python(object())
    except ValidationError as error:
        return _cell(error.errors(include_url=False)[0]["msg"].removeprefix("Input should be "))
    return ""


def _options(annotation: Any) -> tuple[Any, ...]:
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        return typing.get_args(annotation)
    return (annotation,)


def _entry_attributes() -> dict[str, str]:
    """Return what the docstring of a data entry says of its attributes."""
    text = inspect.getdoc(data_configuration.DataEntry) or ""
    found = re.findall(r"^    (\w+): (.+(?:\n {8}.+)*)", text, re.MULTILINE)
    meanings = {name: " ".join(meaning.split()) for name, meaning in found}
    meanings["file"] = "The container, absolute or relative to `directories.data`."
    meanings["voxel_size"] = (
        "The same in all entries, and as in `data.voxel_size`. Wins over what the volume says."
    )
    return meanings
