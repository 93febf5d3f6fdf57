"""The images of a stack: which files, and in which order.

A stack is a directory with one 2D image a section (TIFF or PNG), or one TIFF with a page a section. Sections
follow the number in the file name (``img_2`` before ``img_10``); a gap, or a number given twice, is an error.
"""

import itertools
import logging
import re
import struct
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from incasem.errors import ConfigError, DataError, explain

logger = logging.getLogger(__name__)

DEFAULT_REGEX = r".*_(\d+).*\.tif$"
TIFF_SUFFIXES = (".tif", ".tiff")
PNG_SUFFIXES = (".png",)
IMAGE_SUFFIXES = TIFF_SUFFIXES + PNG_SUFFIXES
DAMAGED = (OSError, ValueError, LookupError, TypeError, RuntimeError, struct.error, zlib.error)
"""What decoders raise for files that are damaged or no images, beside their own errors."""
NAMES_SHOWN = 5


@dataclass(frozen=True)
class Section:
    """One image of a stack: a file and, in a TIFF of many pages, the page."""

    path: Path
    number: int
    page: int | None = None

    @property
    def name(self) -> str:
        """What messages call it."""
        return str(self.path) if self.page is None else f"page {self.page} of {self.path}"


def is_stack(path: Path) -> bool:
    """Whether ``path`` is a TIFF or a directory that holds images."""
    if path.is_dir():
        return any(_is_image(p) for p in path.iterdir())
    return path.is_file() and path.suffix.lower() in TIFF_SUFFIXES


def find_sections(path: Path, image_regex: str | None = DEFAULT_REGEX) -> list[Section]:
    """Return the sections of a stack in the order of their numbers.

    Args:
        path: directory of images, or a TIFF with one page a section.
        image_regex: selects the files by name; its first group is the section's number. None, or the default
            one where it matches no file: all images, by the one number in which their names differ.

    Raises:
        DataError: no image found, names that do not tell the order, a number that is missing or there twice.
        ConfigError: not a regular expression with a group of digits.
    """
    if path.is_file():
        return _pages(path)
    if not path.is_dir():
        raise DataError(f"{path} does not exist. Give the directory that holds the section images.")
    names = sorted(p for p in path.iterdir() if _is_visible_file(p))
    images = [p for p in names if p.suffix.lower() in IMAGE_SUFFIXES]
    numbered = {} if image_regex is None else _numbered_by_regex(names, image_regex)
    if not numbered and image_regex in (None, DEFAULT_REGEX):
        numbered = _numbered_by_name(images, path)
        logger.info("%s: the sections are ordered by the number in which their names differ", path)
    if not numbered:
        raise DataError(_nothing_found(path, names, str(image_regex)))
    taken = set(numbered.values())
    left_out = [p.name for p in images if p not in taken]
    if left_out:
        logger.warning(
            "%s: what does not match %s is left out: %s", path, image_regex, _listed(left_out),
        )  # fmt: skip
    if len(numbered) == 1:
        only = next(iter(numbered.values()))
        if only.suffix.lower() in TIFF_SUFFIXES:
            return _pages(only)
    _refuse_gaps(path, numbered)
    return [Section(numbered[n], n) for n in sorted(numbered)]


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and _is_visible_file(path)


def _is_visible_file(path: Path) -> bool:
    return not path.name.startswith(".") and path.is_file()


def _numbered_by_regex(paths: Sequence[Path], image_regex: str) -> dict[int, Path]:
    try:
        pattern = re.compile(image_regex)
    except re.error as error:
        raise ConfigError(
            explain("image_regex", image_regex, "a regular expression", f"It cannot be read: {error}")
        ) from error
    if pattern.groups < 1:
        raise ConfigError(
            explain(
                "image_regex",
                image_regex,
                r"one group for the section number, such as (\d+)",
                f"The default is {DEFAULT_REGEX}",
            )
        )
    numbered: dict[int, Path] = {}
    for path in paths:
        match = pattern.search(path.name)
        if match is None:
            continue
        digits = match.group(1)
        if digits is None or not digits.isdecimal():
            raise ConfigError(
                explain(
                    "image_regex",
                    image_regex,
                    "a first group of digits",
                    f"In {path.name} the group is {digits!r}",
                )
            )
        _add(numbered, int(digits), path)
    return numbered


def _numbered_by_name(images: Sequence[Path], directory: Path) -> dict[int, Path]:
    """Number images by the one number in which their names differ; a lone image needs none."""
    if not images:
        raise DataError(f"{directory} holds no TIFF or PNG images. Check the path of the image stack.")
    patterns = Counter(re.sub(r"\d+", "#", image.name) for image in images)
    usual = patterns.most_common(1)[0][0]
    odd = [image.name for image in images if re.sub(r"\d+", "#", image.name) != usual]
    if odd:
        regular = next(image.name for image in images if image.name not in odd)
        raise DataError(
            f"images in {directory} are named in {len(patterns)} ways, for example {regular} and {odd[0]}. "
            "Move those that are no sections away, or give an image regex."
        )
    if len(images) == 1:
        return {0: images[0]}
    numbers = [[int(digits) for digits in re.findall(r"\d+", image.name)] for image in images]
    columns = list(zip(*numbers, strict=True))
    varying = [i for i, column in enumerate(columns) if len(set(column)) > 1]
    if not varying:  # 1.tif beside 01.tif
        varying = [len(columns) - 1]
    if len(varying) > 1:
        raise DataError(
            f"the order of the images in {directory} is not clear: their names differ in {len(varying)} "
            f"numbers ({images[0].name}, {images[-1].name}). Give an image regex whose first group is the "
            "section number."
        )
    numbered: dict[int, Path] = {}
    for image, found in zip(images, numbers, strict=True):
        _add(numbered, found[varying[0]], image)
    return numbered


def _add(numbered: dict[int, Path], number: int, path: Path) -> None:
    if number in numbered:
        raise DataError(
            f"{numbered[number].name} and {path.name} in {path.parent} both have section number {number}; "
            "allowed: one image a number. Remove one, or give an --image_regex that selects the right ones."
        )
    numbered[number] = path


def _refuse_gaps(directory: Path, numbered: dict[int, Path]) -> None:
    numbers = sorted(numbered)
    missing = [(before, after) for before, after in itertools.pairwise(numbers) if after != before + 1]
    if missing:
        shown = "; ".join(
            f"{_span(before + 1, after - 1)} between {numbered[before].name} and {numbered[after].name}"
            for before, after in missing[:NAMES_SHOWN]
        )
        raise DataError(
            f"{directory}: section numbers are missing: {shown}"
            f"{' …' if len(missing) > NAMES_SHOWN else ''}. Allowed: numbers without gaps. "
            "Restore the images, or copy a neighbour in their place."
        )


def _span(first: int, last: int) -> str:
    return str(first) if first == last else f"{first} to {last}"


def _nothing_found(directory: Path, names: Sequence[Path], image_regex: str) -> str:
    examples = _listed([p.name for p in names]) if names else "nothing"
    return explain(
        "image_regex",
        image_regex,
        f"an expression that matches file names of {directory}, with the section number as first group",
        f"The directory holds {examples}. Images may be TIFF or PNG",
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMES_SHOWN]) + (f" … ({len(names)} files)" if len(names) > NAMES_SHOWN else "")


def _pages(path: Path) -> list[Section]:
    with opened_tiff(path) as tiff:
        pages = len(tiff.pages)
        images = int((tiff.imagej_metadata or {}).get("images", pages))
    if pages == 1 and images > 1:
        raise DataError(
            f"{path} is an ImageJ stack of {images} images behind one header (larger than 4 GB); "
            "allowed: one header a page. Save it in Fiji as an image sequence and give that directory."
        )
    return [Section(path, n, page=n if pages > 1 else None) for n in range(pages)]


def opened_tiff(path: Path) -> Any:
    """Open a TIFF (a `tifffile.TiffFile`); a damaged one, or no TIFF at all, is a DataError that names it."""
    import tifffile

    try:
        return tifffile.TiffFile(path)
    except (*DAMAGED, tifffile.TiffFileError) as error:
        raise unreadable(Section(path, 0), error) from error


def unreadable(section: Section, error: Exception) -> DataError:
    """Return the error for an image that cannot be read."""
    return DataError(
        f"{section.name} cannot be read as an image ({type(error).__name__}: {error}). "
        "Restore the file, or replace it by a copy of its neighbour."
    )
