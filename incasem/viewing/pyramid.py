"""A volume at several resolutions, read piece by piece.

A viewer asks for pieces of the volume at factors (voxels of the finest level to one on the screen, per
axis). Each piece comes from the coarsest stored level whose factor divides the wanted one; what is left is
averaged (grey values) or sampled (labels). Nothing is read before it is asked for.
"""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from incasem.errors import DataError, explain
from incasem.geometry import Coordinate, Roi, format_roi
from incasem.viewing.datasets import Dataset, Selection
from incasem.volumes import Volume, open_volume

logger = logging.getLogger(__name__)

CACHE_BYTES = 512 * 2**20
"""Decoded chunks that are kept: what a viewer asks for is smaller than chunks on disk often are."""

Factor = tuple[int, int, int]


@dataclass(frozen=True)
class Level:
    """One stored resolution.

    Attributes:
        volume: its array; its first voxel begins where the finest level's does.
        factor: voxels of the finest level to one of this; z, y, x.
    """

    volume: Volume
    factor: Factor

    def read(self, roi_voxels: Roi) -> NDArray[Any]:
        """Return the voxels of a ROI on the level's absolute grid; shape (c,) z, y, x.

        Of image stacks, whole sections are decoded and kept: a piece takes a little of many of them.
        """
        if self.volume.chunk_shape[-3:] != (1, *self.volume.shape[-2:]):
            return self.volume.read_voxels(roi_voxels)
        begin, end = roi_voxels.begin, roi_voxels.end
        corner = self.volume.roi_voxels.begin
        rows, columns = (slice(int(begin[a] - corner[a]), int(end[a] - corner[a])) for a in (1, 2))
        sections = [self._section(z)[..., rows, columns] for z in range(int(begin[0]), int(end[0]))]
        return np.concatenate(sections, axis=-3)

    @cached_property
    def _section(self) -> Callable[[int], NDArray[Any]]:
        whole = self.volume.roi_voxels
        voxels = math.prod(self.volume.shape) // self.volume.shape[-3]

        def read(z: int) -> NDArray[Any]:
            begin = Coordinate((z, *whole.begin[1:]))
            return self.volume.read_voxels(Roi(begin, (1, *whole.shape[1:])))

        return lru_cache(max(1, CACHE_BYTES // (voxels * self.volume.dtype.itemsize)))(read)


@dataclass(frozen=True)
class Pyramid:
    """A volume, or a box of it, at one or more resolutions.

    Attributes:
        path: as given.
        levels: the finest first, whose factor is 1, 1, 1.
        roi_voxels: what is shown, on the finest level's absolute grid.
        channels: of an array with channels, which of them; an int leaves three axes.
    """

    path: str
    levels: tuple[Level, ...]
    roi_voxels: Roi
    channels: slice | int | None = None

    @property
    def voxel_size(self) -> tuple[float, float, float]:
        """Of the finest level; nm, z, y, x."""
        return self.levels[0].volume.voxel_size

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the elements."""
        return self.levels[0].volume.dtype

    @property
    def num_channels(self) -> int | None:
        """Number of channels, or None for an array without a channel axis."""
        if isinstance(self.channels, slice):
            return len(range(*self.channels.indices(self.levels[0].volume.shape[0])))
        return None

    @property
    def coarsest(self) -> Factor:
        """Factor of the coarsest stored level."""
        return self.levels[-1].factor

    def shape_at(self, factor: Factor) -> Factor:
        """Return the voxels of what is shown at ``factor``, a last partial voxel counted."""
        z, y, x = (-(-n // f) for n, f in zip(self.roi_voxels.shape, factor, strict=True))
        return (int(z), int(y), int(x))

    def read(
        self, factor: Factor, begin: Sequence[int], end: Sequence[int], *, average: bool
    ) -> NDArray[Any]:
        """Return a piece at a resolution; shape (c,) z, y, x.

        Args:
            factor: voxels of the finest level to one of the result; z, y, x.
            begin: first voxel of the piece at this resolution, counted from the corner of what is shown.
            end: behind its last voxel; at most `shape_at`.
            average: grey values: the mean of the voxels that exist; otherwise (labels) the value in the
                middle.

        Raises:
            DataError: a chunk cannot be read.
        """
        level = self._level_for(factor)
        rest = [f // stored for f, stored in zip(factor, level.factor, strict=True)]
        corner = self._corner_in(level)
        limit = level.volume.shape[-3:]
        low = [min(c + b * r, n) for c, b, r, n in zip(corner, begin, rest, limit, strict=True)]
        stop = [
            min(c + e * r, c + -(-int(size) // f), n)
            for c, e, r, size, f, n in zip(
                corner, end, rest, self.roi_voxels.shape, level.factor, limit, strict=True
            )
        ]
        wanted = [e - b for b, e in zip(begin, end, strict=True)]
        if any(s <= b for b, s in zip(low, stop, strict=True)):
            # A coarse level that was cut short lacks its last, partial voxel.
            return np.zeros([*self._channel_shape(), *wanted], self.dtype)
        origin = level.volume.roi_voxels.begin
        roi = Roi(origin + Coordinate(low), [s - b for b, s in zip(low, stop, strict=True)])
        piece = self._of_channels(level.read(roi))
        reduced = _averaged(piece, rest) if average else _sampled(piece, rest)
        return _padded(reduced, wanted)

    def sample(self, edge: int) -> NDArray[Any]:
        """Return about ``edge``³ voxels of the coarsest level from the middle of what is shown."""
        shape = self.shape_at(self.coarsest)
        low = [max(0, (n - edge) // 2) for n in shape]
        high = [min(n, b + edge) for n, b in zip(shape, low, strict=True)]
        return self.read(self.coarsest, low, high, average=False)

    def finest_within(self, voxels: int, limit: int) -> Factor | None:
        """Return the factor at which all that is shown has at most ``voxels`` voxels.

        Args:
            voxels: allowed at the returned factor.
            limit: voxels of a stored level that may be read for it.

        Returns:
            A stored level's factor times a power of two; None where too much would have to be read.
        """
        for level in self.levels:
            stored = math.prod(self.shape_at(level.factor))
            if stored > limit:
                continue
            factor = level.factor
            while math.prod(self.shape_at(factor)) > voxels:
                factor = (factor[0] * 2, factor[1] * 2, factor[2] * 2)
            return factor
        return None

    def _level_for(self, factor: Factor) -> Level:
        return next(
            level
            for level in reversed(self.levels)
            if all(f % stored == 0 for f, stored in zip(factor, level.factor, strict=True))
            and all(o % stored == 0 for o, stored in zip(self._crop(), level.factor, strict=True))
        )

    def _crop(self) -> list[int]:
        """Return how far what is shown begins behind the volume's corner; voxels of the finest level."""
        pairs = zip(self.roi_voxels.begin, self.levels[0].volume.roi_voxels.begin, strict=True)
        return [int(b - o) for b, o in pairs]

    def _corner_in(self, level: Level) -> list[int]:
        return [o // f for o, f in zip(self._crop(), level.factor, strict=True)]

    def _channel_shape(self) -> tuple[int, ...]:
        return () if self.num_channels is None else (self.num_channels,)

    def _of_channels(self, piece: NDArray[Any]) -> NDArray[Any]:
        return piece if self.channels is None else piece[self.channels]


def _averaged(piece: NDArray[Any], factor: Sequence[int]) -> NDArray[Any]:
    """Return the mean of each box of ``factor`` voxels; boxes at the end hold fewer."""
    if max(factor) == 1:
        return piece
    total: NDArray[Any] = piece.astype(np.float32)
    for axis, f in zip((-3, -2, -1), factor, strict=True):
        if f > 1:
            n = total.shape[axis]
            starts = np.arange(0, n, f)
            shape = [1] * total.ndim
            shape[axis] = len(starts)
            counts = np.minimum(starts + f, n) - starts
            total = np.add.reduceat(total, starts, axis=axis) / counts.reshape(shape).astype(np.float32)
    if np.issubdtype(piece.dtype, np.integer) or piece.dtype == bool:
        total = np.rint(total)
    return total.astype(piece.dtype)


def _sampled(piece: NDArray[Any], factor: Sequence[int]) -> NDArray[Any]:
    """Return the value in the middle of each box of ``factor`` voxels, or the last one of a shorter box."""
    for axis, f in zip((-3, -2, -1), factor, strict=True):
        if f > 1:
            n = piece.shape[axis]
            middles = np.minimum(np.arange(0, n, f) + f // 2, n - 1)
            piece = np.take(piece, middles, axis=axis)
    return piece


def _padded(piece: NDArray[Any], wanted: Sequence[int]) -> NDArray[Any]:
    missing = [w - n for w, n in zip(wanted, piece.shape[-3:], strict=True)]
    if max(missing) <= 0:
        return piece
    before: list[tuple[int, int]] = [(0, 0)] * (piece.ndim - 3)
    return np.pad(piece, before + [(0, m) for m in missing], mode="edge")


def open_pyramid(dataset: Dataset, voxel_size: Sequence[float] | None = None) -> Pyramid:
    """Open a dataset's arrays, and cut out what its indices say.

    Args:
        dataset: from `find_datasets`.
        voxel_size: of the finest level, instead of what the file states; nm, z, y, x.

    Raises:
        DataError: an array cannot be opened; indices outside the array, or too many of them.
    """
    finest = open_volume(dataset.levels[0], cache_bytes=CACHE_BYTES, voxel_size=voxel_size)
    levels = [Level(finest, (1, 1, 1))]
    for path in dataset.levels[1:]:
        # Coarse voxels need not begin on their own absolute grid; here they begin where the finest do.
        volume = open_volume(path, cache_bytes=CACHE_BYTES, offset_nm=(0, 0, 0))
        factor = _factor(finest, volume)
        if factor is None:
            logger.warning(
                "%s is left out: its voxels are not whole multiples of those of %s", path, finest.path
            )
        else:
            levels.append(Level(volume, factor))
    levels.sort(key=lambda level: math.prod(level.factor))
    channels: slice | int | None = None
    if finest.axes[0] == "c":
        channels = 0 if finest.shape[0] == 1 else slice(None)
    pyramid = Pyramid(dataset.path, tuple(levels), finest.roi_voxels, channels)
    return select(pyramid, dataset.selection)


def _factor(finest: Volume, coarse: Volume) -> Factor | None:
    """Return how many voxels of ``finest`` make one of ``coarse``, or None where that is no whole number."""
    if finest.axes != coarse.axes or finest.dtype != coarse.dtype:
        return None
    if coarse.has_stated_place and finest.has_stated_place:
        ratios = [c / f for c, f in zip(coarse.voxel_size, finest.voxel_size, strict=True)]
    else:
        ratios = [f / c for c, f in zip(coarse.shape[-3:], finest.shape[-3:], strict=True)]
    whole = [round(ratio) for ratio in ratios]
    if min(whole) < 1 or any(abs(r - w) > 0.02 * w for r, w in zip(ratios, whole, strict=True)):
        return None
    return (whole[0], whole[1], whole[2])


def select(pyramid: Pyramid, selection: Selection) -> Pyramid:
    """Return the part of a pyramid that indices of its first axes name.

    An index of a spatial axis leaves a slice of one voxel in its place.

    Raises:
        DataError: outside the array, or more indices than axes.
    """
    if not selection:
        return pyramid
    shape = pyramid.levels[0].volume.shape
    if len(selection) > len(shape):
        raise _outside(pyramid, selection)
    ranges = [
        range(n)[i : i + 1 or None] if isinstance(i, int) else range(n)[i]
        for i, n in _pairs(selection, shape)
    ]
    if not all(ranges):
        raise _outside(pyramid, selection)
    channels = pyramid.channels
    if channels is not None:
        first, *ranges = ranges
        channels = first[0] if isinstance(selection[0], int) else slice(first[0], first[-1] + 1)
    begin = pyramid.roi_voxels.begin + Coordinate(r[0] for r in ranges)
    return replace(pyramid, roi_voxels=Roi(begin, [len(r) for r in ranges]), channels=channels)


def _pairs(selection: Selection, shape: tuple[int, ...]) -> list[tuple[int | slice, int]]:
    rest = (slice(None),) * (len(shape) - len(selection))
    return list(zip((*selection, *rest), shape, strict=True))


def _outside(pyramid: Pyramid, selection: Selection) -> DataError:
    words = ", ".join(
        str(i)
        if isinstance(i, int)
        else f"{'' if i.start is None else i.start}:{'' if i.stop is None else i.stop}"
        for i in selection
    )
    shape = pyramid.levels[0].volume.shape
    return DataError(
        explain(
            f"the indices of {pyramid.path}",
            f"[{words}]",
            f"indices within its shape {shape}, axes {', '.join(pyramid.levels[0].volume.axes)}",
            f"It covers {format_roi(pyramid.roi_voxels)} on the absolute voxel grid; indices count from its "
            "first element",
        )
    )
