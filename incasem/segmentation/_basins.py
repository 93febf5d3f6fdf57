"""The affinity-graph watershed of one block.

The rule (Zlateski & Seung 2015; waterz), for a graph of voxels and the edges between face neighbours:

- an edge at or below ``low`` does not exist; all edges at or above ``high`` count as equal and as the
  strongest;
- each voxel goes up along its strongest edge; voxels that meet are one basin; a voxel without edges is
  background.

What is left to decide is a *plateau*: voxels joined by edges that are the strongest of both their ends. A
voxel of it with an edge of that same strength to a voxel that has a stronger one still is an *exit*: it
leaves the plateau there, to the neighbour of the strongest edge (and in the order -z, -y, -x, +z, +y, +x
among equals). What remains of the plateau without its exits, in face-connected *cores*, is a maximum where it
touches no exit: a basin begins there. Else the whole core follows one exit, beside the core's first such
voxel in a scan of the whole volume.

So a choice looks no further than a voxel's neighbours, except for the way that a core goes, which is the
first of all ways that its blocks found. That makes the basins of a volume independent of how it was cut.
Their number is that of the maxima, as in waterz, which differs only in how it divides a plateau among several
exits: each voxel to an exit that is near by, after the order in which they are met.

Here, one block is looked at: voxels are put together as far as that can be seen inside it, to *pieces*. Cores
that end inside the block have gone their way by then; which way the others go, and how pieces
of several blocks belong together, is worked out in `incasem.segmentation._joining`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from incasem.compiled import compiled

__all__ = ["AFTER", "BEFORE", "CORE", "DIRECTIONS", "BlockBasins", "block_basins", "clip_edges"]

BEFORE, AFTER = 1, 2
"""Voxels of edges that a block needs before and after itself, along each axis."""

DIRECTIONS = ((-1, 0, 0), (0, -1, 0), (0, 0, -1), (1, 0, 0), (0, 1, 0), (0, 0, 1))

CORE = 0x80
"""Bit of a code, see `BlockBasins`."""


@dataclass(frozen=True)
class BlockBasins:
    """The pieces of a block.

    Attributes:
        labels: piece of each voxel, int32, z, y, x; 1, 2, … in the order in which a scan meets them; 0 is
            background.
        codes: uint8, z, y, x; what each voxel chose: 0, nothing (background); 1 … 6, it leaves its plateau in
            this one of the `DIRECTIONS`; `CORE` and a bit for each direction (1 for the first) in which the
            plateau goes on.
        first: flat index in the block of each piece's first voxel; int64.
        link_of: pieces with a core that is beside an exit and goes on beyond the block; int32.
        link_at: where that is first seen: six times the flat index in the block, plus the direction; int64.
        link_to: the piece of that exit; int32.
    """

    labels: NDArray[np.int32]
    codes: NDArray[np.uint8]
    first: NDArray[np.int64]
    link_of: NDArray[np.int32]
    link_at: NDArray[np.int64]
    link_to: NDArray[np.int32]


def block_basins(edges: NDArray[np.uint8]) -> BlockBasins:
    """Put the voxels of one block together, see the module.

    Args:
        edges: to the voxel before in z, y, x; shape (3, z, y, x), of the block and `BEFORE` and `AFTER`
            voxels around it; 0 for edges that do not exist, one largest value for those that count as equal.
    """
    strongest = _strongest(edges)
    shape = tuple(s - 2 for s in strongest.shape)
    codes = np.empty(shape, np.uint8)
    _choose(edges, strongest, codes)
    del strongest
    labels = np.empty(shape, np.int32)
    _put_together(codes, labels.reshape(-1))
    first = _number(codes.reshape(-1), labels.reshape(-1))
    at, to = _links(codes, labels, len(first))
    leaving = _leaving(codes, labels, len(first))
    numbers, first = _settle(to, leaving, first)
    _renumber(labels.reshape(-1), numbers)
    linked = np.flatnonzero((to > 0) & leaving)
    return BlockBasins(labels, codes, first, numbers[linked + 1], at[linked], numbers[to[linked]])


@compiled
def clip_edges(edges: NDArray[np.uint8], low: int, high: int) -> None:
    """Set edges at or below ``low`` to 0, and those above ``high`` to it; in place, (c, z, y, x)."""
    least, most, none = np.uint8(low), np.uint8(high), np.uint8(0)
    for c in range(edges.shape[0]):
        for z in range(edges.shape[1]):
            for y in range(edges.shape[2]):
                row = edges[c, z, y]
                for x in range(row.size):
                    row[x] = min(row[x], most) if row[x] > least else none


def _strongest(edges: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the strongest edge of each voxel, for the block and one voxel around it."""
    strongest = np.zeros([s - 1 for s in edges.shape[1:]], np.uint8)
    for axis, channel in enumerate(edges):
        here = channel[:-1, :-1, :-1]
        after = tuple(slice(1, None) if a == axis else slice(None, -1) for a in range(3))
        np.maximum(strongest, here, out=strongest)
        np.maximum(strongest, channel[after], out=strongest)
    return strongest


@compiled
def _choose(edges: NDArray[np.uint8], strongest: NDArray[np.uint8], codes: NDArray[np.uint8]) -> None:
    depth, height, width = codes.shape
    none = np.uint8(0)
    for z in range(depth):
        for y in range(height):
            own = strongest[z + 1, y + 1, 1 : width + 1]
            e0, e1 = edges[0, z + 1, y + 1, 1 : width + 1], edges[1, z + 1, y + 1, 1 : width + 1]
            e2, e3 = edges[2, z + 1, y + 1, 1 : width + 1], edges[0, z + 2, y + 1, 1 : width + 1]
            e4, e5 = edges[1, z + 1, y + 2, 1 : width + 1], edges[2, z + 1, y + 1, 2 : width + 2]
            n0, n1 = strongest[z, y + 1, 1 : width + 1], strongest[z + 1, y, 1 : width + 1]
            n2, n3 = strongest[z + 1, y + 1, 0:width], strongest[z + 2, y + 1, 1 : width + 1]
            n4, n5 = strongest[z + 1, y + 2, 1 : width + 1], strongest[z + 1, y + 1, 2 : width + 2]
            out = codes[z, y]
            for x in range(width):
                c = own[x]
                # The neighbour's strongest edge where the edge to it is the voxel's own strongest, else 0.
                a0 = n0[x] if e0[x] == c else none
                a1 = n1[x] if e1[x] == c else none
                a2 = n2[x] if e2[x] == c else none
                a3 = n3[x] if e3[x] == c else none
                a4 = n4[x] if e4[x] == c else none
                a5 = n5[x] if e5[x] == c else none
                best = max(max(max(a0, a1), max(a2, a3)), max(a4, a5))
                way = np.uint8(6)
                way = np.uint8(5) if a4 == best else way
                way = np.uint8(4) if a3 == best else way
                way = np.uint8(3) if a2 == best else way
                way = np.uint8(2) if a1 == best else way
                way = np.uint8(1) if a0 == best else way
                core = np.uint8(0x80)
                core |= np.uint8(1) if a0 == c else none
                core |= np.uint8(2) if a1 == c else none
                core |= np.uint8(4) if a2 == c else none
                core |= np.uint8(8) if a3 == c else none
                core |= np.uint8(16) if a4 == c else none
                core |= np.uint8(32) if a5 == c else none
                out[x] = none if c == 0 else (way if best > c else core)


@compiled
def _root(parents: NDArray[np.int32], index: int) -> int:
    while parents[index] != index:
        parents[index] = parents[parents[index]]
        index = parents[index]
    return index


@compiled
def _put_together(codes: NDArray[np.uint8], parents: NDArray[np.int32]) -> None:
    """Point each voxel to another one of its piece, without circles; a piece's last one points to itself.

    Exits point to where they go: that is upwards, so it ends in a core. Cores are put together by union-find.
    """
    depth, height, width = codes.shape
    plane = height * width
    i = 0
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                code = codes[z, y, x]
                parents[i] = i
                if code & 0x80:
                    if code & 0x04 and x > 0 and codes[z, y, x - 1] & 0x80:
                        parents[i] = _root(parents, i - 1)
                    if code & 0x02 and y > 0 and codes[z, y - 1, x] & 0x80:
                        a, b = _root(parents, i - width), _root(parents, i)
                        parents[max(a, b)] = min(a, b)
                    if code & 0x01 and z > 0 and codes[z - 1, y, x] & 0x80:
                        a, b = _root(parents, i - plane), _root(parents, i)
                        parents[max(a, b)] = min(a, b)
                elif code == 1:
                    parents[i] = i - plane if z > 0 else i
                elif code == 2:
                    parents[i] = i - width if y > 0 else i
                elif code == 3:
                    parents[i] = i - 1 if x > 0 else i
                elif code == 4:
                    parents[i] = i + plane if z + 1 < depth else i
                elif code == 5:
                    parents[i] = i + width if y + 1 < height else i
                elif code == 6:
                    parents[i] = i + 1 if x + 1 < width else i
                i += 1


@compiled
def _number(codes: NDArray[np.uint8], parents: NDArray[np.int32]) -> NDArray[np.int64]:
    """Turn parents into labels below 0 (-1, -2, …), in place; return the first voxel of each piece."""
    count = 0
    for i in range(parents.size):
        if codes[i] != 0 and parents[i] == i:
            count += 1
    first = np.empty(count, np.int64)
    count = 0
    for i in range(parents.size):
        if codes[i] == 0:
            parents[i] = 0
            continue
        root = i
        while parents[root] >= 0 and parents[root] != root:
            root = parents[root]
        if parents[root] >= 0:
            first[count] = i
            count += 1
            parents[root] = -count
        label = parents[root]
        at = i
        while parents[at] >= 0:  # whoever comes by here later need not go all the way
            parents[at], at = label, parents[at]
    return first


@compiled
def _links(
    codes: NDArray[np.uint8], labels: NDArray[np.int32], count: int
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Return, for each piece, where its core first touches an exit inside the block, and the exit's piece.

    Args:
        codes: see `BlockBasins`.
        labels: below 0.
        count: pieces.
    """
    at = np.zeros(count, np.int64)
    to = np.zeros(count, np.int32)
    depth, height, width = codes.shape
    beside = np.empty(width, np.uint8)
    for z in range(depth):
        for y in range(height):
            _beside_exits(codes, z, y, beside)
            for x in range(width):
                if beside[x] == 0 or to[-labels[z, y, x] - 1] != 0:
                    continue
                for direction in range(6):
                    if not codes[z, y, x] >> direction & 1:
                        continue
                    step = 1 if direction > 2 else -1
                    nz = z + step if direction % 3 == 0 else z
                    ny = y + step if direction % 3 == 1 else y
                    nx = x + step if direction % 3 == 2 else x
                    inside = 0 <= nz < depth and 0 <= ny < height and 0 <= nx < width
                    if inside and not codes[nz, ny, nx] & 0x80:
                        at[-labels[z, y, x] - 1] = ((z * height + y) * width + x) * 6 + direction
                        to[-labels[z, y, x] - 1] = -labels[nz, ny, nx]
                        break
    return at, to


@compiled
def _beside_exits(codes: NDArray[np.uint8], z: int, y: int, out: NDArray[np.uint8]) -> None:
    """Write, for one row, which voxels of cores have their plateau go on to an exit inside the block.

    For all voxels alike and without a branch, so that the compiler does many at a time.
    """
    depth, height, width = codes.shape
    row = codes[z, y]
    beyond = np.full(width + 2, 0x80, np.uint8)  # counts as a core
    n0 = codes[z - 1, y] if z > 0 else beyond[1:-1]
    n1 = codes[z, y - 1] if y > 0 else beyond[1:-1]
    n3 = codes[z + 1, y] if z + 1 < depth else beyond[1:-1]
    n4 = codes[z, y + 1] if y + 1 < height else beyond[1:-1]
    padded = np.full(width + 2, 0x80, np.uint8)
    padded[1:-1] = row
    n2, n5 = padded[:-2], padded[2:]
    for x in range(width):
        c = row[x]
        found = c & ~(n0[x] >> 7) & 1 | c >> 1 & ~(n1[x] >> 7) & 1 | c >> 2 & ~(n2[x] >> 7) & 1
        found |= c >> 3 & ~(n3[x] >> 7) & 1 | c >> 4 & ~(n4[x] >> 7) & 1 | c >> 5 & ~(n5[x] >> 7) & 1
        out[x] = found & c >> 7


def _leaving(codes: NDArray[np.uint8], labels: NDArray[np.int32], count: int) -> NDArray[np.bool_]:
    """Return which pieces have a core that goes on beyond the block."""
    leaving = np.zeros(count, np.bool_)
    for direction in range(6):
        axis, side = direction % 3, direction // 3
        face = codes.take(-side, axis=axis)
        goes_on = (face >= CORE) & (face >> direction & 1 > 0)
        pieces: NDArray[np.int32] = np.take(labels, -side, axis=axis)
        leaving[-pieces[goes_on] - 1] = True
    return leaving


@compiled
def _settle(
    to: NDArray[np.int32], leaving: NDArray[np.bool_], first: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Let the cores that end inside the block go their way; return the new number of each piece, and firsts.

    A way leads to a stronger edge, so there are no circles. The numbers are those of the order of a scan.
    """
    count = to.size
    target = np.arange(count + 1).astype(np.int32)
    for piece in range(1, count + 1):
        if to[piece - 1] != 0 and not leaving[piece - 1]:
            target[piece] = to[piece - 1]
    numbers = np.zeros(count + 1, np.int32)  # of the last on each way, then of all
    new_first = np.empty(count, np.int64)
    used = 0
    for piece in range(1, count + 1):
        last = _root(target, piece)
        if numbers[last] == 0:
            new_first[used] = first[piece - 1]
            used += 1
            numbers[last] = used
        numbers[piece] = numbers[last]
    return numbers, new_first[:used]


@compiled
def _renumber(labels: NDArray[np.int32], numbers: NDArray[np.int32]) -> None:
    for i in range(labels.size):
        labels[i] = numbers[-labels[i]]
