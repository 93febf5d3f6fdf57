"""CLAHE in three dimensions: the arithmetic, without files.

Contrast-limited adaptive histogram equalisation (Zuiderveld, Graphics Gems IV, 1994) as the published incasem
computes it: grey values become 14 bits wide and fall into bins of 65; tiles of ``kernel`` voxels a side
have their centres on multiples of ``kernel`` from the volume's first voxel, so tile ``k`` covers
``[kernel*k - kernel//2, kernel*k - kernel//2 + kernel)``; each tile's clipped histogram gives a map from bin
to grey; a voxel takes the trilinear mixture of the maps of the eight tiles around it.

At the volume's border a tile counts the voxels that exist, scaled to a full tile; a tile without any takes
the map of its nearest neighbour. The result is therefore a function of the volume alone: each voxel's value
is computed by the same operations in the same order, however the volume is cut into blocks.

All positions here are voxels from the volume's first voxel, z, y, x.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from incasem.compiled import compiled
from incasem.errors import ConfigError, DataError, explain

LEVELS = 1 << 14
"""Grey levels that maps are computed in, whatever the input's width."""
BINS = 256
_BIN_WIDTH = 65
_LANES = 4
# Smaller tiles have fewer voxels than bins; of larger ones the squared voxel count leaves 64 bits.
MIN_KERNEL = 8
MAX_KERNEL = 1024


@dataclass(frozen=True)
class Clahe:
    """Settings of the equalisation.

    Attributes:
        kernel: side of a tile, voxels; 8 to 1024.
        clip_limit: largest share of a tile's voxels that one bin may hold; above 0, at most 1 (no clipping).
    """

    kernel: int = 128
    clip_limit: float = 0.02

    def __post_init__(self) -> None:
        """Refuse settings out of range.

        Raises:
            ConfigError: naming the setting, its value and the range.
        """
        if not MIN_KERNEL <= self.kernel <= MAX_KERNEL:
            raise ConfigError(
                explain(
                    "kernel_size",
                    self.kernel,
                    f"{MIN_KERNEL} to {MAX_KERNEL} voxels",
                    "The published value is 128",
                )
            )
        if not 0 < self.clip_limit <= 1:
            raise ConfigError(
                explain(
                    "clip_limit",
                    self.clip_limit,
                    "above 0, at most 1 (1 clips nothing)",
                    "The published value is 0.02",
                )
            )

    @property
    def tile_voxels(self) -> int:
        """Voxels in a full tile."""
        return self.kernel**3

    @property
    def bin_limit(self) -> int:
        """Largest count of one bin in a full tile."""
        return max(1, int(self.clip_limit * self.tile_voxels))

    def tiles_counted(self, begin: int, end: int) -> range:
        """Tiles that hold a voxel of ``[begin, end)`` on one axis."""
        half = self.kernel // 2
        return range((begin + half) // self.kernel, (end - 1 + half) // self.kernel + 1)

    def tiles_mixed(self, begin: int, end: int) -> range:
        """Tiles whose maps are mixed for ``[begin, end)`` on one axis; the last may hold no voxel."""
        return range(begin // self.kernel, (end - 1) // self.kernel + 2)


def check_dtype(dtype: np.dtype, path: str) -> None:
    """Refuse voxels that are not grey values of 8 or 16 bits.

    Raises:
        DataError: naming ``path`` and its dtype.
    """
    if dtype not in (np.uint8, np.uint16):
        raise DataError(
            explain(
                f"the dtype of {path}",
                dtype,
                "uint8, uint16",
                "Convert the stack again with a --conversion to uint8",
            )
        )


def bins_of_greys(dtype: np.dtype) -> NDArray[np.uint8]:
    """Return the bin (0…252) of each grey value of an unsigned ``dtype``."""
    top = np.iinfo(dtype).max
    # Half-way cases cannot occur: 255 and 65535 are odd and stay so after cancelling.
    levels = (2 * np.arange(top + 1, dtype=np.int64) * (LEVELS - 1) + top) // (2 * top)
    return (levels // _BIN_WIDTH).astype(np.uint8)


def count_block(block_ZYX: NDArray[Any], begin: Sequence[int], settings: Clahe) -> NDArray[np.uint32]:
    """Count a block's voxels by tile and bin.

    Args:
        block_ZYX: uint8 or uint16 voxels.
        begin: place of its first voxel.
        settings: tile size.

    Returns:
        counts_ZYXB, one row of 256 bins for each tile of ``settings.tiles_counted`` along each axis.
    """
    index = _indices(block_ZYX)
    half = settings.kernel // 2
    phase = [(b + half) % settings.kernel for b in begin]
    tiles = [len(settings.tiles_counted(b, b + n)) for b, n in zip(begin, block_ZYX.shape, strict=True)]
    counts = np.zeros((*tiles, _LANES, BINS), np.uint32)
    _count(index, phase[0], phase[1], phase[2], settings.kernel, counts)
    summed = counts.sum(axis=3, dtype=np.uint32)
    return summed if block_ZYX.dtype != np.uint8 else _fold_greys(summed)


def maps_of_tiles(counts_ZYXB: NDArray[Any], settings: Clahe) -> NDArray[np.int32]:
    """Return each tile's map from bin to grey level (14 bits).

    Args:
        counts_ZYXB: the voxels of whole tiles by bin; a tile may be partial but not empty.
        settings: tile size and clip limit.

    Returns:
        maps_ZYXB, same shape.
    """
    rows = np.ascontiguousarray(counts_ZYXB.reshape(-1, BINS), dtype=np.int64)
    maps = np.empty(rows.shape, np.int32)
    _maps(rows, settings.tile_voxels, settings.bin_limit, maps)
    return maps.reshape(counts_ZYXB.shape)


def clip_histogram(counts_B: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
    """Return a histogram whose bins hold at most ``limit``, the excess dealt out over the others.

    The dealing is that of `skimage.exposure.equalize_adapthist`, order included (see `_clip`).
    """
    clipped = counts_B.astype(np.int64)
    _clip(clipped, limit)
    return clipped


def equalize_block(
    block_ZYX: NDArray[Any], begin: Sequence[int], maps_ZYXB: NDArray[Any], settings: Clahe
) -> NDArray[Any]:
    """Equalise a block.

    Args:
        block_ZYX: uint8 or uint16 voxels.
        begin: place of its first voxel.
        maps_ZYXB: maps of the tiles ``settings.tiles_mixed`` along each axis.
        settings: tile size.

    Returns:
        voxels of the same shape and dtype.
    """
    index = _indices(block_ZYX)
    maps = np.asarray(maps_ZYXB, np.float64)
    if block_ZYX.dtype == np.uint8:
        maps = maps[..., bins_of_greys(block_ZYX.dtype)]
    out = np.empty_like(index, dtype=block_ZYX.dtype)
    phase = [b % settings.kernel for b in begin]
    top = int(np.iinfo(block_ZYX.dtype).max)
    _mix(index, np.ascontiguousarray(maps), phase[0], phase[1], phase[2], settings.kernel, top, out)
    return out


def _indices(block_ZYX: NDArray[Any]) -> NDArray[np.uint8]:
    """What the loops look up by: the grey itself for 8 bits (no pass over the data), the bin for 16 bits."""
    if block_ZYX.dtype == np.uint8:
        return np.ascontiguousarray(block_ZYX)
    return np.take(bins_of_greys(block_ZYX.dtype), block_ZYX)


def _fold_greys(counts_ZYXG: NDArray[np.uint32]) -> NDArray[np.uint32]:
    folded = np.zeros_like(counts_ZYXG)
    for grey, grey_bin in enumerate(bins_of_greys(np.dtype(np.uint8))):
        folded[..., grey_bin] += counts_ZYXG[..., grey]
    return folded


@compiled
def _count(index, phase_z, phase_y, phase_x, kernel, counts):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    depth, height, width = index.shape
    for z in range(depth):
        tile_z = (z + phase_z) // kernel
        for y in range(height):
            row = index[z, y]
            row_counts = counts[tile_z, (y + phase_y) // kernel]
            begin = 0
            for tile_x in range(row_counts.shape[0]):
                end = min(width, (tile_x + 1) * kernel - phase_x)
                # Equal neighbours would wait for each other's count; four rows of bins break the chain.
                lanes = row_counts[tile_x]
                for x in range(begin, end - 3, 4):
                    lanes[0, row[x]] += 1
                    lanes[1, row[x + 1]] += 1
                    lanes[2, row[x + 2]] += 1
                    lanes[3, row[x + 3]] += 1
                for x in range(end - (end - begin) % 4, end):
                    lanes[0, row[x]] += 1
                begin = end


@compiled
def _clip(counts, limit):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    """Clip one histogram in place.

    1. The counts above the limit are cut off; the integer share of a bin goes to each bin.
    2. A bin that comes within one share of the limit is filled up to it: it would have been lifted over it
       by a second share. What that takes is subtracted from the remainder, which may thereby become negative.
    3. A positive remainder is dealt out one by one over bins below the limit, with a stride that spreads it;
       each round starts one bin later.
    """
    bins = counts.size
    excess = 0
    for b in range(bins):
        if counts[b] > limit:
            excess += counts[b] - limit
            counts[b] = limit
    share = excess // bins
    for b in range(bins):
        if counts[b] < limit - share:
            counts[b] += share
            excess -= share
        if limit - share <= counts[b] < limit:
            excess -= limit - counts[b]
            counts[b] = limit
    while excess > 0:
        before = excess
        for start in range(bins):
            below = 0
            for b in range(bins):
                below += counts[b] < limit
            stride = max(1, below // excess)
            for b in range(start, bins, stride):
                if counts[b] < limit:
                    counts[b] += 1
                    excess -= 1
            if excess <= 0:
                break
        if excess == before:
            break


@compiled
def _maps(rows, tile_voxels, limit, maps):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    bins = rows.shape[1]
    full = np.empty(bins, np.int64)
    for r in range(rows.shape[0]):
        existing = rows[r].sum()
        # Scaled by differences of the scaled cumulated counts, so that they stay whole and sum to a tile.
        cumulated = 0
        for b in range(bins):
            before = cumulated * tile_voxels // existing
            cumulated += rows[r, b]
            full[b] = cumulated * tile_voxels // existing - before
        _clip(full, limit)
        cumulated = 0
        for b in range(bins):
            cumulated += full[b]
            maps[r, b] = min(LEVELS - 1, cumulated * (LEVELS - 1) // tile_voxels)


@compiled
def _mix(index, maps, phase_z, phase_y, phase_x, kernel, top, out):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    """Mix maps by plane, then by row, so that a voxel needs two look-ups instead of eight.

    float64: with a kernel that is a power of two all products and sums are exact.
    """
    depth, height, width = index.shape
    columns = maps.shape[2]
    plane = np.empty(maps.shape[1:], np.float64)
    row_maps = np.empty(maps.shape[2:], np.float64)
    start = np.empty(maps.shape[3], np.float64)
    rise = np.empty(maps.shape[3], np.float64)
    for z in range(depth):
        tile_z = (z + phase_z) // kernel
        weight = (z + phase_z) % kernel / kernel
        for r in range(plane.shape[0]):
            for c in range(columns):
                for g in range(plane.shape[2]):
                    near = maps[tile_z, r, c, g]
                    plane[r, c, g] = near + weight * (maps[tile_z + 1, r, c, g] - near)
        for y in range(height):
            tile_y = (y + phase_y) // kernel
            weight = (y + phase_y) % kernel / kernel
            for c in range(columns):
                for g in range(plane.shape[2]):
                    near = plane[tile_y, c, g]
                    row_maps[c, g] = near + weight * (plane[tile_y + 1, c, g] - near)
            begin = 0
            for c in range(columns - 1):
                end = min(width, (c + 1) * kernel - phase_x)
                for g in range(plane.shape[2]):
                    start[g] = row_maps[c, g]
                    rise[g] = (row_maps[c + 1, g] - row_maps[c, g]) / kernel
                for x in range(begin, end):
                    g = index[z, y, x]
                    offset = x + phase_x - c * kernel
                    level = np.uint32(start[g] + rise[g] * offset)
                    out[z, y, x] = level * np.uint32(top) // np.uint32(LEVELS - 1)
                begin = end
