"""What belongs together across blocks: pieces, their faces, and the fragments that they make.

Each block stores a table of its pieces; neighbours compare their faces (`start_matching`); one small sum over
all of it (`join`) gives each piece the number of its fragment. Memory: about 40 bytes a
piece and 16 a pair of touching pieces.

Two pieces are one fragment where they are a *pair*. Where pieces put together to a core of the watershed
have one or more *links* (ways to go, see `incasem.segmentation._basins`), the core follows the first.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from incasem.blockwise import Block, BlockFunction, Grid
from incasem.compiled import compiled
from incasem.durable import write_durably
from incasem.geometry import Coordinate
from incasem.segmentation._basins import CORE
from incasem.segmentation._tables import Table, load, save

__all__ = [
    "Faces",
    "Matcher",
    "Matches",
    "Places",
    "flat_in_region",
    "join",
    "match_basins",
    "match_overlaps",
    "neighbours",
    "start_matching",
]


class Matches(NamedTuple):
    """What two neighbouring blocks have found at the face between them.

    Attributes:
        pairs: pieces of the near and the far block that are one fragment; int32, (n, 2).
        near_links: links from near to far pieces: of, at, to; int64, (n, 3).
        far_links: links from far to near pieces.
    """

    pairs: NDArray[np.int32]
    near_links: NDArray[np.int64]
    far_links: NDArray[np.int64]


Faces: TypeAlias = NDArray[Any]
Places: TypeAlias = Callable[[int, NDArray[np.int64]], NDArray[np.int64]]
"""Turns flat indices in the near (0) or the far (1) one of two faces into flat indices in the region."""

Matcher: TypeAlias = Callable[[Faces, Faces, int, Places], Matches]
"""Compares the faces of two neighbours along an axis."""

Count: TypeAlias = Callable[[Any, Any, int], Table]
"""Takes the tables of a block and of its neighbour after it along an axis."""

_NO_LINKS = np.zeros((0, 3), np.int64)


def flat_in_region(block: Block, flat: NDArray[np.int64]) -> NDArray[np.int64]:
    """Turn flat indices in a block into flat indices in the whole region."""
    roi, total = block.write_roi, block.grid.total_roi
    z, y, x = np.unravel_index(flat, tuple(roi.shape))
    return _flat(total.shape, roi.begin - total.begin, (z, y, x))


def _flat(shape: Coordinate, begin: Coordinate, at: tuple[NDArray[np.int64], ...]) -> NDArray[np.int64]:
    z, y, x = (int(b) + a.astype(np.int64) for b, a in zip(begin, at, strict=True))
    return (z * int(shape[1]) + y) * int(shape[2]) + x


def match_basins(near: Faces, far: Faces, axis: int, places: Places) -> Matches:
    """Compare two faces of the watershed: labels and codes of a plane, (2, height, width)."""
    near_labels, near_codes = near.reshape(2, -1)
    far_labels, far_codes = far.reshape(2, -1)
    to_far, to_near = axis + 4, axis + 1
    near_core = (near_codes >= CORE) & (near_codes >> (to_far - 1) & 1 > 0)
    far_core = (far_codes >= CORE) & (far_codes >> (to_near - 1) & 1 > 0)
    one = (near_codes == to_far) | (far_codes == to_near) | (near_core & far_core)
    pairs, _ = _counted_pairs(near_labels[one], far_labels[one])
    near_links = _first_links(near_core & (far_codes < CORE), near_labels, far_labels)
    far_links = _first_links(far_core & (near_codes < CORE), far_labels, near_labels)
    for side, links, code in ((0, near_links, to_far), (1, far_links, to_near)):
        links[:, 1] = places(side, links[:, 1]) * 6 + code - 1
    return Matches(pairs, near_links, far_links)


def _first_links(where: NDArray[np.bool_], of: NDArray[Any], to: NDArray[Any]) -> NDArray[np.int64]:
    """Return the first link of each piece: of, flat index in the face, to."""
    at = np.flatnonzero(where)
    pieces, first = np.unique(of[at], return_index=True)
    return np.stack([pieces.astype(np.int64), at[first], to[at[first]].astype(np.int64)], axis=1)


def match_overlaps(
    enough: float,
    near: Faces,
    far: Faces,
    axis: int,
    places: Places,
) -> Matches:
    """Compare what two blocks make of the same two planes, one on each side of the face between them.

    Args:
        enough: two pieces are one if more than this part of the larger one, in these planes, is common to
            both.
        near: labels of the near block, shape (2, height, width); so ``far``.
        far: labels of the far block.
        axis: does not matter here.
        places: nor do these.
    """
    near, far = near.ravel(), far.ravel()
    sizes = np.bincount(near), np.bincount(far)
    both = (near > 0) & (far > 0)
    pairs, common = _counted_pairs(near[both], far[both])
    larger = np.maximum(sizes[0][pairs[:, 0]], sizes[1][pairs[:, 1]])
    return Matches(pairs[common > enough * larger], _NO_LINKS, _NO_LINKS)


def _counted_pairs(a: NDArray[Any], b: NDArray[Any]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return the different pairs, (n, 2), and how often each occurs."""
    base = int(b.max(initial=0)) + 1
    coded, counts = np.unique(a.astype(np.int64) * base + b, return_counts=True)
    return np.stack(np.divmod(coded, base), axis=1).astype(np.int32), counts


def start_matching(
    grid: Grid, folder: Path, matcher: Matcher, durable: bool, count: Count | None = None
) -> BlockFunction:
    """Return the function that compares a block's faces with its neighbours after it in z, y and x.

    Args:
        grid: the blocks.
        folder: of all tables.
        matcher: compares two faces.
        durable: see `save`.
        count: adds what else is to be known of two faces to the table; None adds nothing.
    """

    def match(block: Block) -> None:
        found: Table = {}
        with load(folder / "pieces", block.index) as own:
            for axis, neighbour in neighbours(grid, block):
                with load(folder / "pieces", neighbour.index) as other:
                    faces = (own[f"face_{axis}1"], other[f"face_{axis}0"])
                    if count is not None:
                        found |= count(own, other, axis)
                matches = matcher(*faces, axis, _Face(axis, (block, neighbour)))
                found |= {f"{name}_{axis}": array for name, array in matches._asdict().items() if len(array)}
        save(folder / "matches" / f"{block.index}.npz", found, durable=durable)

    return match


def neighbours(grid: Grid, block: Block) -> Iterator[tuple[int, Block]]:
    """Yield the blocks after a block, with the axis along which they touch."""
    steps = (grid.shape[1] * grid.shape[2], grid.shape[2], 1)
    place = np.unravel_index(block.index, grid.shape)
    for axis, step in enumerate(steps):
        if place[axis] + 1 < grid.shape[axis]:
            yield axis, grid.block(block.index + step)


class _Face:
    """Places of the voxels of a face: flat index in the face to flat index in the region."""

    def __init__(self, axis: int, blocks: tuple[Block, Block]) -> None:
        self._axis, self._blocks = axis, blocks

    def __call__(self, side: int, flat: NDArray[np.int64]) -> NDArray[np.int64]:
        roi, total = self._blocks[side].write_roi, self._blocks[side].grid.total_roi
        begin = list(roi.begin - total.begin)
        if side == 0:
            begin[self._axis] += roi.shape[self._axis] - 1
        extent = [1 if a == self._axis else int(s) for a, s in enumerate(roi.shape)]
        z, y, x = np.unravel_index(flat, extent)
        return _flat(total.shape, Coordinate(begin), (z, y, x))


def join(grid: Grid, folder: Path) -> int:
    """Number the fragments 1, 2, … in the order in which a scan of the region meets them; return how many.

    Stores what `incasem.segmentation._tables.fragment_of_piece` reads.
    """
    first_piece, first, links = _all_pieces(grid, folder / "pieces")
    pairs, more_links = _all_matches(grid, folder / "matches", first_piece)
    links = np.concatenate([links, more_links])
    core = _components(pairs, len(first))
    del pairs
    of = core[links[:, 0]]
    order = np.lexsort((links[:, 1], of))
    chosen = order[np.unique(of[order], return_index=True)[1]]
    ways = np.stack([of[chosen], core[links[chosen, 2]]], axis=1)
    fragment = _components(ways, int(core.max(initial=-1)) + 1)[core]
    count = int(fragment.max(initial=-1)) + 1
    earliest = np.full(count, np.iinfo(np.int64).max)
    np.minimum.at(earliest, fragment, first)
    rank = np.empty(count, np.uint64)
    rank[np.argsort(earliest)] = np.arange(1, count + 1, dtype=np.uint64)
    for name, table in (("first_piece", first_piece), ("fragment_of_piece", rank[fragment])):
        write_durably(folder / f"{name}.npy", partial(np.save, arr=table, allow_pickle=False))
    return count


def _components(pairs: NDArray[np.int64], number: int) -> NDArray[np.int64]:
    """Return the connected component, from 0, of each of a number of things.

    Union-find in 64 bits: scipy's graphs count their nodes in 32.
    """
    parents = np.arange(number)
    _unite(parents, pairs)
    return parents


@compiled
def _unite(parents: NDArray[np.int64], pairs: NDArray[np.int64]) -> None:
    for k in range(pairs.shape[0]):
        a, b = pairs[k, 0], pairs[k, 1]
        while parents[a] != a:
            parents[a] = parents[parents[a]]
            a = parents[a]
        while parents[b] != b:
            parents[b] = parents[parents[b]]
            b = parents[b]
        parents[max(a, b)] = min(a, b)
    count = 0
    for i in range(parents.size):  # a root comes before all that point to it
        if parents[i] == i:
            parents[i] = count
            count += 1
        else:
            parents[i] = parents[parents[i]]


def _all_pieces(grid: Grid, folder: Path) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """All pieces, counted over the whole region from 0: how many before each block, first voxels, links."""
    before, first, links = [0], [np.zeros(0, np.int64)], [_NO_LINKS]
    for index in range(len(grid)):
        with load(folder, index) as pieces:
            first.append(pieces["first"])
            own = np.stack([pieces["link_of"], pieces["link_at"], pieces["link_to"]], axis=1).astype(np.int64)
            own[:, [0, 2]] += before[-1] - 1
            links.append(own)
            before.append(before[-1] + len(first[-1]))
    return np.asarray(before, np.int64), np.concatenate(first), np.concatenate(links)


def _all_matches(
    grid: Grid, folder: Path, first_piece: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs and links between all blocks, their pieces counted over the whole region from 0."""
    pairs, links = [np.zeros((0, 2), np.int64)], [_NO_LINKS]
    for block in grid.blocks():
        with load(folder, block.index) as found:
            for axis, neighbour in neighbours(grid, block):
                near, far = first_piece[block.index] - 1, first_piece[neighbour.index] - 1
                if f"pairs_{axis}" in found:
                    pairs.append(found[f"pairs_{axis}"] + np.array([near, far]))
                if f"near_links_{axis}" in found:
                    links.append(found[f"near_links_{axis}"] + np.array([near, 0, far]))
                if f"far_links_{axis}" in found:
                    links.append(found[f"far_links_{axis}"] + np.array([far, 0, near]))
    return np.concatenate(pairs), np.concatenate(links)
