"""Image stacks: a directory with one TIFF or PNG a section, or one TIFF with a page a section. Read-only.

Sections follow the number in the file name (``img_2`` before ``img_10``). A gap, a number given twice, or
images of different size or dtype are errors when the stack is opened, before anything is converted. Pixels
come as they are stored: no scaling, no change of dtype.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from incasem.errors import DataError
from incasem.volumes.sections import PNG_SUFFIXES, Section, find_sections, opened_tiff
from incasem.volumes.store import Index, Place


def _header(section: Section) -> tuple[tuple[int, ...], str]:
    """Return shape and dtype of an image without decoding it (of a PNG, in its own terms)."""
    if section.path.suffix.lower() in PNG_SUFFIXES:
        content = section.path.read_bytes()[:26]
        if len(content) < 26 or content[:8] != b"\x89PNG\r\n\x1a\n":
            raise DataError(f"{section.path} is not a PNG image. Restore it from a copy.")
        size = (int.from_bytes(content[20:24], "big"), int.from_bytes(content[16:20], "big"))
        return size, f"PNG of {content[24]} bits, colour type {content[25]}"
    with opened_tiff(section.path) as tiff:
        page = tiff.pages[section.page or 0]
        return tuple(int(n) for n in page.shape), str(page.dtype)


def _decode(section: Section) -> NDArray[Any]:
    try:
        if section.path.suffix.lower() in PNG_SUFFIXES:
            import imagecodecs

            image = np.asarray(imagecodecs.png_decode(section.path.read_bytes()))
        else:
            with opened_tiff(section.path) as tiff:
                image = np.asarray(tiff.pages[section.page or 0].asarray())
    except (OSError, ValueError, RuntimeError, TypeError) as error:
        raise DataError(f"{section.path} cannot be decoded: {error}. Restore it from a copy.") from error
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
        self.sections = find_sections(Path(path), pattern)
        first = _header(self.sections[0])
        for section in self.sections[1:]:
            header = _header(section)
            if header != first:
                raise DataError(
                    f"images of the stack {path} differ: {self.sections[0].path} is {first[0]}, {first[1]}; "
                    f"{section.path} is {header[0]}, {header[1]}. All must have one size and dtype."
                )
        image = _decode(self.sections[0])
        if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] > 4):
            raise DataError(
                f"{self.sections[0].path} has shape {image.shape}; allowed: grey or colour images."
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
                    f"{section.path} is {image.shape}, {image.dtype}: changed since the stack was opened."
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
        files = sorted({section.path for section in self.sections})
        return {
            "sections": len(self.sections),
            "first": files[0].name,
            "last": files[-1].name,
            "mtime_ns": max(file.stat().st_mtime_ns for file in files),
        }
