"""Boxes of a sample that the network does not see."""

import numpy as np
from numpy.typing import NDArray

from incasem.config.augmentation import Cutout


def cut_out(raw_ZYX: NDArray[np.float32], settings: Cutout, rng: np.random.Generator) -> None:
    """Fill random boxes with the sample's mean grey, in place.

    Labels and loss stay as they are: inside a box the network is asked for what its surroundings tell. Boxes
    lie within the sample, anywhere in what the network reads, and may overlap.
    """
    if rng.random() >= settings.probability:
        return
    grey = raw_ZYX.mean(dtype=np.float64)
    shape = np.array(raw_ZYX.shape)
    smallest, largest = np.minimum(settings.smallest, shape), np.minimum(settings.largest, shape)
    for _ in range(rng.integers(*settings.boxes, endpoint=True)):
        size = rng.integers(smallest, largest, endpoint=True)
        begin = rng.integers(0, shape - size, endpoint=True)
        raw_ZYX[tuple(slice(b, b + s) for b, s in zip(begin, size, strict=True))] = grey
