"""Image stacks: a directory with one TIFF or PNG a section, or one TIFF with a page a section. Read-only.

Sections follow the number in the file name (``img_2`` before ``img_10``). A gap, a number given twice, or
images of different size or dtype are errors when the stack is opened, before anything is converted. Pixels
come as they are stored: no scaling, no change of dtype.
"""

import logging
import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from incasem.errors import DataError
from incasem.volumes.store import Index, Place

logger = logging.getLogger(__name__)

TIFF_SUFFIXES = (".tif", ".tiff")
PNG_SUFFIXES = (".png",)
_SUFFIXES = TIFF_SUFFIXES + PNG_SUFFIXES
_SHOWN = 10


@dataclass(frozen=True)
class Section:
    """One image: a page of a file, and its number in the stack."""

    file: str
    page: int
    number: int


def is_stack(path: str) -> bool:
    """Tell whether ``path`` is a TIFF file, or a directory that holds TIFF or PNG images."""
    if path.lower().endswith(TIFF_SUFFIXES):
        return os.path.isfile(path)
    if not os.path.isdir(path):
        return False
    with os.scandir(path) as entries:
        return any(_is_image(entry.name) for entry in entries)


def _is_image(name: str) -> bool:
    return name.lower().endswith(_SUFFIXES) and not name.startswith(".")


def find_sections(path: str, pattern: str | None = None) -> list[Section]:
    """Return the sections of a stack in order.

    Args:
        path: a directory, or one TIFF file.
        pattern: regular expression, matched from a file name's start, whose first group is the section number
            (published default: ``.*_(\\d+).*\\.tif$``). None takes all TIFF and PNG files and the one number
            in which their names differ.

    Raises:
        DataError: no images, names that do not tell the order, numbers missing or given twice.
    """
    if os.path.isfile(path):
        return [Section(path, page, page) for page in range(_page_count(path))]
    if not os.path.isdir(path):
        raise DataError(f"{path} does not exist. Check the path of the image stack.")
    names = sorted(name for name in os.listdir(path) if not name.startswith("."))
    numbers = (
        _numbers_by_pattern(names, pattern, path) if pattern is not None else _numbers_by_name(names, path)
    )
    _check_numbers(numbers, path)
    ordered = sorted(numbers.items(), key=lambda item: item[1])
    return [Section(os.path.join(path, name), 0, number) for name, number in ordered]


def _numbers_by_pattern(names: list[str], pattern: str, path: str) -> dict[str, int]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise DataError(
            f"image regex is {pattern!r}; allowed: a regular expression ({error}). Correct it."
        ) from error
    if compiled.groups < 1:
        raise DataError(
            f"image regex is {pattern!r}; allowed: one group, the section number. Put (\\d+) into it."
        )
    matches = {name: match for name in names if (match := compiled.match(name))}
    if not matches:
        raise DataError(f"no file in {path} matches the image regex {pattern!r}. It holds: {_some(names)}.")
    try:
        return {name: int(match[1]) for name, match in matches.items()}
    except (TypeError, ValueError) as error:
        raise DataError(
            f"the first group of the image regex {pattern!r} does not give whole numbers: {error}."
        ) from error


def _numbers_by_name(names: list[str], path: str) -> dict[str, int]:
    images = [name for name in names if _is_image(name)]
    if not images:
        raise DataError(f"{path} holds no TIFF or PNG images. Check the path of the image stack.")
    texts = Counter(re.sub(r"\d+", "#", name) for name in images)
    usual = texts.most_common(1)[0][0]
    odd = [name for name in images if re.sub(r"\d+", "#", name) != usual]
    if odd:
        regular = next(name for name in images if name not in odd)
        raise DataError(
            f"images in {path} are named in {len(texts)} ways, for example {regular} and {odd[0]}. "
            "Move those that are no sections away, or give an image regex."
        )
    digits = {name: [int(number) for number in re.findall(r"\d+", name)] for name in images}
    columns = list(zip(*digits.values(), strict=True))
    varying = [i for i, column in enumerate(columns) if len(set(column)) > 1]
    if len(images) == 1:
        varying = [len(columns) - 1] if columns else []
        if not varying:
            return {images[0]: 0}
    if not varying and columns:  # 1.tif beside 01.tif
        varying = [len(columns) - 1]
    if len(varying) != 1:
        raise DataError(
            f"the order of the images in {path} is not clear: their names differ in {len(varying)} numbers "
            f"({images[0]}, {images[-1]}). Give an image regex whose first group is the section number."
        )
    return {name: numbers[varying[0]] for name, numbers in digits.items()}


def _check_numbers(numbers: dict[str, int], path: str) -> None:
    twice = [number for number, count in Counter(numbers.values()).items() if count > 1]
    if twice:
        files = [name for name, number in numbers.items() if number == twice[0]]
        raise DataError(
            f"section {twice[0]} of {path} is given {len(files)} times: {_some(files)}. Keep one of them."
        )
    first, last = min(numbers.values()), max(numbers.values())
    if last - first + 1 != len(numbers):
        present = set(numbers.values())
        gaps = [number for number in range(first, last + 1) if number not in present]
        raise DataError(
            f"{len(gaps)} of the sections {first} to {last} of {path} are missing: {_some(map(str, gaps))}. "
            "Add them (for example copies of a neighbour), or convert the parts before and after separately."
        )


def _some(names: Any) -> str:
    listed = list(names)
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return ", ".join(listed[:_SHOWN]) + more


def _page_count(path: str) -> int:
    with _tiff(path) as tiff:
        return len(tiff.pages)


def _tiff(path: str) -> Any:
    import tifffile

    try:
        return tifffile.TiffFile(path)
    except (OSError, ValueError, tifffile.TiffFileError) as error:
        raise DataError(f"{path} cannot be read as TIFF: {error}. Restore it from a copy.") from error


def _header(section: Section) -> tuple[tuple[int, ...], str]:
    """Return shape and dtype of an image without decoding it (of a PNG, in its own terms)."""
    if section.file.lower().endswith(PNG_SUFFIXES):
        content = Path(section.file).read_bytes()[:26]
        if len(content) < 26 or content[:8] != b"\x89PNG\r\n\x1a\n":
            raise DataError(f"{section.file} is not a PNG image. Restore it from a copy.")
        size = (int.from_bytes(content[20:24], "big"), int.from_bytes(content[16:20], "big"))
        return size, f"PNG of {content[24]} bits, colour type {content[25]}"
    with _tiff(section.file) as tiff:
        page = tiff.pages[section.page]
        return tuple(int(n) for n in page.shape), str(page.dtype)


def _decode(section: Section) -> NDArray[Any]:
    try:
        if section.file.lower().endswith(PNG_SUFFIXES):
            import imagecodecs

            image = np.asarray(imagecodecs.png_decode(Path(section.file).read_bytes()))
        else:
            with _tiff(section.file) as tiff:
                image = np.asarray(tiff.pages[section.page].asarray())
    except (OSError, ValueError, RuntimeError, TypeError) as error:
        raise DataError(f"{section.file} cannot be decoded: {error}. Restore it from a copy.") from error
    return image.astype(image.dtype.newbyteorder("="), copy=False)


class ImageStack:
    """A stack of images; see `Store`. Grey images are z, y, x; colour images c, z, y, x."""

    concurrent_writers = False
    writable = False

    def __init__(self, path: str, pattern: str | None = None) -> None:
        """Find the sections and compare their headers; one image is decoded.

        Raises:
            DataError: see `find_sections`; images of different size or dtype, or none that can be decoded.
        """
        self.path, self.attributes = path, dict[str, Any]()
        self.sections = find_sections(path, pattern)
        first = _header(self.sections[0])
        for section in self.sections[1:]:
            header = _header(section)
            if header != first:
                raise DataError(
                    f"images of the stack {path} differ: {self.sections[0].file} is {first[0]}, {first[1]}; "
                    f"{section.file} is {header[0]}, {header[1]}. All must have one size and dtype."
                )
        image = _decode(self.sections[0])
        if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] > 4):
            raise DataError(
                f"{self.sections[0].file} has shape {image.shape}; allowed: grey or colour images."
            )
        self._image_shape, self.dtype = image.shape, image.dtype
        self.is_colour = image.ndim == 3
        channels = (image.shape[2],) if self.is_colour else ()
        axes = ("c", "z", "y", "x") if self.is_colour else ("z", "y", "x")
        self.shape = (*channels, len(self.sections), *image.shape[:2])
        self.chunk_shape = self.unit_shape = (*channels, 1, *image.shape[:2])
        self.place = Place(axes, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), stated=False)

    def read(self, index: Index) -> NDArray[Any]:
        """Return the elements at ``index``; each section in it is decoded once."""
        *_, sections, rows, columns = index
        result = np.empty([s.stop - s.start for s in index], dtype=self.dtype)
        for target, section in enumerate(self.sections[sections]):
            image = _decode(section)
            if image.shape != self._image_shape or image.dtype != self.dtype:
                raise DataError(
                    f"{section.file} is {image.shape}, {image.dtype}: changed since the stack was opened."
                )
            if self.is_colour:
                result[:, target] = np.moveaxis(image[rows, columns, index[0]], -1, 0)
            else:
                result[target] = image[rows, columns]
        return result

    def write(self, index: Index, array: NDArray[Any]) -> None:
        """Refuse: image stacks are input."""
        raise DataError(f"{self.path} is an image stack, which is read-only. Write to a .zarr container.")

    def update_attributes(self, changes: dict[str, Any]) -> None:
        """Refuse: images have no place for them."""
        raise DataError(f"{self.path} is an image stack and has no attributes. Write to a .zarr container.")

    def missing_units(self, index: Index) -> list[Index]:
        """Return nothing: gaps are refused when the stack is opened."""
        return []

    def fingerprint(self) -> dict[str, object]:
        """Return number, names and newest time of the images."""
        files = sorted({section.file for section in self.sections})
        return {
            "sections": len(self.sections),
            "first": os.path.basename(files[0]),
            "last": os.path.basename(files[-1]),
            "mtime_ns": max(os.stat(file).st_mtime_ns for file in files),
        }
