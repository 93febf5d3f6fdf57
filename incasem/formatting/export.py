"""Export datasets as directories of TIFF images, one a section, or as one TIFF, for ImageJ and Fiji."""

import json
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from incasem.blockwise import Block, BlockFunction, Grid, Job, JobReport, is_finished, run_stage
from incasem.durable import sync
from incasem.errors import ConfigError, DataError, explain
from incasem.formatting._folder import STATE, Folder
from incasem.formatting._outputs import check_workers, dataset_path, open_grey
from incasem.formatting._slab import SLAB_BYTES, Slab
from incasem.formatting._tiff import (
    IMAGEJ_EXACT,
    TiffStack,
    lossless_dtype,
    rows_of,
    value_range,
    write_image,
)
from incasem.geometry import Coordinate, ceil_to_multiple
from incasem.volumes import Volume

logger = logging.getLogger(__name__)

JOB = "export"
Values = Literal["auto", "labels", "grey", "lossless"]
Form = Literal["labels", "grey", "lossless"]


@dataclass(frozen=True)
class ExportOptions:
    """One dataset and the directory of images it becomes.

    Attributes:
        file: the container.
        dataset: three axes, of any integer or float type.
        out_directory: the images are ``out_directory/out_dataset/section_%04d.tif``, counted from the
            dataset's first section, uint8.
        out_dataset: subdirectory; the dataset's name if None.
        values: ``labels``: every nonzero voxel becomes 255. ``grey``: integers from 0 to 255 stay as they
            are, floats from 0 to 1 become 0 to 255, others are an error. ``auto``: labels for uint32, and for
            datasets called ``segmentation`` (class numbers would be too dark to see); grey for all others.
            ``lossless``: every value as it is, in 8, 16 or 32 bits as the largest one needs; floats in 32.
        single_file: one file ``out_directory/out_dataset.tif`` with all sections, BigTIFF above 4 GB.
    """

    file: Path
    dataset: str
    out_directory: Path
    out_dataset: str | None = None
    values: Values = "auto"
    single_file: bool = False

    @property
    def images_dir(self) -> Path:
        """Directory of the images, or the one file."""
        name = (self.dataset if self.out_dataset is None else self.out_dataset).strip("/")
        if self.single_file and not name.lower().endswith((".tif", ".tiff")):
            name += ".tif"
        return self.out_directory.expanduser() / name


def pair_exports(
    filenames: Sequence[Path],
    datasets: Sequence[Sequence[str]],
    out_directory: Path,
    out_datasets: Sequence[Sequence[str]] | None = None,
    values: Values = "auto",
    single_file: bool = False,
) -> list[ExportOptions]:
    """Return the options of several exports: each file goes with its list of datasets, as published.

    Raises:
        ConfigError: the numbers of files, datasets and output names do not agree, or two share a directory.
    """
    names = datasets if out_datasets is None else out_datasets
    if len(filenames) != len(datasets):
        raise ConfigError(
            explain(
                "datasets", len(datasets), f"one list -d for each of {len(filenames)} files", "Correct it"
            )
        )
    if [len(n) for n in names] != [len(d) for d in datasets]:
        raise ConfigError(
            explain("out_datasets", list(map(list, names)), "one name for each dataset", "Correct it")
        )
    paired = [
        ExportOptions(Path(file), dataset, Path(out_directory), name, values, single_file)
        for file, of_file, named in zip(filenames, datasets, names, strict=True)
        for dataset, name in zip(of_file, named, strict=True)
    ]
    if len({options.images_dir for options in paired}) < len(paired):
        raise ConfigError(
            explain("out_datasets", list(map(list, names)), "different directories", "Give --out_datasets")
        )
    return paired


def export_stacks(
    exports: Sequence[ExportOptions], *, num_workers: int, progress: bool = True
) -> Iterator[tuple[ExportOptions, JobReport]]:
    """Export several datasets, all of which are checked before the first one is exported.

    Yields:
        each export with its report; see `export_images` for the errors.
    """
    check_workers(num_workers)
    sources = [_open_source(options) for options in exports]
    for options in exports:
        _output(options).check()
    for options, source in zip(exports, sources, strict=True):
        job, output = _prepare(options, source)
        if is_finished(job, output) and (lost := output.missing(job.grid.total_roi.shape[0])):
            logger.warning("%s: %d images are gone and are exported again", output.path, len(lost))
            output.set_attributes(incasem={"begun_by": JOB})
            job, output = _prepare(options, source)
        report = run_stage(job, output, num_workers, progress)
        output.complete()
        yield options, report


def export_images(options: ExportOptions, *, num_workers: int, progress: bool = True) -> JobReport:
    """Export one dataset, continuing an interrupted run. Each chunk is read once, each image written whole.

    Raises:
        DataError: the dataset is missing, or the directory holds images of another origin.
        FailedBlocksError: blocks that could not be done, with the reason of each (values beyond uint8).
    """
    ((_, report),) = export_stacks([options], num_workers=num_workers, progress=progress)
    return report


class ImageFolder(Folder):
    """A directory of section images."""

    def image(self, section: int) -> Path:
        """Path of one section's image."""
        return self.path / f"section_{section:04d}.tif"

    def missing(self, sections: int) -> list[int]:
        """Sections without an image."""
        return [section for section in range(sections) if not self.image(section).is_file()]

    def check(self) -> None:
        """Refuse a directory with images that are not ours."""
        existing = [] if "incasem" in self.attributes else sorted(self.path.glob("section_*.tif"))
        if existing:
            raise DataError(
                f"the output {self.path} holds {len(existing)} images that incasem did not export "
                f"({existing[0].name} …); allowed: a new directory, or an earlier export of the same "
                "dataset. Choose another --out_datasets."
            )

    def complete(self) -> None:
        """Show the result under its name: images have theirs from the beginning."""


class SingleFile(ImageFolder):
    """One TIFF, made in a hidden directory beside it and put into its place when it is complete."""

    @property
    def state(self) -> Path:
        """Where attributes, marks and the growing file lie."""
        return self.path.with_name(f".{self.path.name}{STATE}")

    @property
    def stack(self) -> TiffStack:
        """The growing file."""
        return TiffStack(self.state / "growing.tif")

    def missing(self, sections: int) -> list[int]:
        """All sections, where neither the file nor the growing one is there."""
        return [] if self.path.is_file() or self.stack.path.is_file() else list(range(sections))

    def check(self) -> None:
        """Refuse a file that is not ours."""
        if self.path.exists() and "incasem" not in self.attributes:
            raise DataError(
                f"the output {self.path} exists and was not exported by incasem; allowed: a new name, or an "
                "earlier export of the same dataset. Choose another --out_datasets."
            )

    def complete(self) -> None:
        """Put the file into its place."""
        if self.stack.path.is_file():
            os.replace(self.stack.path, self.path)
            sync(self.path.parent)


def prepare_export(options: ExportOptions) -> tuple[Job, ImageFolder]:
    """Check everything, create the directory, and return the job that fills it."""
    return _prepare(options, _open_source(options))


def _open_source(options: ExportOptions) -> Volume:
    source = open_grey(dataset_path(options.file, options.dataset))
    if source.dtype.kind not in "uibf":
        raise DataError(
            explain(f"the dtype of {source.path}", source.dtype, "integers or floats", "Choose another one")
        )
    return source


def _output(options: ExportOptions) -> ImageFolder:
    return (SingleFile if options.single_file else ImageFolder)(options.images_dir)


def _prepare(options: ExportOptions, source: Volume) -> tuple[Job, ImageFolder]:
    output = _output(options)
    output.check()
    if "incasem" not in output.attributes:
        try:
            output.set_attributes(incasem={"begun_by": JOB})
        except OSError as error:
            raise DataError(
                f"{output.path} cannot be made: {error}. Choose a directory you may write."
            ) from error
    form = _form(options, source)
    dtype = np.dtype(np.uint8) if form != "lossless" else _lossless(output, source)
    depth = source.chunk_shape[0]
    block_shape = Coordinate(depth, *ceil_to_multiple(source.shape[1:], source.chunk_shape[1:]))
    job = Job(
        name=JOB,
        grid=Grid(source.roi_voxels, block_shape),
        start_worker=partial(_start, source, output, form, dtype, SLAB_BYTES),
        identity={"source": source.fingerprint(), "values": form},
        state_dir=output.state / "job",
    )
    if isinstance(output, SingleFile) and not is_finished(job, output):
        output.stack.create(source.shape, dtype, source.voxel_size)
    return job, output


def _lossless(output: ImageFolder, source: Volume) -> np.dtype[Any]:
    """Return the pixels' type; what the data need is looked up once and noted."""
    fingerprint = json.loads(json.dumps(source.fingerprint()))
    noted = output.attributes.get("values") or {}
    if noted.get("source") != fingerprint:
        low, high = value_range(source)
        noted = {"source": fingerprint, "low": low, "high": high}
        output.set_attributes(values=noted)
    dtype = lossless_dtype(source.dtype, noted["low"], noted["high"], source.path)
    if dtype == np.uint32 and noted["high"] > IMAGEJ_EXACT:
        logger.warning(
            "%s: labels up to %d are exact in the file, but ImageJ shows 32-bit integers as floats, in which "
            "labels above %d look alike", output.path, noted["high"], IMAGEJ_EXACT,
        )  # fmt: skip
    return dtype


def to_uint8(array: NDArray[Any], as_labels: bool, name: str) -> NDArray[np.uint8]:
    """Return voxels as grey values of an 8-bit image; see `ExportOptions.values`.

    Raises:
        DataError: integers outside 0…255 or floats outside 0…1.
    """
    if as_labels:
        return np.where(array != 0, np.uint8(255), np.uint8(0))
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind == "b":
        return array.astype(np.uint8)
    low, high = (array.min(), array.max()) if array.size else (0, 0)
    top = 1 if array.dtype.kind == "f" else 255
    # Written so that a NaN fails, too.
    if not (low >= 0 and high <= top):
        raise DataError(
            explain(
                f"the values of {name}",
                f"{low} to {high}",
                f"0 to {top} for {array.dtype}",
                "Export labels with values 'labels', or convert grey values to uint8 first",
            )
        )
    return np.rint(array * 255).astype(np.uint8) if top == 1 else array.astype(np.uint8)


def _form(options: ExportOptions, source: Volume) -> Form:
    if options.values == "auto":
        named = options.dataset.strip("/").split("/")[-1] == "segmentation"
        return "labels" if source.dtype == np.uint32 or named else "grey"
    return options.values


def _start(
    source: Volume, output: ImageFolder, form: Form, dtype: np.dtype[Any], budget_bytes: int
) -> BlockFunction:
    if isinstance(output, SingleFile):
        return partial(_export_part, source, output.stack, form, dtype)
    return partial(_export_slab, source, output, form, dtype, budget_bytes)


def _pixels(array: NDArray[Any], form: Form, dtype: np.dtype[Any], name: str) -> NDArray[Any]:
    return array.astype(dtype) if form == "lossless" else to_uint8(array, form == "labels", name)


def _export_slab(
    source: Volume, output: ImageFolder, form: Form, dtype: np.dtype[Any], budget_bytes: int, block: Block
) -> None:
    """Read one slab of chunks and write its images."""
    depth, height, width = block.write_roi.shape
    first = block.write_roi.begin[0] - source.roi_voxels.begin[0]
    with Slab((depth, height, width), dtype, output.state, budget_bytes) as slab:
        # Rows of chunks bound the memory of the conversion from wider types as well.
        for y, roi in rows_of(source, block.write_roi):
            slab.set_rows(y, _pixels(source.read_voxels(roi), form, dtype, source.path))
        for z in range(depth):
            write_image(output.image(first + z), slab.plane(z), source.voxel_size)


def _export_part(source: Volume, stack: TiffStack, form: Form, dtype: np.dtype[Any], block: Block) -> None:
    """Read one slab of chunks and write it at its place in the file."""
    first = block.write_roi.begin[0] - source.roi_voxels.begin[0]
    for y, roi in rows_of(source, block.write_roi):
        pixels = _pixels(source.read_voxels(roi), form, dtype, source.path)
        stack.write_rows((first, y), pixels, source.shape)
