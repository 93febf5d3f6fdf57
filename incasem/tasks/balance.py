"""How rare and common classes come to weigh the same in a loss."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

CLIP_FRACTION = (0.01, 0.99)  # loss.balance_labels.clipmin, clipmax


def class_balance(
    counts: NDArray[np.integer[Any]], clip: tuple[float, float] = CLIP_FRACTION
) -> NDArray[np.float64]:
    """Return the weight of each class for its voxel count: ``1 / (C * clip(count / sum(counts)))``.

    Args:
        counts: voxels of each of the C classes inside the mask.
        clip: bounds of the fraction, so that a rare class does not outweigh everything.
    """
    fractions = counts / max(int(counts.sum()), 1)
    weights: NDArray[np.float64] = 1.0 / (counts.size * np.clip(fractions, *clip))
    return weights
