"""Affinities of grey values: the baseline that a trained network has to beat.

Membranes are dark sheets. A voxel's boundary value is the geometric mean of two: how far it is darker than
its surroundings, and how strongly the grey values curve across it (the largest eigenvalue of the Hessian,
Sato et al., Medical Image Analysis 2, 1998), which tells sheets from mitochondria; both in standard
deviations of the surroundings. An edge is as weak as the stronger boundary of its two voxels. The output is
an affinity map as a network predicts it, so `incasem segment` makes a segmentation of it by the same steps.

Where sections are thicker than the filters are wide, the next one says little: `per_section` takes
each by itself, and gives no edges between them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from incasem.blockwise import Block, BlockFunction, Grid, Job, JobReport, default_block_shape, run_stage
from incasem.compiled import compiled
from incasem.errors import ConfigError, DataError, explain
from incasem.formatting._outputs import check_workers, create_output, dataset_path, open_grey, state_dir
from incasem.geometry import Coordinate, Roi, format_roi, grow
from incasem.volumes import Volume

Grey = NDArray[np.float64]

JOB = "baseline-affinities"
OFFSETS = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
"""Edges of the three channels: to the voxel before in z, y and x."""

_BLOCK_VOXELS = 128**3
_TRUNCATE = 3.0  # of Gaussians, in standard deviations
_SETTINGS = ("smoothing_nm", "thickness_nm", "surroundings_nm", "contrast")
_SURE_SHEET = 0.5  # curvature of a sure membrane, in standard deviations of the surroundings
_LEAST_SIGMA = 0.6  # voxels; a Gaussian that is narrower has no derivatives
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
        thickness_nm: that of the Gaussian at which grey values are looked at for sheets.
        surroundings_nm: that of the Gaussian that says what a voxel's surroundings are.
        contrast: standard deviations of the surroundings from a sure membrane to a sure inside.
        offset, shape: region on the absolute voxel grid; None: all of the raw data.
        chunk_shape: of the output, voxels z, y, x.
        per_section: filter each section (z) by itself, and leave out the edges in z.
    """

    file: Path
    dataset: str
    out_dataset: str
    out_file: Path | None = None
    smoothing_nm: float = 10.0
    thickness_nm: float = 15.0
    surroundings_nm: float = 120.0
    contrast: float = 2.5
    offset: tuple[int, int, int] | None = None
    shape: tuple[int, int, int] | None = None
    chunk_shape: tuple[int, int, int] = (64, 64, 64)
    per_section: bool = False

    @property
    def offsets(self) -> tuple[tuple[int, int, int], ...]:
        """Edges of the output's channels."""
        return OFFSETS[1:] if self.per_section else OFFSETS


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
    for name in _SETTINGS:
        value = getattr(options, name)
        if not 0 < value < np.inf:
            raise ConfigError(explain(name, value, "a number above 0", "Correct it"))
    finest = max(options.smoothing_nm, options.thickness_nm)
    if options.surroundings_nm <= finest:
        raise ConfigError(
            explain(
                "surroundings_nm", options.surroundings_nm, f"more than the other filters, {finest:g} nm",
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
        channels=len(options.offsets),
        attributes={"offsets": [list(offset) for offset in options.offsets]},
    )
    block = block_shape or default_block_shape(output.write_shape, _BLOCK_VOXELS, volume_shape=roi.shape)
    settings: dict[str, object] = {name: getattr(options, name) for name in _SETTINGS}
    if options.per_section:
        settings["per_section"] = True
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
    smoothing, thickness, surroundings = (
        [max(getattr(options, name) / v, least) for v in raw.voxel_size]
        for name, least in (("smoothing_nm", 0), ("thickness_nm", _LEAST_SIGMA), ("surroundings_nm", 0))
    )
    if options.per_section:  # a filter of no width along z
        smoothing[0] = thickness[0] = surroundings[0] = 0
    near = [max(map(_radius, of)) for of in zip(smoothing, thickness, strict=True)]
    wide = [max(n, _radius(sigma)) for n, sigma in zip(near, surroundings, strict=True)]
    # One voxel more before: the other end of the first edges.
    region = Roi(block.write_roi.begin - Coordinate(1, 1, 1), block.write_roi.shape + Coordinate(1, 1, 1))
    grey_ZYX = raw.read_voxels(grow(region, wide), beyond="reflect").astype(np.float64)
    grey_ZYX /= _span(raw)
    if not np.isfinite(grey_ZYX).all():
        raise DataError(f"{raw.path} holds NaN or infinite values near {format_roi(region)}. Mend it.")
    mean, deviation = (_inner(part, wide) for part in _surroundings(grey_ZYX, surroundings))
    # The other filters reach less far: their arrays are smaller.
    grey_ZYX = _inner(grey_ZYX, [w - n for w, n in zip(wide, near, strict=True)])
    smooth = _inner(_blurred(grey_ZYX, smoothing), near)
    curvature = _inner(_curvature(grey_ZYX, thickness), near)
    dark = np.clip(0.5 + (mean - smooth) / (options.contrast * deviation), 0, 1)
    sheet = np.clip(curvature / (_SURE_SHEET * deviation), 0, 1)
    affinities = edges_of(np.sqrt(dark * sheet))
    for axis, begin in enumerate(block.write_roi.begin):
        if begin == output.roi_voxels.begin[axis]:
            np.moveaxis(affinities[axis], axis, 0)[0] = 0  # these edges lead out of the volume
    affinities = affinities[-len(options.offsets) :]
    output.write_voxels(block.write_roi, affinities)


def _surroundings(grey_ZYX: Grey, sigma: Sequence[float]) -> tuple[Grey, Grey]:
    """Return mean and standard deviation of the neighbourhood of each voxel."""
    mean = _blurred(grey_ZYX, sigma)
    variance = _blurred(grey_ZYX * grey_ZYX, sigma) - mean * mean
    return mean, np.sqrt(np.maximum(variance, _LEAST_DEVIATION**2))


def _inner(array_ZYX: Grey, margin: Sequence[int]) -> Grey:
    """Return the array without its margins, a copy, so that the whole can be let go."""
    window = tuple(slice(m, n - m) for m, n in zip(margin, array_ZYX.shape, strict=True))
    return array_ZYX[window].copy()


def _curvature(grey_ZYX: Grey, sigma: Sequence[float]) -> Grey:
    """Return the largest second derivative over all directions, in grey values a squared sigma."""
    second = np.empty((6, *grey_ZYX.shape))
    for k, (i, j) in enumerate(((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))):
        order = [0, 0, 0]
        order[i] += 1
        order[j] += 1
        second[k] = ndimage.gaussian_filter(grey_ZYX, sigma, order=order, truncate=_TRUNCATE, mode="nearest")
        second[k] *= sigma[i] * sigma[j]
    largest = np.empty(grey_ZYX.size)
    _largest_eigenvalues(second.reshape(6, -1), largest)
    return largest.reshape(grey_ZYX.shape)


@compiled
def _largest_eigenvalues(matrices: Grey, largest: Grey) -> None:
    """Fill in the largest eigenvalue of symmetric matrices, given as aa, bb, cc, ab, ac, bc (6 × n).

    Closed form (Smith, Communications of the ACM 4, 1961). Compiled, and one by one: vectorised cosines
    round differently at the end of an array, so that a voxel would depend on its block.
    """
    for n in range(largest.size):
        a, b, c, d, e, f = matrices[:, n]
        mean = (a + b + c) / 3
        a, b, c = a - mean, b - mean, c - mean
        size = math.sqrt((a * a + b * b + c * c + 2 * (d * d + e * e + f * f)) / 6)
        if size == 0:
            largest[n] = mean
            continue
        determinant = a * (b * c - f * f) - d * (d * c - f * e) + e * (d * f - b * e)
        angle = math.acos(min(max(determinant / (2 * size * size * size), -1.0), 1.0)) / 3
        largest[n] = mean + 2 * size * math.cos(angle)


def edges_of(boundary_ZYX: Grey) -> NDArray[np.uint8]:
    """Return the affinities (3, z, y, x; steps of 1/255) of a boundary map with one voxel more before."""
    own = boundary_ZYX[1:, 1:, 1:]
    before = (boundary_ZYX[:-1, 1:, 1:], boundary_ZYX[1:, :-1, 1:], boundary_ZYX[1:, 1:, :-1])
    strongest = np.stack([np.maximum(own, other) for other in before])
    return np.rint(255 * (1 - strongest)).astype(np.uint8)


def _radius(sigma: float) -> int:
    return int(_TRUNCATE * sigma + 0.5)


def _blurred(grey_ZYX: Grey, sigma: Sequence[float]) -> Any:
    return ndimage.gaussian_filter(grey_ZYX, sigma, truncate=_TRUNCATE, mode="nearest")
