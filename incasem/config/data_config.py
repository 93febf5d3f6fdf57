"""Data configurations: JSON files that say which regions of which volumes are used.

As published, `raw`, `labels`, `mask` and `metric_masks` are datasets in the container `file`. A name with a
container in it, such as ``snemi/train-labels.tif`` or ``snemi/labels.h5/main``, is a path of its own,
relative to the data directory as `file` is: images and labels may lie in different files. `file` may then be
left out.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError

from incasem.config.fields import (
    OptionalIntegerTriple,
    OptionalPositiveTriple,
    Section,
    Text,
    VoxelSizeTriple,
    not_allowed,
)
from incasem.config.files import read_json
from incasem.config.layers import explain_errors, report, schema_of, unknown_names, without
from incasem.errors import ConfigError, DataError, explain
from incasem.geometry import Roi, format_roi

CONTAINER_SUFFIXES = (".zarr", ".n5", ".h5", ".hdf5", ".hdf", ".tif", ".tiff")
"""By which a name is known to have a container of its own; those of `incasem.volumes`."""


@dataclass(frozen=True)
class DataEntry:
    """One region of one volume.

    Attributes:
        nickname: the entry's name, unique in its file.
        file: the container, absolute. What lies elsewhere has an absolute path in the place of its dataset,
            so that ``file / dataset`` always is where a dataset lies.
        voxel_size: nm; z, y, x.
        offset: first voxel on the absolute voxel grid (world nm = offset · voxel_size), or None.
        shape: voxels of the region, or None.
        raw: dataset of the images.
        labels: class id (1…N) of each label dataset; empty: everything is background.
        mask: dataset whose nonzero voxels may be trained on and predicted, or None: all.
        metric_masks: datasets whose common nonzero voxels are scored; none: all.
        file_as_given: the container as the file names it, usually relative to the data directory.
    """

    nickname: str
    file: Path
    voxel_size: tuple[float, float, float]
    offset: tuple[int, int, int] | None
    shape: tuple[int, int, int] | None
    raw: str
    labels: dict[str, int] = field(default_factory=dict)
    mask: str | None = None
    metric_masks: tuple[str, ...] = ()
    file_as_given: str = ""

    @property
    def roi_voxels(self) -> Roi | None:
        """The region on the absolute voxel grid, or None where offset or shape are left to the volume."""
        if self.offset is None or self.shape is None:
            return None
        return Roi(self.offset, self.shape)

    def roi_within(self, available_voxels: Roi) -> Roi:
        """Return the region on the absolute voxel grid; a missing offset or shape means the volume's end.

        Raises:
            DataError: the region leaves ``available_voxels``.
        """
        begin = self.offset or tuple(available_voxels.begin)
        shape = self.shape or tuple(e - b for b, e in zip(begin, available_voxels.end, strict=True))
        if min(shape) > 0:
            roi = Roi(begin, shape)
            if available_voxels.contains(roi):
                return roi
        end = tuple(b + s for b, s in zip(begin, shape, strict=True))
        wanted = ", ".join(f"{b}:{e}" for b, e in zip(begin, end, strict=True))
        raise DataError(
            explain(
                f"the region of {self.nickname!r} (offset {list(begin)}, shape {list(shape)})",
                f"[{wanted}] voxels",
                f"a region within {format_roi(available_voxels)} voxels, all of {self.raw} of {self.file}",
                "Correct offset and shape; they count voxels on the absolute grid, that is nm / voxel_size",
            )
        )

    def output_file(self, output_directory: Path) -> Path:
        """Return where results of this entry go: the container as given, below ``output_directory``."""
        return output_directory / Path(self.file_as_given or self.file).expanduser()


def class_names(entries: Sequence[DataEntry], num_classes: int) -> list[str]:
    """Return a name for each class from 1 on: that of its label dataset, in the first entry that has one."""
    datasets: dict[int, str] = {}
    for entry in entries:
        for dataset, number in entry.labels.items():
            datasets.setdefault(number, dataset)
    names = {number: dataset.rstrip("/").rpartition("/")[2] for number, dataset in datasets.items()}
    return [names.get(number, f"class_{number}") for number in range(1, num_classes)]


def _labels(value: Any) -> dict[str, int]:
    allowed = 'an object of label datasets and class ids, such as {"volumes/labels/er": 1}'
    if value is None:
        return {}
    if not isinstance(value, dict) or any(type(number) is not int for number in value.values()):
        raise not_allowed(allowed)
    if not all(isinstance(name, str) and name for name in value):
        raise not_allowed(allowed)
    if sorted(value.values()) != list(range(1, len(value) + 1)):
        raise not_allowed("class ids 1, 2, … N without gaps, each for one dataset (0 is the background)")
    return dict(value)


def _names(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) and name for name in value):
        raise not_allowed('a list of datasets, such as ["volumes/metric_masks/er"]')
    return tuple(value)


class _Entry(Section):
    file: Text | None = None
    voxel_size: VoxelSizeTriple
    offset: OptionalIntegerTriple = None
    shape: OptionalPositiveTriple = None
    raw: Text
    labels: Annotated[dict[str, int], BeforeValidator(_labels)] = Field(default_factory=dict)
    mask: Text | None = None
    metric_masks: Annotated[tuple[str, ...], BeforeValidator(_names)] = ()


def load_data_config(path: Path | str, data_dir: Path | str) -> list[DataEntry]:
    """Read a data configuration, entries in the order of the file.

    Args:
        path: the JSON file.
        data_dir: folder to which `file` of an entry is relative.

    Raises:
        ConfigError: not valid JSON, or entries that cannot be used, all problems in one message.
    """
    path = Path(path)
    content = read_json(path)
    if not isinstance(content, dict) or not content:
        raise ConfigError(
            explain(f"the content of {path}", _kind(content), "an object with at least one named region",
                    'Write {"my_region": {"file": …, "voxel_size": …, "raw": …}}')
        )  # fmt: skip
    data_dir = Path(os.path.abspath(Path(data_dir).expanduser()))
    entries: list[DataEntry] = []
    problems: list[str] = []
    for nickname, values in content.items():
        try:
            entries.append(_entry(nickname, values, data_dir))
        except _ProblemsError as error:
            problems += error.problems
    if problems:
        raise ConfigError(f"{path}: " + report(problems, "entries or settings cannot be used"))
    return entries


class _ProblemsError(Exception):
    """What is wrong with one entry."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__()
        self.problems = problems


def _entry(nickname: str, values: Any, data_dir: Path) -> DataEntry:
    # The nickname becomes the name of a folder.
    if not nickname.strip() or nickname in (".", "..") or any(c in nickname for c in "/\\\0"):
        raise _ProblemsError(
            [explain("the name of an entry", repr(nickname), "a name without slashes", "Rename it")]
        )
    if not isinstance(values, Mapping):
        raise _ProblemsError(
            [explain(nickname, _kind(values), "an object with file, voxel_size and raw", "Correct the entry")]
        )
    schema = schema_of(_Entry)
    unknown = unknown_names(values, schema)
    problems = [schema.explain_unknown(name, f"entry {nickname!r}") for name in unknown]
    try:
        entry = _Entry.model_validate(without(values, unknown))
    except ValidationError as error:
        problems += explain_errors(error, _Entry, {}, prefix=f"{nickname}.")
    if problems:
        raise _ProblemsError(problems)
    file, raw = entry.file, entry.raw
    if file is None and (file := container_of(raw)) is not None:
        raw = raw[len(file) :].strip("/") or raw
    if file is None:
        raise _ProblemsError(
            [
                f"{nickname}.file is not set; allowed: a container such as cell.zarr, or `raw` with one. "
                f"{entry.raw!r} alone does not say in which file it lies."
            ]
        )

    def placed(dataset: str) -> str:
        return dataset if container_of(dataset) is None else str(data_dir / Path(dataset).expanduser())

    return DataEntry(
        nickname=nickname,
        file=data_dir / Path(file).expanduser(),
        voxel_size=entry.voxel_size,
        offset=entry.offset,
        shape=entry.shape,
        raw=placed(raw),
        labels={placed(dataset): number for dataset, number in entry.labels.items()},
        mask=None if entry.mask is None else placed(entry.mask),
        metric_masks=tuple(map(placed, entry.metric_masks)),
        file_as_given=file,
    )


def container_of(name: str) -> str | None:
    """Return the container in a dataset's name, up to the last part with the suffix of one, or None.

    >>> container_of("snemi/train.h5/main")
    'snemi/train.h5'
    """
    parts = name.rstrip("/").split("/")
    ends = [k for k, part in enumerate(parts) if part.lower().endswith(CONTAINER_SUFFIXES)]
    return "/".join(parts[: ends[-1] + 1]) if ends else None


def _kind(value: Any) -> str:
    kinds = {
        dict: "an empty object",
        list: "a list",
        str: "a text",
        bool: "true or false",
        type(None): "null",
    }
    return kinds.get(type(value), "a number")
