"""What the images of a stack look like, and the decoding of one.

Which images they are, `incasem.volumes.sections` finds. What can be wrong with them is looked for in the
headers before the first pixel is decoded.
"""

import struct
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from incasem.errors import DataError
from incasem.volumes.sections import DAMAGED, NAMES_SHOWN, TIFF_SUFFIXES, Section, opened_tiff, unreadable

_HEADER_THREADS = 8
_UNREADABLE = (*DAMAGED, tifffile.TiffFileError)
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


def common_form(sections: Sequence[Section]) -> ImageForm:
    """Return the form that all sections share, from their headers alone.

    Raises:
        DataError: naming the images that cannot be read, are cut off, or differ from the first.
    """
    if sections[0].page is not None:
        with opened_tiff(sections[0].path) as tiff:
            forms = [_tiff_form(tiff.pages[s.page or 0], s) for s in sections]
    else:
        with ThreadPoolExecutor(_HEADER_THREADS) as threads:
            forms = list(threads.map(_form, sections))
    different = [i for i, form in enumerate(forms) if form != forms[0]]
    if different:
        shown = ", ".join(f"{sections[i].name}: {forms[i]}" for i in different[:NAMES_SHOWN])
        raise DataError(
            f"the images of {sections[0].path.parent} differ in size or type: "
            f"{sections[0].name} is {forms[0]}, but {shown}"
            f"{' …' if len(different) > NAMES_SHOWN else ''} ({len(different)} of {len(sections)} differ). "
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
                tiff = tiff or opened_tiff(section.path)
                image = _decode_page(tiff.pages[section.page], section)
            expected = (form.height, form.width) + ((min(form.channels, 3),) if form.channels else ())
            if image.shape != expected or image.dtype != form.dtype:
                raise DataError(
                    f"{section.name} is now {image.shape} {image.dtype}, its header said {form}. "
                    "Is something still writing to the input? Run again when it is complete."
                )
            yield image
    finally:
        if tiff is not None:
            tiff.close()


def decode_image(section: Section) -> NDArray[Any]:
    """Decode the image of a file that holds one section; image_YX or image_YXC."""
    if section.path.suffix.lower() in TIFF_SUFFIXES:
        with opened_tiff(section.path) as tiff:
            return _decode_page(tiff.pages[0], section)
    import imagecodecs

    try:
        image = imagecodecs.png_decode(section.path.read_bytes())
    except _UNREADABLE as error:
        raise unreadable(section, error) from error
    return image[..., :3] if image.ndim == 3 else image


def _form(section: Section) -> ImageForm:
    if section.path.suffix.lower() not in TIFF_SUFFIXES:
        return _png_form(section)
    with opened_tiff(section.path) as tiff:
        try:
            pages, first = len(tiff.pages), tiff.pages[0]
            stacked = pages > 1 and not tiff.pages[1].is_reduced
        except _UNREADABLE as error:
            raise unreadable(section, error) from error
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
        raise unreadable(section, error) from error
    if end > stored_bytes:
        raise DataError(
            f"{section.name} is cut off: its pixels end at byte {end}, the file at byte {stored_bytes}. "
            "Copy it again from the microscope's storage."
        )
    if dtype is None or channels not in (1, 3, 4) or page.imagedepth != 1:
        raise DataError(
            f"{section.name} has {channels} channels of type {page.dtype}; allowed: grey, RGB or RGBA."
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
        raise unreadable(section, error) from error
    if bits not in (8, 16) or colour not in _PNG_CHANNELS:
        raise DataError(
            f"{section.name} has {bits} bits a sample and PNG colour type {colour}; allowed: 8 or 16 bits, "
            "grey, RGB or RGBA. Save it as TIFF."
        )
    return ImageForm(height, width, _PNG_CHANNELS[colour], np.dtype(f"uint{bits}"))


def _decode_page(page: tifffile.TiffPage, section: Section) -> NDArray[Any]:
    try:
        if not isinstance(page, tifffile.TiffPage):
            page = page.aspage()
        image = np.asarray(page.asarray())
    except _UNREADABLE as error:
        raise unreadable(section, error) from error
    if page.axes == "SYX":
        image = np.moveaxis(image, 0, -1)
    if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE and image.dtype.kind in "ub":
        # Stored as 0 = white; viewers show, and the published code read, the grey that is meant.
        image = np.invert(image)
    return image[..., :3] if image.ndim == 3 else image
