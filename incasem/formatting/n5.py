"""From N5 (or Zarr) as OpenOrganelle and COSEM publish it to the layout that the pipeline reads.

Place and axes come from the source's own attributes (`transform`, `pixelResolution`, or OME-NGFF), by
`incasem.volumes`; a group of levels ``s0``, ``s1``, … stands for its finest one, and ``em/fibsem-uint16/s2``
names another. Labels become uint32, grey values uint8 unless their bits are to be kept.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from incasem.blockwise import Block, BlockFunction, Grid, Job, JobReport, default_block_shape, run_stage
from incasem.errors import ConfigError, DataError, explain
from incasem.formatting._outputs import check_chunks, check_workers, create_output, dataset_path, state_dir
from incasem.formatting._tiff import value_range
from incasem.formatting.conversions import Conversion
from incasem.formatting.pyramid import is_label_data
from incasem.volumes import Volume, check_spatial, exists, open_volume

JOB = "n5 to zarr"
_UINT32 = np.dtype(np.uint32)


@dataclass(frozen=True)
class Source:
    """An array to read, and what is to be believed of its place.

    Attributes:
        file: N5 or Zarr container.
        array: an array in it, or a group of levels.
        resolution: voxel size, nm, z, y, x, instead of what the file states.
        offset: corner of the first voxel, nm, z, y, x, instead of what the file states.
    """

    file: Path
    array: str
    resolution: tuple[float, float, float] | None = None
    offset: tuple[float, float, float] | None = None

    @property
    def path(self) -> str:
        """Container and array."""
        return dataset_path(self.file, self.array)


@dataclass(frozen=True)
class N5Options:
    """One array and the dataset it becomes.

    Attributes:
        source: what is read.
        output_file: the Zarr container.
        out_array: the dataset in it.
        chunk_size: edge of a chunk, voxels.
        keep_bits: whether grey values keep their type; else they become uint8.
        grey_range: input values that become 0 and 255; None: the whole range of the input's type.
        invert: whether bright becomes dark.
    """

    source: Source
    output_file: Path
    out_array: str
    chunk_size: int = 128
    keep_bits: bool = False
    grey_range: tuple[float, float] | None = None
    invert: bool = False


def convert_arrays(
    options: Sequence[N5Options], *, num_workers: int, progress: bool = True
) -> Iterator[tuple[N5Options, JobReport]]:
    """Convert several arrays, all of which are checked before the first is converted.

    Yields:
        each with its report.

    Raises:
        ConfigError: options that contradict each other, or no voxel size anywhere.
        DataError: an array is missing or cannot be converted, or another output is there.
        FailedBlocksError: blocks that could not be done, with the reason of each.
    """
    check_workers(num_workers)
    if len({one.out_array for one in options}) < len(options):
        names = " ".join(one.out_array for one in options)
        raise ConfigError(explain("out_arrays", names, "different names", "Rename one"))
    opened = [(one, *_plan(one)) for one in options]
    for one, source, conversion in opened:
        job, output = _job(one, source, conversion)
        yield one, run_stage(job, output, num_workers, progress)


def prepare_array(options: N5Options, block_shape: Sequence[int] | None = None) -> tuple[Job, Volume]:
    """Check everything, create the output, and return the job that fills it."""
    return _job(options, *_plan(options), block_shape)


def open_source(source: Source) -> Volume:
    """Open an array in its place.

    Raises:
        ConfigError: neither the file nor the user says a voxel size.
        DataError: missing, with channels, or between voxels.
    """
    try:
        volume = open_volume(source.path, voxel_size=source.resolution, offset_nm=source.offset)
    except DataError as error:
        if not exists(source.path):
            raise
        raise DataError(
            f"{error} Or give the right one with --offset Z Y X and --resolution Z Y X."
        ) from error
    check_spatial(volume)
    if not volume.has_stated_place:
        raise ConfigError(
            explain(
                "resolution", f"not given, nor stated in {source.path}", "nm (z y x)", "Give --resolution"
            )
        )
    return volume


def _plan(options: N5Options) -> tuple[Volume, Conversion]:
    check_chunks([options.chunk_size] * 3)
    source = open_source(options.source)
    if is_label_data(options.out_array, source.dtype):
        return source, _label_conversion(options, source)
    if source.dtype.kind not in "uif":
        raise DataError(explain(f"the dtype of {source.path}", source.dtype, "numbers", "Choose another"))
    scaled = source.dtype != np.uint8 and not options.keep_bits
    if options.grey_range is not None and not scaled:
        raise ConfigError(
            explain(
                "range", options.grey_range, "none for values that are kept", "Leave it out, or raw_same_bit"
            )
        )
    if not scaled:
        if options.invert and source.dtype.kind != "u":
            raise ConfigError(explain("invert", True, "unsigned integers", f"The array is {source.dtype}"))
        return source, Conversion("keep", source.dtype.name, invert=options.invert)
    low, high = options.grey_range or _whole_range(source.dtype)
    if not low < high:
        raise ConfigError(explain("range", f"{low:g} {high:g}", "two rising grey values", "Correct it"))
    return source, Conversion("scale", "uint8", low=low, high=high, invert=options.invert)


def _whole_range(dtype: np.dtype[Any]) -> tuple[float, float]:
    if dtype.kind == "f":
        return 0.0, 1.0
    return float(np.iinfo(dtype).min), float(np.iinfo(dtype).max)


def _label_conversion(options: N5Options, source: Volume) -> Conversion:
    """Return labels as uint32, the published type; where ids need more, as they are."""
    if source.dtype.kind not in "uib":
        raise DataError(
            explain(
                f"the dtype of {source.path}",
                source.dtype,
                "integers for labels",
                "Name another --out_arrays",
            )
        )
    if options.invert or options.grey_range is not None:
        raise ConfigError(
            explain("invert or range", "given", "none for labels", f"{source.path} holds labels")
        )
    if np.can_cast(source.dtype, _UINT32, "safe"):
        return Conversion("keep", "uint32")
    low, high = value_range(source)
    fits = low >= 0 and high <= np.iinfo(_UINT32).max
    return Conversion("keep", "uint32" if fits else source.dtype.name)


def _job(
    options: N5Options, source: Volume, conversion: Conversion, block_shape: Sequence[int] | None = None
) -> tuple[Job, Volume]:
    output = create_output(
        dataset_path(options.output_file, options.out_array),
        job=JOB,
        shape=source.shape,
        dtype=np.dtype(conversion.dtype),
        voxel_size=source.voxel_size,
        offset_nm=source.offset_nm,
        chunk_shape=[options.chunk_size] * 3,
    )
    block = block_shape or default_block_shape(output.write_shape, volume_shape=output.shape)
    job = Job(
        name=JOB,
        grid=Grid(output.roi_voxels, block),
        start_worker=partial(_start, source, output, conversion),
        identity={"source": source.fingerprint(), "conversion": vars(conversion)},
        state_dir=state_dir(output),
    )
    return job, output


def _start(source: Volume, output: Volume, conversion: Conversion) -> BlockFunction:
    return partial(_convert_block, source, output, conversion)


def _convert_block(source: Volume, output: Volume, conversion: Conversion, block: Block) -> None:
    output.write_voxels(block.write_roi, conversion(source.read_voxels(block.write_roi)))


def default_name(array: str) -> str:
    """Return the published name for an array of OpenOrganelle: raw data, or labels by their own name.

    >>> default_name("em/fibsem-uint16/s0"), default_name("labels/mito_seg/s0")
    ('volumes/raw', 'volumes/labels/mito_seg')
    """
    parts = [part for part in array.strip("/").split("/") if not (part[:1] == "s" and part[1:].isdigit())]
    return f"volumes/labels/{parts[-1]}" if "labels" in parts[:-1] else "volumes/raw"
