"""The segments of ids with gaps between them: a compiled search."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from incasem.compiled import compiled

__all__ = ["search"]

_CACHE_BITS = 12


def search(
    ids: NDArray[np.uint64],
    fragments: NDArray[np.uint64],
    segments: NDArray[np.uint64],
    found: NDArray[np.uint64],
) -> None:
    """Write the segment of each id, by binary search, with a cache of the ids that were met last.

    Args:
        ids: of one axis.
        fragments: 0 and all ids, ascending.
        segments: of each.
        found: gets the segments; it may be ``ids`` itself.

    Raises:
        KeyError: an id that is not among the fragments.
    """
    unknown = _search(ids, fragments, segments, found, np.zeros((2, 1 << _CACHE_BITS), np.uint64))
    if unknown >= 0:
        raise KeyError(int(ids[unknown]))


@compiled
def _search(
    ids: NDArray[Any],
    fragments: NDArray[Any],
    segments: NDArray[Any],
    found: NDArray[Any],
    cache: NDArray[Any],
) -> int:
    """Write the segment of each id; return the position of the first id that has none, or -1."""
    last, segment = np.uint64(0), segments[0]
    cache[1, 0] = segments[0]
    for i in range(ids.size):
        if ids[i] != last:  # neighbours mostly are of one fragment
            last = ids[i]
            place = np.int64((last * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(64 - _CACHE_BITS))
            if cache[0, place] != last:
                position = np.searchsorted(fragments, last)
                if position == fragments.size or fragments[position] != last:
                    return i
                cache[0, place], cache[1, place] = last, segments[position]
            segment = cache[1, place]
        found[i] = segment
    return -1
