"""Affinities of generated neurites, block by block and of any size, for tests and benchmarks.

No image and no network stand behind it: a partition of space that can be evaluated at any voxel, and the map
that a fairly good network would make of it. Neurites run along z, each around a centre that meanders; they
are the Voronoi cells of these centres and end after a while, where the next one begins. The affinity of two
voxels of one neurite rises with their distance from its membrane; a smooth random field weakens it here and
lets membranes leak there, so that a watershed finds several fragments a neurite, as it does on real maps.

Values depend on the voxel's place and the seed only: blocks fit together, whatever their size.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from incasem.compiled import compiled

__all__ = ["AffinityPhantom"]

_NEAREST = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
_LATTICE = 4  # voxels between the random values of the smooth field
_SEARCH = 2  # lattice cells on each side in which the nearest centre is looked for


@dataclass(frozen=True)
class AffinityPhantom:
    """A map of affinities and the neurites behind it.

    Attributes:
        seed: of all that is random.
        spacing_voxels: mean distance of the neurites' centres.
        membrane_voxels: distance from the membrane at which an affinity reaches one half.
        noise: amplitude of the smooth random field, on the scale of affinities; 0 for a perfect map.
        offsets: the other end of each channel's edge; voxels, z, y, x.
    """

    seed: int = 0
    spacing_voxels: float = 24.0
    membrane_voxels: float = 1.3
    noise: float = 0.25
    offsets: Sequence[Sequence[int]] = _NEAREST

    def block(
        self, begin: Sequence[int], shape: Sequence[int]
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint64]]:
        """Return a block of the map: affinities (channels, z, y, x) in 255 steps, and ids (z, y, x).

        Args:
            begin: first voxel, z, y, x; any whole numbers.
            shape: voxels.

        The ids are unlike each other and large; 0 does not occur. Edges that leave the block are those of
        the endless volume: whoever stores a map decides what stands at its border.
        """
        offsets = np.asarray(self.offsets, np.int64).reshape(-1, 3)
        before = -np.minimum(offsets.min(axis=0), 0)
        after = np.maximum(offsets.max(axis=0), 0)
        first = np.asarray(begin, np.int64) - before
        extent = np.asarray(shape, np.int64) + before + after
        ids, inside = _neurites(
            first, extent, np.uint64(self.seed), self.spacing_voxels, self.membrane_voxels
        )
        if self.noise:
            lattice_first = first // _LATTICE
            points = (first + extent - 1) // _LATTICE - lattice_first + 2
            _add_field(
                inside,
                _random_lattice(lattice_first, points, np.uint64(self.seed)),
                first - lattice_first * _LATTICE,
                np.float32(self.noise),
            )
        affinities = np.empty((len(offsets), *(int(s) for s in shape)), np.uint8)
        for channel, offset in zip(affinities, offsets, strict=True):
            _edges(ids, inside, before, offset, channel)
        inner = tuple(slice(int(b), int(b + s)) for b, s in zip(before, shape, strict=True))
        return affinities, np.ascontiguousarray(ids[inner])


@compiled
def _mixed(value: np.uint64) -> np.uint64:
    """Scramble 64 bits (the finaliser of SplitMix64; Steele, Lea & Flood 2014)."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@compiled
def _uniform(a: int, b: int, c: int, seed: np.uint64) -> float:
    """Return a number from 0 to 1 that belongs to three integers."""
    value = _mixed(np.uint64(a) + seed * np.uint64(0x9E3779B97F4A7C15))
    value = _mixed(value + np.uint64(b) * np.uint64(0xD6E8FEB86659FD93))
    value = _mixed(value + np.uint64(c) * np.uint64(0xA0761D6478BD642F))
    return np.float64(value >> np.uint64(11)) / 9007199254740992.0


@compiled
def _centre(i: int, j: int, z: int, seed: np.uint64, spacing: float) -> tuple[float, float]:
    """Return where the centre of the neurite of lattice cell (i, j) lies in section z; voxels, y, x."""
    phase = 6.2832 * (_uniform(i, j, 0, seed) + z / (spacing * (4 + 6 * _uniform(i, j, 1, seed))))
    y = i + 0.5 + 0.7 * (_uniform(i, j, 2, seed) - 0.5) + 0.3 * np.sin(phase)
    x = j + 0.5 + 0.7 * (_uniform(i, j, 3, seed) - 0.5) + 0.3 * np.cos(1.3 * phase)
    return y * spacing, x * spacing


@compiled
def _neurites(
    first: NDArray[np.int64], extent: NDArray[np.int64], seed: np.uint64, spacing: float, membrane: float
) -> tuple[NDArray[np.uint64], NDArray[np.float32]]:
    """Return the id of each voxel, and how far inside its neurite it lies, from 0 to 1."""
    ids = np.empty((extent[0], extent[1], extent[2]), np.uint64)
    inside = np.empty((extent[0], extent[1], extent[2]), np.float32)
    i0 = int(np.floor(first[1] / spacing)) - _SEARCH
    j0 = int(np.floor(first[2] / spacing)) - _SEARCH
    rows = int(np.floor((first[1] + extent[1] - 1) / spacing)) + _SEARCH + 1 - i0
    columns = int(np.floor((first[2] + extent[2] - 1) / spacing)) + _SEARCH + 1 - j0
    centres = np.empty((rows, columns, 2), np.float64)
    ends = np.empty((rows, columns, 2), np.float64)  # which piece of the neurite, and how far its end is
    for k in range(extent[0]):
        z = first[0] + k
        for i in range(rows):
            for j in range(columns):
                centres[i, j, 0], centres[i, j, 1] = _centre(i + i0, j + j0, z, seed, spacing)
                length = spacing * (3 + 5 * _uniform(i + i0, j + j0, 4, seed))
                at = (z + 0.5) / length + _uniform(i + i0, j + j0, 5, seed)
                ends[i, j, 0] = np.floor(at)
                ends[i, j, 1] = min(at - np.floor(at), np.floor(at) + 1 - at) * length
        for y in range(extent[1]):
            for x in range(extent[2]):
                py, px = first[1] + y, first[2] + x
                ci, cj = int(np.floor(py / spacing)) - i0, int(np.floor(px / spacing)) - j0
                best, second, bi, bj, si, sj = 1e30, 1e30, 0, 0, 0, 0
                for i in range(ci - _SEARCH, ci + _SEARCH + 1):
                    for j in range(cj - _SEARCH, cj + _SEARCH + 1):
                        dy, dx = centres[i, j, 0] - py, centres[i, j, 1] - px
                        distance = dy * dy + dx * dx
                        if distance < best:
                            second, si, sj = best, bi, bj
                            best, bi, bj = distance, i, j
                        elif distance < second:
                            second, si, sj = distance, i, j
                apart = np.hypot(
                    centres[bi, bj, 0] - centres[si, sj, 0], centres[bi, bj, 1] - centres[si, sj, 1]
                )
                depth = min((second - best) / (2 * apart + 1e-9), ends[bi, bj, 1])
                inside[k, y, x] = 1 / (1 + np.exp((membrane - depth) * 1.6))
                piece = np.uint64(np.int64(ends[bi, bj, 0]) & 0xFFFFF)
                ids[k, y, x] = (
                    (np.uint64((bi + i0) & 0x1FFFFF) << np.uint64(42))
                    | (np.uint64((bj + j0) & 0x1FFFFF) << np.uint64(21))
                    | (piece + np.uint64(1))
                )
    return ids, inside


@compiled
def _random_lattice(
    first: NDArray[np.int64], points: NDArray[np.int64], seed: np.uint64
) -> NDArray[np.float32]:
    """Return the random values of a part of the field's lattice, from -1 to 1."""
    values = np.empty((points[0], points[1], points[2]), np.float32)
    for i in range(points[0]):
        for j in range(points[1]):
            for k in range(points[2]):
                uniform = _uniform(first[0] + i, first[1] + j, first[2] + k, seed + np.uint64(77))
                values[i, j, k] = 2 * uniform - 1
    return values


@compiled
def _add_field(
    values: NDArray[np.float32], lattice: NDArray[np.float32], shift: NDArray[np.int64], amplitude: np.float32
) -> None:
    """Add the lattice's values, interpolated linearly."""
    size = np.float32(_LATTICE)
    line = np.empty(lattice.shape[2], np.float32)
    for z in range(values.shape[0]):
        i, wz = (z + shift[0]) // _LATTICE, np.float32((z + shift[0]) % _LATTICE) / size
        for y in range(values.shape[1]):
            j, wy = (y + shift[1]) // _LATTICE, np.float32((y + shift[1]) % _LATTICE) / size
            for k in range(lattice.shape[2]):
                low = lattice[i, j, k] * (1 - wy) + lattice[i, j + 1, k] * wy
                high = lattice[i + 1, j, k] * (1 - wy) + lattice[i + 1, j + 1, k] * wy
                line[k] = amplitude * (low * (1 - wz) + high * wz)
            for x in range(values.shape[2]):
                k, wx = (x + shift[2]) // _LATTICE, np.float32((x + shift[2]) % _LATTICE) / size
                values[z, y, x] += line[k] * (1 - wx) + line[k + 1] * wx


@compiled
def _edges(
    ids: NDArray[np.uint64],
    inside: NDArray[np.float32],
    before: NDArray[np.int64],
    offset: NDArray[np.int64],
    out: NDArray[np.uint8],
) -> None:
    """Write the affinity of each voxel to the one at ``offset``: that of the end nearer to a membrane."""
    for z in range(out.shape[0]):
        for y in range(out.shape[1]):
            for x in range(out.shape[2]):
                k, j, i = z + before[0], y + before[1], x + before[2]
                kk, jj, ii = k + offset[0], j + offset[1], i + offset[2]
                value = min(inside[k, j, i], inside[kk, jj, ii])
                if ids[k, j, i] != ids[kk, jj, ii]:
                    value -= np.float32(0.3)
                out[z, y, x] = np.uint8(min(max(value * 255 + 0.5, 0.0), 255.0))
