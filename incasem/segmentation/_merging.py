"""The inner loops of hierarchical agglomeration, compiled.

Edges lie in linked lists, one a region, of *ends*: end 2e and 2e + 1 are those of edge e, and ``place[end]``
is the region at that end. When two regions merge, the shorter list is gone through and moved, so an end moves
at most log2(n) times. Which edge connects two regions is found by a hash table of edge numbers; it holds no
keys of its own but compares with the edges' places, so that what has moved or gone needs no removal.

A heap holds each living edge once, by the score it had when it was put there. When two edges become one, the
one with the lower score stays and is *stale*: when it comes up, it is scored anew and put back. Since no
score of joined edges lies below both scores before, the order of merges is the exact one (waterz does the
same). Ties go to the edge with the smaller number.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from incasem.compiled import compiled

__all__ = ["MAX", "MEAN", "QUANTILE", "agglomerate_edges"]

MEAN, MAX, QUANTILE = range(3)
_BINS = 256
_STEPS = 255.0

Array = NDArray[Any]


@compiled
def _score(
    e: int, kind: int, quantile: int, count: Array, total: Array, highest: Array, histograms: Any
) -> float:
    """Return 1 - the affinity of an edge."""
    if kind == MEAN:
        return 1.0 - total[e] / (_STEPS * count[e])
    if kind == MAX:
        return 1.0 - highest[e] / _STEPS
    first, length, bins, numbers, _ = histograms
    whole = 0
    for i in range(first[e], first[e] + length[e]):
        whole += numbers[i]
    pivot, passed = quantile * whole // 100 + 1, 0
    for i in range(first[e], first[e] + length[e]):
        passed += numbers[i]
        if passed >= pivot:
            return 1.0 - (bins[i] + 0.5) / _BINS
    return 1.0


@compiled
def _less(e: int, f: int, score: Array) -> bool:
    return score[e] < score[f] or (score[e] == score[f] and e < f)


@compiled
def _sift_down(heap: Array, size: int, i: int, score: Array) -> None:
    e = heap[i]
    while True:
        child = 2 * i + 1
        if child >= size:
            break
        if child + 1 < size and _less(heap[child + 1], heap[child], score):
            child += 1
        if not _less(heap[child], e, score):
            break
        heap[i] = heap[child]
        i = child
    heap[i] = e


@compiled
def _root(parent: Array, i: int) -> int:
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@compiled
def _slot(a: int, b: int, slots: Array) -> np.int64:
    u, v = np.uint64(min(a, b)), np.uint64(max(a, b))
    mixed = u * np.uint64(0x9E3779B97F4A7C15) ^ v * np.uint64(0xC2B2AE3D27D4EB4F)
    return np.int64((mixed ^ (mixed >> np.uint64(29))) & np.uint64(slots.size - 1))


@compiled
def _find(a: int, b: int, slots: Array, place: Array, gone: Array) -> int:
    """Return the living edge between two regions, or -1."""
    slot = _slot(a, b, slots)
    while slots[slot] >= 0:
        e = slots[slot]
        p, q = place[2 * e], place[2 * e + 1]
        if not gone[e] and ((p == a and q == b) or (p == b and q == a)):
            return e
        slot = (slot + 1) & (slots.size - 1)
    return -1


@compiled
def _enter(e: int, slots: Array, place: Array, gone: Array) -> int:
    """Enter an edge at its places; return 1 if that took a free slot."""
    slot = _slot(place[2 * e], place[2 * e + 1], slots)
    while slots[slot] >= 0 and not gone[slots[slot]]:
        slot = (slot + 1) & (slots.size - 1)
    fresh = 1 if slots[slot] < 0 else 0
    slots[slot] = e
    return fresh


@compiled
def _enter_all(slots: Array, place: Array, gone: Array) -> int:
    """Empty the table and enter all living edges; return how many slots are taken."""
    slots[:] = -1
    taken = 0
    for e in range(gone.size):
        if not gone[e]:
            taken += _enter(e, slots, place, gone)
    return taken


@compiled
def _packed(histograms: Any, gone: Array, more: int) -> Any:
    """Return histograms with room for ``more`` bins, those of edges that are gone left out."""
    first, length, bins, numbers, _ = histograms
    living = 0
    for e in range(gone.size):
        if not gone[e]:
            living += length[e]
    new_bins = np.empty(2 * living + more + 1024, bins.dtype)
    new_numbers = np.empty(new_bins.size, numbers.dtype)
    used = 0
    for e in range(gone.size):
        if not gone[e]:
            begin = first[e]
            first[e] = used
            for i in range(begin, begin + length[e]):
                new_bins[used], new_numbers[used] = bins[i], numbers[i]
                used += 1
    return first, length, new_bins, new_numbers, used


@compiled
def _join_histograms(e: int, into: int, histograms: Any, gone: Array) -> Any:
    """Add the histogram of one edge to that of another one; return the histograms."""
    if histograms[4] + histograms[1][e] + histograms[1][into] > histograms[2].size:
        histograms = _packed(histograms, gone, histograms[1][e] + histograms[1][into])
    first, length, bins, numbers, used = histograms
    i, end_i = first[e], first[e] + length[e]
    j, end_j = first[into], first[into] + length[into]
    begin = used
    while i < end_i or j < end_j:
        if j == end_j or (i < end_i and bins[i] < bins[j]):
            bins[used], numbers[used] = bins[i], numbers[i]
            i += 1
        elif i == end_i or bins[j] < bins[i]:
            bins[used], numbers[used] = bins[j], numbers[j]
            j += 1
        else:
            bins[used], numbers[used] = bins[i], numbers[i] + numbers[j]
            i += 1
            j += 1
        used += 1
    first[into], length[into] = begin, used - begin
    return first, length, bins, numbers, used


@compiled
def _append(end: int, region: int, heads: Array, tails: Array, following: Array, ends: Array) -> None:
    following[end] = -1
    if heads[region] < 0:
        heads[region] = end
    else:
        following[tails[region]] = end
    tails[region] = end
    ends[region] += 1


@compiled
def _snapshot(parent: Array, out: Array) -> None:
    """Write, for each fragment, the first fragment of its region."""
    first = np.full(parent.size, -1, np.int64)
    for i in range(parent.size):
        root = _root(parent, i)
        if first[root] < 0:
            first[root] = i
        out[i] = first[root]


@compiled
def _join(e: int, into: int, kind: int, statistics: Any, histograms: Any, gone: Array) -> Any:
    """Add what is known of one edge to another one, which lives on; return the histograms."""
    count, total, highest = statistics
    count[into] += count[e]
    total[into] += total[e]
    highest[into] = max(highest[into], highest[e])
    if kind == QUANTILE:
        histograms = _join_histograms(e, into, histograms, gone)
    gone[e] = True
    return histograms


@compiled
def _merge_regions(
    e: int, kind: int, score: Array, flags: Any, graph: Any, statistics: Any, histograms: Any, taken: int
) -> Any:
    """Merge the regions at both ends of an edge; return histograms, and slots taken."""
    gone, stale = flags
    place, heads, tails, following, ends, slots, parent = graph
    a, b = place[2 * e], place[2 * e + 1]
    if ends[a] < ends[b] or (ends[a] == ends[b] and b < a):
        a, b = b, a
    gone[e] = True
    parent[b] = a
    end = heads[b]
    while end >= 0:
        after, f = following[end], end >> 1
        if not gone[f]:
            g = _find(a, place[end ^ 1], slots, place, gone)
            if g >= 0 and _less(g, f, score):
                histograms = _join(f, g, kind, statistics, histograms, gone)
                stale[g] = True
            else:
                if g >= 0:
                    histograms = _join(g, f, kind, statistics, histograms, gone)
                    stale[f] = True
                place[end] = a
                _append(end, a, heads, tails, following, ends)
                taken += _enter(f, slots, place, gone)
                if 2 * taken > slots.size:
                    taken = _enter_all(slots, place, gone)
        end = after
    heads[b] = -1
    return histograms, taken


@compiled
def agglomerate_edges(
    regions: int,
    place: Array,
    statistics: Any,
    histograms: Any,
    kind: int,
    quantile: int,
    thresholds: Array,
    sizes: Array,
    min_size: int,
    join_up_to: float,
) -> Array:
    """Merge regions, lowest score first, while scores are below each of the thresholds.

    Args:
        regions: how many fragments there are.
        place: fragment at both ends of each edge, edge by edge; changed.
        statistics: of each edge how many affinities, their sum and their maximum; changed.
        histograms: of each edge the first bin and the number of bins; of all edges the bins, and how often
            each occurs; how many bins are in use. Changed.
        kind: MEAN, MAX or QUANTILE.
        quantile: percent.
        thresholds: ascending.
        sizes: voxels of each fragment.
        min_size: regions of fewer voxels are joined with a neighbour in the end; see `_join_small`.
        join_up_to: the largest score at which they are.

    Returns:
        For each threshold and fragment the first fragment of its region.
    """
    count, total, highest = statistics
    edges = count.size
    score = np.empty(edges, np.float64)
    for e in range(edges):
        score[e] = _score(e, kind, quantile, count, total, highest, histograms)
    flags = (np.zeros(edges, np.bool_), np.zeros(edges, np.bool_))
    gone, stale = flags
    heap, size = np.empty(edges, np.int64), 0
    for e in range(edges):
        if score[e] < thresholds[-1]:  # no other edge will ever be merged, since scores only rise
            heap[size] = e
            size += 1
    for i in range(size // 2 - 1, -1, -1):
        _sift_down(heap, size, i, score)
    graph = _linked(regions, place, gone)
    parent, taken = graph[6], edges
    found = np.empty((thresholds.size, regions), np.int64)
    for t in range(thresholds.size):
        while size and score[heap[0]] < thresholds[t]:
            e = heap[0]
            if stale[e] and not gone[e]:
                score[e] = _score(e, kind, quantile, count, total, highest, histograms)
                stale[e] = False
                _sift_down(heap, size, 0, score)
                continue
            size -= 1
            heap[0] = heap[size]
            if size:
                _sift_down(heap, size, 0, score)
            if not gone[e]:
                histograms, taken = _merge_regions(
                    e, kind, score, flags, graph, statistics, histograms, taken
                )
        _snapshot(parent, found[t])
        if min_size > 0:
            now = score.copy()
            for e in range(edges):
                if stale[e] and not gone[e]:
                    now[e] = _score(e, kind, quantile, count, total, highest, histograms)
            _join_small(found[t], place, now, gone, sizes, min_size, join_up_to)
    return found


@compiled
def _linked(regions: int, place: Array, gone: Array) -> Any:
    """Return the graph: places, lists of ends (head, tail, next, length), table of edges, parents."""
    heads, tails = np.full(regions, -1, np.int64), np.full(regions, -1, np.int64)
    ends, following = np.zeros(regions, np.int64), np.empty(place.size, np.int64)
    for end in range(place.size):
        _append(end, place[end], heads, tails, following, ends)
    room = 1024
    while room < 2 * place.size:
        room *= 2
    slots = np.empty(room, np.int64)
    _enter_all(slots, place, gone)
    return place, heads, tails, following, ends, slots, np.arange(regions)


@compiled
def _join_small(
    region: Array, place: Array, score: Array, gone: Array, sizes: Array, min_size: int, join_up_to: float
) -> None:
    """Join regions, lowest score first, of which one is small; changes ``region``, that of each fragment.

    What was joined may still be small: its next edges are looked at as well, those before are not.
    """
    voxels = np.zeros(region.size, np.int64)
    for i in range(region.size):
        voxels[region[i]] += sizes[i]
    order = np.argsort(score, kind="mergesort")
    parent = region.copy()
    for k in range(order.size):
        e = order[k]
        if score[e] > join_up_to:
            break
        if gone[e]:
            continue
        a, b = _root(parent, region[place[2 * e]]), _root(parent, region[place[2 * e + 1]])
        if a != b and (voxels[a] < min_size or voxels[b] < min_size):
            a, b = min(a, b), max(a, b)
            parent[b] = a
            voxels[a] += voxels[b]
    _snapshot(parent, region)
