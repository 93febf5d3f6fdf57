"""Affinities of grey values: the baseline that a trained network has to beat.

Membranes are dark lines. How far a voxel is darker than its surroundings, in standard deviations of these, is
its boundary value; an edge is as weak as the stronger boundary of its two voxels. The output is an affinity
map as a network predicts it, so `incasem segment` makes a segmentation of it by the same steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from incasem.blockwise import Block, BlockFunction, Grid, Job, JobReport, default_block_shape, run_stage
from incasem.errors import ConfigError, DataError, explain
from incasem.formatting._outputs import check_workers, create_output, dataset_path, open_grey, state_dir
from incasem.geometry import Coordinate, Roi, format_roi, grow
from incasem.volumes import Volume

JOB = "baseline-affinities"
OFFSETS = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
"""Edges of the three channels: to the voxel before in z, y and x."""

_BLOCK_VOXELS = 160**3
_TRUNCATE = 3.0  # of Gaussians, in standard deviations
_LEAST_DEVIATION = 0.01  # of the range of grey values: where nothing is, noise is no boundary


@dataclass(frozen=True)
class GreyAffinityOptions:
    """Options of `grey_affinities`.

    Attributes:
        file: container of the raw data.
        dataset: raw data: uint8, uint16 or floats from 0 to 1; membranes dark.
        out_file: container of the output; None: ``file``.
        out_dataset: output: uint8, c z y x, attribute ``offsets``.
        smoothing_nm: standard deviation of the Gaussian that takes away noise; about half a membrane.
        surroundings_nm: that of the Gaussian that says what a voxel's surroundings are.
        contrast: standard deviations of the surroundings from a sure membrane to a sure inside.
        offset, shape: region on the absolute voxel grid; None: all of the raw data.
        chunk_shape: of the output, voxels z, y, x.
    """

    file: Path
    dataset: str
    out_dataset: str
    out_file: Path | None = None
    smoothing_nm: float = 10.0
    surroundings_nm: float = 120.0
    contrast: float = 2.5
    offset: tuple[int, int, int] | None = None
    shape: tuple[int, int, int] | None = None
    chunk_shape: tuple[int, int, int] = (64, 64, 64)


def grey_affinities(options: GreyAffinityOptions, *, num_workers: int, progress: bool = True) -> JobReport:
    """Write the affinities, continuing an interrupted run.

    Raises:
        ConfigError: a setting out of range.
        DataError: no raw data of a known range, a region outside of it, or another output there.
        FailedBlocksError: blocks that could not be done, with the reason of each.
    """
    check_workers(num_workers)
    job, output = prepare_grey_affinities(options)
    return run_stage(job, output, num_workers, progress)


def prepare_grey_affinities(
    options: GreyAffinityOptions, block_shape: Sequence[int] | None = None
) -> tuple[Job, Volume]:
    """Check everything, create the output, and return the job that fills it."""
    for name in ("smoothing_nm", "surroundings_nm", "contrast"):
        value = getattr(options, name)
        if not 0 < value < np.inf:
            raise ConfigError(explain(name, value, "a number above 0", "Correct it"))
    if options.surroundings_nm <= options.smoothing_nm:
        raise ConfigError(
            explain(
                "surroundings_nm", options.surroundings_nm, f"more than smoothing_nm, {options.smoothing_nm}",
                "Give about ten times as much",
            )
        )  # fmt: skip
    raw = open_grey(dataset_path(options.file, options.dataset))
    _span(raw)
    roi = _region(options, raw)
    output = create_output(
        dataset_path(options.out_file or options.file, options.out_dataset),
        job=JOB,
        shape=roi.shape,
        dtype=np.dtype(np.uint8),
        voxel_size=raw.voxel_size,
        offset_nm=[b * v for b, v in zip(roi.begin, raw.voxel_size, strict=True)],
        chunk_shape=options.chunk_shape,
        channels=len(OFFSETS),
        attributes={"offsets": [list(offset) for offset in OFFSETS]},
    )
    block = block_shape or default_block_shape(output.write_shape, _BLOCK_VOXELS, volume_shape=roi.shape)
    settings = {name: getattr(options, name) for name in ("smoothing_nm", "surroundings_nm", "contrast")}
    job = Job(
        name=JOB,
        grid=Grid(roi, Coordinate(block)),
        start_worker=partial(_start, raw, output, options),
        identity={"raw": raw.fingerprint()} | settings,
        state_dir=state_dir(output),
    )
    return job, output


def _region(options: GreyAffinityOptions, raw: Volume) -> Roi:
    if (options.offset is None) != (options.shape is None):
        raise ConfigError("offset and shape belong together; allowed: both or none. Give the other one, too.")
    if options.offset is None or options.shape is None:
        return raw.roi_voxels
    roi = Roi(options.offset, options.shape)
    if min(options.shape) < 1 or not raw.roi_voxels.contains(roi):
        raise DataError(
            explain(
                "the region", f"{format_roi(roi)} voxels", f"a part of {format_roi(raw.roi_voxels)}",
                "Correct offset and shape",
            )
        )  # fmt: skip
    return roi


def _span(raw: Volume) -> float:
    """Return the largest grey value."""
    spans = {"uint8": 255.0, "uint16": 65535.0}
    if raw.dtype.kind != "f" and raw.dtype.name not in spans:
        raise DataError(
            explain(
                f"the dtype of {raw.path}", raw.dtype, "uint8, uint16 or floats from 0 to 1", "Convert it"
            )
        )
    return spans.get(raw.dtype.name, 1.0)


def _start(raw: Volume, output: Volume, options: GreyAffinityOptions) -> BlockFunction:
    return partial(_fill_block, raw, output, options)


def _fill_block(raw: Volume, output: Volume, options: GreyAffinityOptions, block: Block) -> None:
    smoothing = [options.smoothing_nm / v for v in raw.voxel_size]
    surroundings = [options.surroundings_nm / v for v in raw.voxel_size]
    # One voxel more before: the other end of the first edges.
    context = [max(_radius(a), _radius(b)) + 1 for a, b in zip(smoothing, surroundings, strict=True)]
    grey_ZYX = raw.read_voxels(grow(block.write_roi, context), beyond="reflect").astype(np.float64)
    grey_ZYX /= _span(raw)
    if not np.isfinite(grey_ZYX).all():
        raise DataError(f"{raw.path} holds NaN or infinite values in {format_roi(block.write_roi)}. Mend it.")
    boundary_ZYX = boundary_map(grey_ZYX, smoothing, surroundings, options.contrast)
    inner = tuple(slice(c - 1, c + n) for c, n in zip(context, block.write_roi.shape, strict=True))
    affinities = edges_of(boundary_ZYX[inner])
    for axis, begin in enumerate(block.write_roi.begin):
        if begin == output.roi_voxels.begin[axis]:
            np.moveaxis(affinities[axis], axis, 0)[0] = 0  # these edges lead out of the volume
    output.write_voxels(block.write_roi, affinities)


def boundary_map(
    grey_ZYX: NDArray[np.float64], smoothing: Sequence[float], surroundings: Sequence[float], contrast: float
) -> NDArray[np.float64]:
    """Return how much each voxel looks like a membrane, 0 to 1.

    Args:
        grey_ZYX: 0 to 1, membranes dark.
        smoothing: standard deviation of the noise filter, voxels z, y, x.
        surroundings: that of the neighbourhood a voxel is compared with.
        contrast: standard deviations of the neighbourhood between 0 and 1.
    """
    smooth = _blurred(grey_ZYX, smoothing)
    mean = _blurred(grey_ZYX, surroundings)
    variance = _blurred(grey_ZYX * grey_ZYX, surroundings) - mean * mean
    deviation = np.sqrt(np.maximum(variance, _LEAST_DEVIATION**2))
    return np.clip(0.5 + (mean - smooth) / (contrast * deviation), 0, 1)


def edges_of(boundary_ZYX: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return the affinities (3, z, y, x; steps of 1/255) of a boundary map with one voxel more before."""
    own = boundary_ZYX[1:, 1:, 1:]
    before = (boundary_ZYX[:-1, 1:, 1:], boundary_ZYX[1:, :-1, 1:], boundary_ZYX[1:, 1:, :-1])
    strongest = np.stack([np.maximum(own, other) for other in before])
    return np.rint(255 * (1 - strongest)).astype(np.uint8)


def _radius(sigma: float) -> int:
    return int(_TRUNCATE * sigma + 0.5)


def _blurred(grey_ZYX: NDArray[np.float64], sigma: Sequence[float]) -> Any:
    return ndimage.gaussian_filter(grey_ZYX, sigma, truncate=_TRUNCATE, mode="nearest")
