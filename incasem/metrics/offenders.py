"""The worst mergers and splits of a segmentation: what a proofreader looks at first."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from incasem.metrics.partition import Ids

_PARTS = 5


@dataclass(frozen=True)
class Offender:
    """A segment that covers several true objects, or a true object cut into several segments.

    Attributes:
        id: of the segment, or of the object.
        voxels: counted voxels of it.
        voi: what it adds to ``voi_merge``, or to ``voi_split`` (bits).
        parts: the objects that it covers, or the segments that it is cut into, as (id, voxels shared),
            largest first; at most five.
        count: how many parts there are.
    """

    id: int
    voxels: int
    voi: float
    parts: tuple[tuple[int, int], ...]
    count: int


def worst(ids: Ids, partners: Ids, shared: NDArray[np.int64], most: int) -> list[Offender]:
    """Return the ids that add most to the variation of information, worst first.

    Args:
        ids: of each pair of a contingency table the side that is judged: segments for mergers, objects for
            splits.
        partners: the other side.
        shared: voxels of each pair.
        most: how many at most. Ids with one part only are none.
    """
    if not len(ids):
        return []
    names, position = np.unique(ids, return_inverse=True)
    sizes = np.zeros(len(names), np.int64)
    np.add.at(sizes, position, shared)
    share = shared / shared.sum()
    bits = np.bincount(position, weights=-share * np.log2(shared / sizes[position]), minlength=len(names))
    parts = np.bincount(position, minlength=len(names))
    # Of equal ones the smaller id comes first.
    order = [i for i in np.lexsort((names, -bits))[:most] if parts[i] > 1]
    found = []
    for i in order:
        pairs = np.flatnonzero(position == i)
        largest = pairs[np.lexsort((partners[pairs], -shared[pairs]))[:_PARTS]]
        found.append(
            Offender(
                int(names[i]),
                int(sizes[i]),
                float(bits[i]),
                tuple((int(partners[p]), int(shared[p])) for p in largest),
                int(parts[i]),
            )
        )
    return found
