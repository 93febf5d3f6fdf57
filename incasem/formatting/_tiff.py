"""TIFF images that ImageJ and Fiji open with their voxel size: pixel types, description, and the big file."""

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from incasem.blockwise import Grid, default_block_shape
from incasem.durable import sync, write_durably
from incasem.errors import DataError, explain
from incasem.geometry import Coordinate, Roi
from incasem.volumes import Volume

CLASSIC_BYTES = 2**32 - 2**25
"""Larger files are BigTIFF; smaller ones, which every program opens, are not."""

IMAGEJ_EXACT = 2**24
"""ImageJ shows 32-bit integers as floats, which are exact up to here."""

_LARGEST = 2**32 - 1


def lossless_dtype(dtype: np.dtype[Any], low: int, high: int, name: str) -> np.dtype[Any]:
    """Return the smallest type of TIFF pixels that holds every value: 8, 16 or 32 bits, or 32-bit floats.

    Args:
        dtype: of the data.
        low, high: smallest and largest value; not used for floats.
        name: of the dataset, for messages.

    Raises:
        DataError: negative values, numbers beyond 32 bits, or floats of 64 bits.
    """
    if dtype.kind == "f":
        if dtype.itemsize > 4:
            raise DataError(explain(f"the dtype of {name}", dtype, "float32 and smaller", "Convert it first"))
        return np.dtype(np.float32)
    if low < 0 or high > _LARGEST:
        raise DataError(
            explain(
                f"the values of {name}",
                f"{low} to {high}",
                f"0 to {_LARGEST} (TIFF has no larger integers that viewers read)",
                "Number the labels anew, or export with --values labels",
            )
        )
    return np.dtype(np.uint8 if high < 2**8 else np.uint16 if high < 2**16 else np.uint32)


def value_range(source: Volume) -> tuple[int, int]:
    """Return the smallest and the largest value of integers, reading block by block."""
    if source.dtype.kind == "f":
        return (0, 0)
    if source.dtype.itemsize == 1 and source.dtype.kind in "ub":
        return (0, 255)
    grid = Grid(source.roi_voxels, default_block_shape(source.write_shape, volume_shape=source.shape))
    low, high = math.inf, -math.inf

    def extremes(roi: Roi) -> tuple[int, int]:
        array = source.read_voxels(roi)
        return int(array.min()), int(array.max())

    threads = min(8, os.cpu_count() or 1)
    rois = (block.write_roi for block in grid.blocks())
    with ThreadPoolExecutor(threads) as pool:
        while batch := list(islice(rois, 4 * threads)):
            for least, most in pool.map(extremes, batch):
                low, high = min(low, least), max(high, most)
    return int(low), int(high)


def description(sections: int, depth_nm: float) -> str:
    """Return what ImageJ reads the voxel size of a stack from."""
    lines = [
        "ImageJ=1.54f",
        f"images={sections}",
        f"slices={sections}",
        "unit=um",
        f"spacing={depth_nm / 1000:g}",
    ]
    return "\n".join([*lines, "loop=false", ""])


def tags(sections: int, voxel_size: Sequence[float]) -> dict[str, Any]:
    """Return arguments of tifffile that give a stack its voxel size (nm; z, y, x)."""
    depth_nm, height_nm, width_nm = voxel_size
    return {
        "photometric": "minisblack",
        "description": description(sections, depth_nm),
        "metadata": None,
        "resolution": (1000 / width_nm, 1000 / height_nm),
        "resolutionunit": "NONE",
    }


def write_image(path: Path, image_YX: NDArray[Any], voxel_size: Sequence[float]) -> None:
    """Write one section."""
    try:
        write_durably(path, partial(tifffile.imwrite, data=image_YX, **tags(1, voxel_size)))
    except OSError as error:
        raise DataError(
            f"{path} cannot be written: {error}. Make space or choose another --out_directory, then run the "
            "same command again: it continues."
        ) from error


class TiffStack:
    """One TIFF of many sections, uncompressed and contiguous, so that any part can be written at its place.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def create(self, shape: Sequence[int], dtype: np.dtype[Any], voxel_size: Sequence[float]) -> None:
        """Make the file, all zero, unless an earlier run has; it appears whole or not at all.

        Raises:
            DataError: it cannot be written.
        """
        if self.path.exists():
            return
        temporary = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            size = math.prod(shape) * dtype.itemsize
            tifffile.memmap(
                temporary, shape=tuple(shape), dtype=dtype, bigtiff=size > CLASSIC_BYTES, byteorder="<",
                **tags(shape[0], voxel_size),
            )  # fmt: skip
            sync(temporary)
            os.replace(temporary, self.path)
            sync(self.path.parent)
        except OSError as error:
            raise self._failure(error) from error
        finally:
            temporary.unlink(missing_ok=True)

    def write_rows(self, begin: Sequence[int], rows_ZYX: NDArray[Any], shape: Sequence[int]) -> None:
        """Store whole rows of some sections, durably.

        Args:
            begin: first section and row.
            rows_ZYX: of the file's dtype, as wide as the stack.
            shape: of the stack.
        """
        with tifffile.TiffFile(self.path) as tiff:
            start = tiff.pages[0].dataoffsets[0]
        row_bytes = shape[2] * rows_ZYX.dtype.itemsize
        try:
            descriptor = os.open(self.path, os.O_WRONLY)
            try:
                for z, rows in enumerate(rows_ZYX):
                    position = start + ((begin[0] + z) * shape[1] + begin[1]) * row_bytes
                    content = memoryview(rows.astype(rows.dtype.newbyteorder("<")).tobytes())
                    while content:
                        written = os.pwrite(descriptor, content, position)
                        content, position = content[written:], position + written
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise self._failure(error) from error

    def _failure(self, error: OSError) -> DataError:
        return DataError(
            f"{self.path} cannot be written: {error}. Make space or choose another --out_directory, then run "
            "the same command again: it continues."
        )


def rows_of(source: Volume, roi: Roi) -> list[tuple[int, Roi]]:
    """Return the rows of chunks of a slab of whole sections: first row in the slab, and region (voxels)."""
    depth, height, width = roi.shape
    step = source.chunk_shape[1]
    return [
        (y, Roi(roi.begin + Coordinate(0, y, 0), (depth, min(step, height - y), width)))
        for y in range(0, height, step)
    ]
