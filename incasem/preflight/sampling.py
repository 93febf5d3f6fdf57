"""Looking at a volume of any size in bounded time: whole where it is small, else chunks spread over it.

What is read at a time is one chunk, so that nothing is decoded in vain; of very large chunks (a whole image
of a stack) only the middle is kept.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from incasem.geometry import Coordinate, Roi
from incasem.volumes import Volume

MOST_VOXELS = 2**26
"""Decoded of one dataset: a second or two."""
_COLUMNS = 4
_LARGEST_EDGE = 1024
_PIXELS_COMPARED = 4096
_ALIKE = 0.2


@dataclass(frozen=True)
class Sample:
    """Which parts of a region are looked at.

    Attributes:
        boxes: absolute voxels; those of a run of chunks along z follow one another.
        runs: number of the run that each box belongs to.
        share: of the region's voxels.
    """

    boxes: tuple[Roi, ...]
    runs: tuple[int, ...]
    share: float

    @property
    def whole(self) -> bool:
        """Whether everything is looked at, so that what was not seen is not there."""
        return self.share >= 1


def choose_sample(volume: Volume, roi_voxels: Roi, most_voxels: int = MOST_VOXELS) -> Sample:
    """Return the parts of a region to look at: all of it, or chunks of a few columns along z.

    Args:
        volume: its chunks are the unit.
        roi_voxels: inside the volume, absolute voxels.
        most_voxels: to be decoded.
    """
    origin = volume.roi_voxels.begin
    chunk = tuple(min(c, s) for c, s in zip(volume.chunk_shape[-3:], volume.shape[-3:], strict=True))
    first = [(b - o) // c for b, o, c in zip(roi_voxels.begin, origin, chunk, strict=True)]
    last = [-(-(e - o) // c) for e, o, c in zip(roi_voxels.end, origin, chunk, strict=True)]
    counts = [b - a for a, b in zip(first, last, strict=True)]
    affordable = max(8, most_voxels // math.prod(chunk))
    if math.prod(counts) <= affordable:
        columns = [(y, x) for y in range(counts[1]) for x in range(counts[2])]
        depths = [range(counts[0])]
    else:
        across = _spread(counts[1] * counts[2], _COLUMNS)
        columns = [divmod(position, counts[2]) for position in across]
        depths = _runs(counts[0], max(1, affordable // len(columns)), chunk[0])
    boxes: list[Roi] = []
    runs: list[int] = []
    for y, x in columns:
        for depth in depths:
            for z in depth:
                begin = Coordinate((f + i) * c for f, i, c in zip(first, (z, y, x), chunk, strict=True))
                boxes.append(_middle(Roi(begin + origin, chunk).intersect(roi_voxels)))
                runs.append(len(runs) if z == depth[0] else runs[-1])
    return Sample(tuple(boxes), tuple(runs), sum(box.size for box in boxes) / roi_voxels.size)


def _spread(count: int, wanted: int) -> list[int]:
    """Return up to ``wanted`` positions of ``count``, from the middle of equal parts."""
    taken = min(count, wanted)
    return [int((i + 0.5) * count / taken) for i in range(taken)]


def _runs(count: int, wanted: int, depth: int) -> list[range]:
    """Return runs of neighbouring positions: sections can only be compared with their neighbours."""
    if wanted >= count:
        return [range(count)]
    length = min(max(1, -(-4 // depth)), wanted)
    return [
        range(i * length, i * length + length) for i in _spread(count // length, max(1, wanted // length))
    ]


def _middle(roi: Roi) -> Roi:
    """Return a region with y and x cut to their middle where they are very large."""
    size = [roi.shape[0], *(min(s, _LARGEST_EDGE) for s in roi.shape[1:])]
    begin = [b + (s - n) // 2 for b, s, n in zip(roi.begin, roi.shape, size, strict=True)]
    return Roi(begin, size)


@dataclass
class GreyValues:
    """What a sample says of grey values.

    Attributes:
        low, high: the smallest and largest finite value.
        percentiles: the values that 1, 50 and 99 % of the voxels lie below (of a part of them).
        not_finite: voxels that are NaN or infinite.
        flat: sections (z, absolute voxels) of one value in all that was read of them.
        inverted: sections that look like the negative of their neighbours, which are like one another.
        sample: what was read.
    """

    low: float = math.inf
    high: float = -math.inf
    percentiles: tuple[float, float, float] = (0.0, 0.0, 0.0)
    not_finite: int = 0
    flat: list[int] = field(default_factory=list)
    inverted: list[int] = field(default_factory=list)
    sample: Sample = field(default_factory=lambda: Sample((), (), 0.0))


def look_at_grey_values(volume: Volume, roi_voxels: Roi) -> GreyValues:
    """Return what a bounded sample of a region says of its grey values.

    Raises:
        DataError: a chunk cannot be read.
    """
    sample = choose_sample(volume, roi_voxels)
    seen = GreyValues(sample=sample)
    ranges: dict[int, tuple[float, float]] = {}
    votes: dict[int, list[bool]] = {}
    some: list[NDArray[np.float64]] = []
    for box, array_ZYX, before in _boxes_in_runs(volume, sample):
        finite = np.isfinite(array_ZYX) if array_ZYX.dtype.kind == "f" else None
        if finite is not None and not finite.all():
            seen.not_finite += int((~finite).sum())
            array_ZYX = np.where(finite, array_ZYX, 0)
        flat = array_ZYX.reshape(len(array_ZYX), -1)
        lows, highs = flat.min(axis=1), flat.max(axis=1)
        for z, low, high in zip(range(box.begin[0], box.end[0]), lows, highs, strict=True):
            known = ranges.get(z, (math.inf, -math.inf))
            ranges[z] = (min(known[0], float(low)), max(known[1], float(high)))
        some.append(flat[:, :: max(1, flat.size // 100_000)].ravel().astype(np.float64))
        for z, opposite in _opposites(flat, box.begin[0], before):
            votes.setdefault(z, []).append(opposite)
    seen.low = min((low for low, _ in ranges.values()), default=0.0)
    seen.high = max((high for _, high in ranges.values()), default=0.0)
    one, half, most = np.percentile(np.concatenate(some), (1, 50, 99)) if some else (0.0, 0.0, 0.0)
    seen.percentiles = (float(one), float(half), float(most))
    if seen.high > seen.low:
        seen.flat = sorted(z for z, (low, high) in ranges.items() if low == high)
    seen.inverted = sorted(z for z, said in votes.items() if sum(said) * 2 > len(said))
    return seen


def _boxes_in_runs(
    volume: Volume, sample: Sample
) -> Iterator[tuple[Roi, NDArray[np.generic], NDArray[np.float64] | None]]:
    """Yield box, values and the last two sections (flat, thinned out) of the box before it in its run."""
    tail: NDArray[np.float64] | None = None
    for index, (box, run) in enumerate(zip(sample.boxes, sample.runs, strict=True)):
        follows = index > 0 and sample.runs[index - 1] == run
        array = volume.read_voxels(box)
        yield box, array, tail if follows else None
        thin = _thinned(array.reshape(len(array), -1))
        tail = (thin if tail is None or not follows else np.concatenate([tail, thin]))[-2:]


def _thinned(flat: NDArray[np.generic]) -> NDArray[np.float64]:
    step = max(1, flat.shape[1] // _PIXELS_COMPARED)
    return np.nan_to_num(flat[:, ::step].astype(np.float64), posinf=0, neginf=0)


def _opposites(
    flat: NDArray[np.generic], first_z: int, before: NDArray[np.float64] | None
) -> Iterator[tuple[int, bool]]:
    """Yield (z, whether the section is its neighbours' negative) of all sections with two neighbours."""
    thin = _thinned(flat)
    if before is not None:
        thin, first_z = np.concatenate([before, thin]), first_z - len(before)
    centred = thin - thin.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(centred, axis=1)
    unit = centred / np.where(norms > 0, norms, 1)[:, None]
    next_one = (unit[:-1] * unit[1:]).sum(axis=1)
    next_but_one = (unit[:-2] * unit[2:]).sum(axis=1)
    for i, around in enumerate(next_but_one, start=1):
        yield first_z + i, bool(next_one[i - 1] < -_ALIKE and next_one[i] < -_ALIKE and around > _ALIKE)
