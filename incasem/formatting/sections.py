"""The images of a stack: which files, in which order, of which size; and the decoding of one.

A stack is a directory with one 2D image a section (TIFF or PNG), or one TIFF with a page a section. What can
be wrong with it is looked for in the headers before the first pixel is decoded.
"""

import itertools
import logging
import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from incasem.errors import ConfigError, DataError, explain

logger = logging.getLogger(__name__)

DEFAULT_REGEX = r".*_(\d+).*\.tif$"
TIFF_SUFFIXES = (".tif", ".tiff")
IMAGE_SUFFIXES = (*TIFF_SUFFIXES, ".png")
_HEADER_THREADS = 8
_NAMES_SHOWN = 5
_UNREADABLE = (
    tifffile.TiffFileError, OSError, ValueError, LookupError, TypeError, RuntimeError, struct.error,
    zlib.error,
)  # fmt: skip
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_CHANNELS = {0: 0, 2: 3, 6: 4}


@dataclass(frozen=True)
class ImageForm:
    """What all images of a stack have in common.

    Attributes:
        height: rows.
        width: columns.
        channels: 0 for grey values or labels, 3 for RGB, 4 for RGB with opacity.
        dtype: of one sample.
    """

    height: int
    width: int
    channels: int
    dtype: np.dtype

    def __str__(self) -> str:
        """``512 x 640 uint8``, for messages."""
        colour = {0: "", 3: " RGB", 4: " RGBA"}[self.channels]
        return f"{self.height} x {self.width} {self.dtype}{colour}"


@dataclass(frozen=True)
class Section:
    """One image of a stack: a file and, in a TIFF of many pages, the page."""

    path: Path
    number: int
    page: int | None = None


def is_stack(path: Path) -> bool:
    """Whether ``path`` is a TIFF or a directory that holds images."""
    if path.is_dir():
        return any(_is_image(p) for p in path.iterdir())
    return path.is_file() and path.suffix.lower() in TIFF_SUFFIXES


def find_sections(path: Path, image_regex: str = DEFAULT_REGEX) -> list[Section]:
    """Return the sections of a stack in the order of their numbers.

    Args:
        path: directory of images, or a TIFF with one page a section.
        image_regex: selects the files by name; its first group is the section's number. Where the default one
            matches no image, the last number in each image's name is taken.

    Raises:
        DataError: no image found, a number that is missing or there twice.
        ConfigError: not a regular expression with a group of digits.
    """
    if path.is_file():
        return _pages(path)
    if not path.is_dir():
        raise DataError(f"input_dir {path} does not exist; give the directory that holds the section images.")
    images = sorted(p for p in path.iterdir() if _is_image(p))
    names = sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
    numbered = _numbered_by_regex(names, image_regex)
    if not numbered and image_regex == DEFAULT_REGEX:
        numbered = _numbered_by_last_number(images)
        if numbered:
            logger.info(
                "%s: no file name matches %s; the sections are ordered by the last number in each name.",
                path,
                image_regex,
            )
    if not numbered:
        raise DataError(_nothing_found(path, names, image_regex))
    left_out = [p.name for p in images if p not in set(numbered.values())]
    if left_out:
        logger.warning(
            "%s: %d images do not match %s and are left out: %s",
            path, len(left_out), image_regex, _listed(left_out),
        )  # fmt: skip
    if len(numbered) == 1:
        only = next(iter(numbered.values()))
        if only.suffix.lower() in TIFF_SUFFIXES:
            return _pages(only)
    _refuse_gaps(path, numbered)
    return [Section(numbered[n], n) for n in sorted(numbered)]


def common_form(sections: Sequence[Section]) -> ImageForm:
    """Return the form that all sections share, from their headers alone.

    Raises:
        DataError: naming the images that cannot be read, are cut off, or differ from the first.
    """
    if sections[0].page is not None:
        with _opened_tiff(sections[0].path) as tiff:
            forms = [_tiff_form(tiff.pages[s.page or 0], s) for s in sections]
    else:
        with ThreadPoolExecutor(_HEADER_THREADS) as threads:
            forms = list(threads.map(_form, sections))
    different = [i for i, form in enumerate(forms) if form != forms[0]]
    if different:
        shown = ", ".join(f"{_name(sections[i])}: {forms[i]}" for i in different[:_NAMES_SHOWN])
        raise DataError(
            f"the images of {sections[0].path.parent} differ in size or type: "
            f"{_name(sections[0])} is {forms[0]}, but {shown}"
            f"{' …' if len(different) > _NAMES_SHOWN else ''} ({len(different)} of {len(sections)} differ). "
            "All images of a stack must have one size and one type."
        )
    return forms[0]


def decoded(sections: Sequence[Section], form: ImageForm) -> Iterator[NDArray[Any]]:
    """Decode sections one after the other.

    Yields:
        image_YX of ``form.dtype``, or image_YXC with three channels (opacity is dropped).

    Raises:
        DataError: naming the image that cannot be decoded or has another form by now.
    """
    tiff: tifffile.TiffFile | None = None
    try:
        for section in sections:
            if section.page is None:
                image = decode_image(section)
            else:
                tiff = tiff or _opened_tiff(section.path)
                image = _decode_page(tiff.pages[section.page], section)
            expected = (form.height, form.width) + ((min(form.channels, 3),) if form.channels else ())
            if image.shape != expected or image.dtype != form.dtype:
                raise DataError(
                    f"{_name(section)} is now {image.shape} {image.dtype}, its header said {form}. "
                    "Is something still writing to the input? Run again when it is complete."
                )
            yield image
    finally:
        if tiff is not None:
            tiff.close()


def decode_image(section: Section) -> NDArray[Any]:
    """Decode the image of a file that holds one section; image_YX or image_YXC."""
    if section.path.suffix.lower() in TIFF_SUFFIXES:
        with _opened_tiff(section.path) as tiff:
            return _decode_page(tiff.pages[0], section)
    import imagecodecs

    try:
        image = imagecodecs.png_decode(section.path.read_bytes())
    except _UNREADABLE as error:
        raise _unreadable(section, error) from error
    return image[..., :3] if image.ndim == 3 else image


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()


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


def _numbered_by_last_number(paths: Sequence[Path]) -> dict[int, Path]:
    numbered: dict[int, Path] = {}
    for path in paths:
        numbers = re.findall(r"\d+", path.stem)
        if numbers:
            _add(numbered, int(numbers[-1]), path)
    # A lone stack.tif needs no number.
    return numbered or ({0: paths[0]} if len(paths) == 1 else {})


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
            for before, after in missing[:_NAMES_SHOWN]
        )
        raise DataError(
            f"{directory}: section numbers are missing: {shown}"
            f"{' …' if len(missing) > _NAMES_SHOWN else ''}. Allowed: numbers without gaps. "
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
    return ", ".join(names[:_NAMES_SHOWN]) + (f" … ({len(names)} files)" if len(names) > _NAMES_SHOWN else "")


def _pages(path: Path) -> list[Section]:
    with _opened_tiff(path) as tiff:
        pages = len(tiff.pages)
        images = int((tiff.imagej_metadata or {}).get("images", pages))
    if pages == 1 and images > 1:
        raise DataError(
            f"{path} is an ImageJ stack of {images} images behind one header (larger than 4 GB); "
            "allowed: one header a page. Save it in Fiji as an image sequence and give that directory."
        )
    return [Section(path, n, page=n if pages > 1 else None) for n in range(pages)]


def _opened_tiff(path: Path) -> tifffile.TiffFile:
    try:
        return tifffile.TiffFile(path)
    except _UNREADABLE as error:
        raise _unreadable(Section(path, 0), error) from error


def _form(section: Section) -> ImageForm:
    if section.path.suffix.lower() not in TIFF_SUFFIXES:
        return _png_form(section)
    with _opened_tiff(section.path) as tiff:
        try:
            pages, first = len(tiff.pages), tiff.pages[0]
            stacked = pages > 1 and not tiff.pages[1].is_reduced
        except _UNREADABLE as error:
            raise _unreadable(section, error) from error
        if stacked:
            raise DataError(
                f"{section.path} holds {pages} pages; allowed: one image a file, or one file with all pages. "
                "Give that file alone as the input."
            )
        return _tiff_form(first, section)


def _tiff_form(page: tifffile.TiffPage, section: Section) -> ImageForm:
    try:
        if not isinstance(page, tifffile.TiffPage):
            page = page.aspage()
        stored_bytes = page.parent.filehandle.size
        end = max((o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=True)), default=0)
        height, width, channels = page.imagelength, page.imagewidth, page.samplesperpixel
        dtype = page.dtype
    except _UNREADABLE as error:
        raise _unreadable(section, error) from error
    if end > stored_bytes:
        raise DataError(
            f"{_name(section)} is cut off: its pixels end at byte {end}, the file at byte {stored_bytes}. "
            "Copy it again from the microscope's storage."
        )
    if dtype is None or channels not in (1, 3, 4) or page.imagedepth != 1:
        raise DataError(
            f"{_name(section)} has {channels} channels of type {page.dtype}; allowed: grey, RGB or RGBA."
        )
    return ImageForm(height, width, 0 if channels == 1 else channels, np.dtype(dtype).newbyteorder("="))


def _png_form(section: Section) -> ImageForm:
    try:
        with section.path.open("rb") as file:
            head = file.read(26)
        if head[:8] != _PNG_SIGNATURE:
            raise ValueError("it does not begin as a PNG does")
        width, height, bits, colour = struct.unpack(">IIBB", head[16:26])
    except _UNREADABLE as error:
        raise _unreadable(section, error) from error
    if bits not in (8, 16) or colour not in _PNG_CHANNELS:
        raise DataError(
            f"{_name(section)} has {bits} bits a sample and PNG colour type {colour}; allowed: 8 or 16 bits, "
            "grey, RGB or RGBA. Save it as TIFF."
        )
    return ImageForm(height, width, _PNG_CHANNELS[colour], np.dtype(f"uint{bits}"))


def _decode_page(page: tifffile.TiffPage, section: Section) -> NDArray[Any]:
    try:
        if not isinstance(page, tifffile.TiffPage):
            page = page.aspage()
        image = np.asarray(page.asarray())
    except _UNREADABLE as error:
        raise _unreadable(section, error) from error
    if page.axes == "SYX":
        image = np.moveaxis(image, 0, -1)
    if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE and image.dtype.kind in "ub":
        # Stored as 0 = white; viewers show, and the published code read, the grey that is meant.
        image = np.invert(image)
    return image[..., :3] if image.ndim == 3 else image


def _unreadable(section: Section, error: Exception) -> DataError:
    return DataError(
        f"{_name(section)} cannot be read as an image ({type(error).__name__}: {error}). "
        "Restore the file, or replace it by a copy of its neighbour."
    )


def _name(section: Section) -> str:
    return str(section.path) if section.page is None else f"page {section.page} of {section.path}"
