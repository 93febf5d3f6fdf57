"""What the words after ``-d`` mean: arrays, groups, pyramids and slices.

```
volumes/raw            an array, or a group: all arrays below it
/volumes/raw           the same
volumes/raw            with s0, s1, … in it (OME-NGFF: 0, 1, …): one array at several resolutions
volumes/raw[10:20]     part of it; indices count elements of the array, as in Python
prob_maps[1]           of an array with channels, one of them
```
"""

import os
import re
from dataclasses import dataclass

from incasem.errors import ConfigError, explain
from incasem.volumes import list_datasets, open_volume, split_path
from incasem.volumes.ngff_groups import group_multiscales

Selection = tuple[int | slice, ...]

_NAME = re.compile(r"(?P<name>[^\[\]]*)(?:\[(?P<indices>[^\[\]]*)\])?")
_INDEX = re.compile(r"\s*(?:(?P<one>-?\d+)|(?P<start>-?\d+)?\s*:\s*(?P<stop>-?\d+)?)\s*")
_LEVEL = re.compile(r"(?:(?P<group>.*)/)?(?P<letter>s?)(?P<level>\d+)")


@dataclass(frozen=True)
class Dataset:
    """One thing to show.

    Attributes:
        file: the container.
        name: of the array, or of the group whose arrays are its levels; empty for the container itself.
        levels: paths of its arrays, the finest first; one without a pyramid.
        selection: indices of the array's first axes; empty for all of it.
    """

    file: str
    name: str
    levels: tuple[str, ...]
    selection: Selection = ()

    @property
    def path(self) -> str:
        """Container and name, as a message would say it."""
        return os.path.join(self.file, self.name) if self.name else self.file


def find_datasets(file: str, word: str = "") -> list[Dataset]:
    """Return what ``word`` means in a container, in natural order.

    Args:
        file: a container that `open_volume` takes, or a group in it; a URL stands for one array.
        word: array, group or pyramid, with indices in brackets; empty: everything in the container.

    Raises:
        ConfigError: brackets that are no indices.
        DataError: there is nothing of this name; the message lists what there is.
    """
    name, selection = parse_word(word)
    path = os.path.join(file, name) if name else file
    found = list_datasets(path)
    if found in ([], [""]):
        open_volume(path)  # names what is missing, and takes what cannot be listed (a URL has no listing)
        return [Dataset(file, name, (path,), selection)]
    _, inside = split_path(file)
    pyramids: dict[str, list[str]] = {}
    for below in found:
        group = _pyramid_of(below, found, path)
        pyramids.setdefault(below if group is None else group, []).append(below)
    return [
        Dataset(
            file,
            _joined(name, shown) or inside,
            tuple(os.path.join(path, level) for level in sorted(levels, key=_level_of)),
            selection,
        )
        for shown, levels in pyramids.items()
    ]


def _joined(*parts: str) -> str:
    return "/".join(part for part in parts if part)


def _pyramid_of(below: str, found: list[str], path: str) -> str | None:
    """Return the group that holds ``below`` as one of its levels, else None.

    The levels are s0, s1, …, or 0, 1, … where the group says (`multiscales`) that these are levels.
    """
    matched = _LEVEL.fullmatch(below)
    if matched is None:
        return None
    group = matched["group"] or ""
    finest = f"{matched['letter']}0"
    if _joined(group, finest) not in found:
        return None
    if matched["letter"]:
        return group
    stated = group_multiscales(os.path.join(path, group))
    listed = [d.get("path") for image in stated or [] for d in image.get("datasets", [])]
    return group if finest in listed else None


def _level_of(path: str) -> int:
    matched = _LEVEL.fullmatch(path)
    return int(matched["level"]) if matched is not None else 0


def parse_word(word: str) -> tuple[str, Selection]:
    """Split ``volumes/raw[3, 0:10]`` into a name and the indices of its first axes.

    Raises:
        ConfigError: not of this form.
    """
    matched = _NAME.fullmatch(word)
    if matched is None:
        raise _not_indices(word)
    name = matched["name"].strip("/")
    if matched["indices"] is None:
        return name, ()
    return name, tuple(_index(part, word) for part in matched["indices"].split(","))


def _index(text: str, word: str) -> int | slice:
    matched = _INDEX.fullmatch(text)
    if matched is None:
        raise _not_indices(word)
    if matched["one"] is not None:
        return int(matched["one"])
    start, stop = (None if part is None else int(part) for part in (matched["start"], matched["stop"]))
    return slice(start, stop)


def _not_indices(word: str) -> ConfigError:
    return ConfigError(
        explain(
            "a dataset",
            word,
            "a name, or a name with indices and ranges: volumes/raw[3], volumes/raw[0:100, :, 50]",
            "Correct it, and put it in quotation marks",
        )
    )
