"""Convert stacks of images, or volumes of another format, to a dataset in Zarr."""

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from incasem.blockwise import Block, BlockFunction, Grid, Job, JobReport, default_block_shape, run_stage
from incasem.errors import ConfigError, DataError, explain
from incasem.formatting._outputs import (
    check_chunks,
    check_workers,
    create_output,
    dataset_path,
    open_grey,
    state_dir,
)
from incasem.formatting._slab import SLAB_BYTES, Slab
from incasem.formatting.conversions import Conversion, parse_conversion, plan_conversion
from incasem.formatting.sections import ImageForm, common_form, decoded
from incasem.geometry import Coordinate, Roi, ceil_to_multiple
from incasem.volumes import Volume
from incasem.volumes.sections import DEFAULT_REGEX, Section, find_sections, is_stack

logger = logging.getLogger(__name__)

JOB = "convert"
DEFAULT_RESOLUTION_NM = (5.0, 5.0, 5.0)
_SAMPLED_SECTIONS = 16


@dataclass(frozen=True)
class ConvertOptions:
    """One input and the dataset it becomes. All triples are z, y, x.

    Attributes:
        input_dir: directory of section images, a TIFF of many pages, or a dataset (Zarr, N5, HDF5).
        output_file: the Zarr (or N5) container.
        output_dataset: the dataset in it.
        image_regex: selects images by file name; its first group is the section number.
        dtype: of the output; must be able to hold every value of the input.
        offset: voxels; begin of the crop in the input. The stored offset is this times the resolution.
        shape: voxels; extent of the crop, None for all that follows the offset.
        resolution: voxel size, nm. None: that of the input dataset; 5 nm for images, which have none.
        chunks: voxels.
        conversion: see `incasem.formatting.conversions`.
        invert: store the dtype's largest value minus the grey value.
    """

    input_dir: Path
    output_file: Path
    output_dataset: str = "volumes/raw"
    image_regex: str = DEFAULT_REGEX
    dtype: str = "uint8"
    offset: tuple[int, int, int] = (0, 0, 0)
    shape: tuple[int | None, int | None, int | None] = (None, None, None)
    resolution: tuple[float, float, float] | None = None
    chunks: tuple[int, int, int] = (128, 128, 128)
    conversion: str | None = None
    invert: bool = False


@dataclass(frozen=True)
class _Crop:
    """Where the output lies in the input (voxels of the input, z, y, x)."""

    begin: tuple[int, int, int]
    shape: tuple[int, int, int]

    @property
    def end(self) -> tuple[int, ...]:
        return tuple(b + s for b, s in zip(self.begin, self.shape, strict=True))


def pair_inputs(
    input_dirs: Sequence[Path],
    output_file: Path,
    output_datasets: Sequence[str] = ("volumes/raw",),
    dtypes: Sequence[str] = ("uint8",),
    conversions: Sequence[str | None] = (None,),
    **common: Any,
) -> list[ConvertOptions]:
    """Return the options of several inputs: the k-th goes with the k-th dataset, dtype and conversion.

    Args:
        input_dirs: one or more inputs.
        output_file: container of all outputs.
        output_datasets: one for each input.
        dtypes: one for each input, or one for all.
        conversions: one for each input, or one for all.
        **common: other fields of `ConvertOptions`, the same for all.

    Raises:
        ConfigError: the numbers do not agree, or a dataset is named twice.
    """
    count = len(input_dirs)
    if len(output_datasets) != count:
        raise ConfigError(
            explain(
                "output_dataset",
                " ".join(output_datasets),
                f"{count} names, one for each input_dir",
                "Name the datasets with -d",
            )
        )
    if len(set(output_datasets)) != count:
        raise ConfigError(
            explain("output_dataset", " ".join(output_datasets), "different names", "Rename one")
        )
    for name, values in (("dtype", dtypes), ("conversion", conversions)):
        if len(values) not in (1, count):
            raise ConfigError(
                explain(
                    name,
                    " ".join(str(v) for v in values),
                    f"one value, or one for each of {count} inputs",
                    "Correct it",
                )
            )
    return [
        ConvertOptions(
            input_dir=Path(input_dirs[k]),
            output_file=Path(output_file),
            output_dataset=output_datasets[k],
            dtype=dtypes[k % len(dtypes)],
            conversion=conversions[k % len(conversions)],
            **common,
        )
        for k in range(count)
    ]


@dataclass(frozen=True)
class _Plan:
    """A conversion whose input has been checked; nothing is written yet.

    Attributes:
        crop: where the output lies in the input.
        conversion: what is done to the values.
        resolution: of the output, nm.
        offset_nm: of the output.
        job: makes the job that fills an output.
    """

    crop: _Crop
    conversion: Conversion
    resolution: Sequence[float]
    offset_nm: Sequence[float]
    job: Callable[[Volume], Job]


def convert_stacks(
    inputs: Sequence[ConvertOptions], *, num_workers: int, progress: bool = True
) -> Iterator[tuple[ConvertOptions, JobReport]]:
    """Convert several inputs, all of which are checked before the first one is converted.

    Yields:
        each input with its report; see `convert_stack` for the errors.
    """
    check_workers(num_workers)
    plans = [_plan(options) for options in inputs]
    for options, plan in zip(inputs, plans, strict=True):
        output = _create(options, plan)
        yield options, run_stage(plan.job(output), output, num_workers, progress)


def convert_stack(options: ConvertOptions, *, num_workers: int, progress: bool = True) -> JobReport:
    """Convert one input, continuing an interrupted run.

    Each image is decoded exactly once (twice for up to 16 of them if the conversion asks for percentiles).

    Raises:
        DataError: the input cannot be used as asked, or the output exists and is another one.
        ConfigError: options that contradict each other.
        FailedBlocksError: blocks that could not be done, with the reason of each.
    """
    ((_, report),) = convert_stacks([options], num_workers=num_workers, progress=progress)
    return report


def prepare_conversion(options: ConvertOptions) -> tuple[Job, Volume]:
    """Check everything, create the output, and return the job that fills it."""
    plan = _plan(options)
    output = _create(options, plan)
    return plan.job(output), output


def _plan(options: ConvertOptions) -> _Plan:
    if min(options.resolution or DEFAULT_RESOLUTION_NM) <= 0:
        raise ConfigError(explain("resolution", options.resolution, "nm above 0", "Correct it"))
    check_chunks(options.chunks)
    source = options.input_dir.expanduser()
    if is_stack(source) or (source.is_dir() and not _is_container(source)):
        return _plan_images(options, source)
    return _plan_volume(options, source)


def _plan_images(options: ConvertOptions, source: Path) -> _Plan:
    found = find_sections(source, options.image_regex)
    crop_z = _crop(options, (len(found), None, None), source)
    used = found[crop_z.begin[0] : crop_z.end[0]]
    form = common_form(used)
    crop = _crop(options, (len(found), form.height, form.width), source)
    window = (slice(crop.begin[1], crop.end[1]), slice(crop.begin[2], crop.end[2]))
    stride = -(-len(used) // _SAMPLED_SECTIONS)
    conversion = plan_conversion(
        parse_conversion(options.conversion),
        source=str(source),
        source_dtype=form.dtype,
        rgb=form.channels > 0,
        dtype=_dtype(options.dtype),
        invert=options.invert,
        sample=(image[window] for image in decoded(used[::stride], form)),
    )
    resolution = options.resolution or DEFAULT_RESOLUTION_NM
    offset_nm = tuple(o * r for o, r in zip(crop.begin, resolution, strict=True))
    identity = {"images": _digest(source, used), "crop": asdict(crop), "conversion": asdict(conversion)}

    def job(output: Volume) -> Job:
        chunk_depth = output.write_shape[0]
        block_shape = Coordinate(chunk_depth, *ceil_to_multiple(crop.shape[1:], output.write_shape[1:]))
        worker = partial(_convert_slab, output, tuple(used), form, window, conversion, SLAB_BYTES)
        return _job(output, block_shape, worker, identity)

    return _Plan(crop, conversion, resolution, offset_nm, job)


def _plan_volume(options: ConvertOptions, path: Path) -> _Plan:
    source = open_grey(str(path))
    z, y, x = source.shape
    crop = _crop(options, (z, y, x), path)
    begin = Coordinate(b + c for b, c in zip(source.roi_voxels.begin, crop.begin, strict=True))
    stride = -(-crop.shape[0] // _SAMPLED_SECTIONS)
    planes = [Roi(begin + Coordinate(p, 0, 0), (1, *crop.shape[1:])) for p in range(0, crop.shape[0], stride)]
    conversion = plan_conversion(
        parse_conversion(options.conversion),
        source=str(path),
        source_dtype=source.dtype,
        rgb=False,
        dtype=_dtype(options.dtype),
        invert=options.invert,
        sample=(source.read_voxels(plane) for plane in planes),
    )
    resolution = options.resolution or source.voxel_size
    base = source.offset_nm if options.resolution is None else (0.0, 0.0, 0.0)
    offset_nm = tuple(o + c * r for o, c, r in zip(base, crop.begin, resolution, strict=True))
    identity = {"source": source.fingerprint(), "crop": asdict(crop), "conversion": asdict(conversion)}

    def job(output: Volume) -> Job:
        block_shape = default_block_shape(output.write_shape, volume_shape=crop.shape)
        shift = begin - output.roi_voxels.begin
        return _job(output, block_shape, partial(_convert_box, source, output, shift, conversion), identity)

    return _Plan(crop, conversion, resolution, offset_nm, job)


def _create(options: ConvertOptions, plan: _Plan) -> Volume:
    return create_output(
        dataset_path(options.output_file, options.output_dataset),
        job=JOB,
        shape=plan.crop.shape,
        dtype=np.dtype(plan.conversion.dtype),
        voxel_size=plan.resolution,
        offset_nm=plan.offset_nm,
        chunk_shape=options.chunks,
    )


def _job(output: Volume, block_shape: Coordinate, worker: BlockFunction, identity: dict[str, Any]) -> Job:
    return Job(
        name=JOB,
        grid=Grid(output.roi_voxels, block_shape),
        start_worker=partial(_hand_over, worker),
        identity=identity,
        state_dir=state_dir(output),
    )


def _hand_over(worker: BlockFunction) -> BlockFunction:
    return worker


def _convert_slab(
    output: Volume,
    used: tuple[Section, ...],
    form: ImageForm,
    window: tuple[slice, slice],
    conversion: Conversion,
    budget_bytes: int,
    block: Block,
) -> None:
    """Decode the images of one slab and write it, one row of chunks after the other."""
    first = block.write_roi.begin[0] - output.roi_voxels.begin[0]
    depth, height, width = block.write_roi.shape
    directory = state_dir(output)
    with Slab((depth, height, width), np.dtype(conversion.dtype), directory, budget_bytes) as slab:
        for z, image in enumerate(decoded(used[first : first + depth], form)):
            slab.set_plane(z, conversion(image[window]))
        # One write for a slab in memory keeps all its chunks in flight; from a file, one row of chunks.
        step = height if slab.in_memory else output.write_shape[1]
        for y in range(0, height, step):
            rows = slab.rows(y, min(y + step, height))
            output.write_voxels(Roi(block.write_roi.begin + Coordinate(0, y, 0), rows.shape), rows)


def _convert_box(
    source: Volume, output: Volume, shift: Coordinate, conversion: Conversion, block: Block
) -> None:
    array: NDArray[Any] = source.read_voxels(block.write_roi + shift)
    output.write_voxels(block.write_roi, conversion(array))


def _crop(options: ConvertOptions, whole: tuple[int, int | None, int | None], source: Path) -> _Crop:
    """Return the crop; axes of ``whole`` that are not known yet (None) come out as asked for."""
    begin, shape = [], []
    for axis, size, offset, extent in zip("zyx", whole, options.offset, options.shape, strict=True):
        extent = extent if extent is not None else (size or 0) - offset
        if size is not None and not (offset >= 0 and extent > 0 and offset + extent <= size):
            asked = f"{offset}:{'' if extent <= 0 else offset + extent}"
            raise DataError(
                explain(
                    f"the crop (offset, shape) in {axis}", asked, f"inside 0:{size} of {source}", "Correct it"
                )
            )
        begin.append(offset)
        shape.append(extent)
    return _Crop((begin[0], begin[1], begin[2]), (shape[0], shape[1], shape[2]))


def _dtype(name: str) -> np.dtype:
    try:
        return np.dtype(name)
    except TypeError as error:
        raise ConfigError(
            explain("dtype", name, "a numpy type such as uint8, uint16, uint32", "Correct it")
        ) from error


def _digest(source: Path, used: Sequence[Section]) -> dict[str, object]:
    """What tells this input from another or a changed one, without decoding it."""
    digest = hashlib.sha256()
    for path in dict.fromkeys(section.path for section in used):
        status = path.stat()
        digest.update(f"{path.name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return {
        "path": str(source.absolute()),
        "sections": len(used),
        "names, sizes and times": digest.hexdigest()[:16],
    }


def _is_container(path: Path) -> bool:
    return any((path / name).exists() for name in (".zgroup", ".zarray", "zarr.json", "attributes.json"))
