"""Reading beyond a volume's border.

Reflection is numpy's ``reflect``: the border element is not repeated, and the pattern has the period
2(n − 1). It is computed as a map from the wanted indices to stored ones, so that a voxel beyond the border
has one value however the region around it was cut.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from incasem.volumes.store import Index

Reader = Callable[[Index], NDArray[Any]]


def reflect_indices(begin: int, end: int, size: int) -> NDArray[np.intp]:
    """Return the stored index for each of ``begin … end − 1`` on an axis of ``size`` elements.

    >>> reflect_indices(-3, 5, 3).tolist()
    [1, 2, 1, 0, 1, 2, 1, 0]
    """
    wanted = np.arange(begin, end, dtype=np.intp)
    if size == 1:
        return np.zeros_like(wanted)
    period = 2 * (size - 1)
    phase = wanted % period
    return np.minimum(phase, period - phase)


def read_reflected(read: Reader, index: Index, shape: Sequence[int]) -> NDArray[Any]:
    """Return the array at ``index``, which may reach beyond ``shape``, reflected at the border.

    Only the bounding box of the elements that occur is read, once.
    """
    maps = [reflect_indices(s.start, s.stop, size) for s, size in zip(index, shape, strict=True)]
    if any(len(m) == 0 for m in maps):
        return read(tuple(slice(0, len(m)) if len(m) == 0 else slice(0, 1) for m in maps)).reshape(
            [len(m) for m in maps]
        )
    box = tuple(slice(int(m.min()), int(m.max()) + 1) for m in maps)
    array = read(box)
    for axis, (wanted, part) in enumerate(zip(maps, box, strict=True)):
        if len(wanted) != part.stop - part.start or not np.all(np.diff(wanted) == 1):
            array = np.take(array, wanted - part.start, axis=axis)
    return array


def read_filled(read: Reader, index: Index, shape: Sequence[int], fill: float, dtype: np.dtype[Any]) -> Any:
    """Return the array at ``index``, which may reach beyond ``shape``, with ``fill`` outside."""
    if all(s.start >= 0 and s.stop <= n for s, n in zip(index, shape, strict=True)):
        return read(index)
    result = np.full([s.stop - s.start for s in index], fill, dtype=dtype)
    inner = tuple(slice(max(s.start, 0), min(s.stop, n)) for s, n in zip(index, shape, strict=True))
    if all(s.stop > s.start for s in inner):
        target = tuple(slice(i.start - s.start, i.stop - s.start) for i, s in zip(inner, index, strict=True))
        result[target] = read(inner)
    return result
