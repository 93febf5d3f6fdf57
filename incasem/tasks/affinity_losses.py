"""The losses of affinities: balance of edges within and between objects, and the loss of whole regions."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from incasem.tasks.balance import class_balance

CLIP_FRACTION = (0.05, 0.95)
"""As published (PyTorch Connectomics, weight option "1"): the rarer kind weighs at most 19 times as much."""


def balance_scale(
    affinities_KZYX: NDArray[np.uint8],
    valid_KZYX: NDArray[np.bool_],
    clip: tuple[float, float] | None = CLIP_FRACTION,
) -> NDArray[np.float32]:
    """Return the weight of each edge: in each channel edges of 0 and of 1 weigh the same, unknown ones 0.

    Args:
        affinities_KZYX: 0 or 1, 0 where not valid.
        valid_KZYX: which of them are known.
        clip: see `balance.class_balance`; None: all that are known weigh 1.
    """
    if clip is None:
        return valid_KZYX.astype(np.float32)
    scale_KZYX = np.empty(affinities_KZYX.shape, np.float32)
    for channel, (affinities_ZYX, valid_ZYX) in enumerate(zip(affinities_KZYX, valid_KZYX, strict=True)):
        positive = int(np.count_nonzero(affinities_ZYX))
        weights = class_balance(np.array([np.count_nonzero(valid_ZYX) - positive, positive]), clip)
        kinds_ZYX = affinities_ZYX + valid_ZYX.view(np.uint8)  # 0 unknown, 1 valid and 0, 2 valid and 1
        np.take(np.array([0, *weights], np.float32), kinds_ZYX, out=scale_KZYX[channel])
    return scale_KZYX


class RegionLoss:
    """The training loss of a whole region, from its blocks: balance and Dice are those of the region.

    The weighted sum of `networks.channel_bce` with the `balance_scale` of the region, `networks.channel_dice`
    and, for descriptors, `networks.channel_mse`. The result does not depend on how the region was cut (up to
    the rounding of float64 sums).

    Args:
        num_edges: K, channels of affinities.
        clip: see `balance_scale`.
        bce: weight of the binary cross-entropy.
        dice: weight of the soft Dice loss.
        mse: weight of the squared error of descriptors.
    """

    def __init__(
        self,
        num_edges: int,
        clip: tuple[float, float] | None = CLIP_FRACTION,
        *,
        bce: float = 1.0,
        dice: float = 0.5,
        mse: float = 1.0,
    ) -> None:
        self._clip = clip
        self._weights = (bce, dice, mse)
        self._entropy = np.zeros((num_edges, 2), np.float64)
        self._counts = np.zeros((num_edges, 2), np.int64)
        self._predicted = self._both = 0.0
        self._squares = self._described = 0.0

    def add(
        self,
        logits_KZYX: NDArray[np.floating[Any]],
        affinities_KZYX: NDArray[np.uint8],
        valid_KZYX: NDArray[np.bool_],
    ) -> None:
        """Count one block of edges: logits, true affinities, and which of them are known."""
        for channel in range(len(self._counts)):
            valid = valid_KZYX[channel]
            logits = logits_KZYX[channel][valid].astype(np.float32)
            true = affinities_KZYX[channel][valid] != 0
            # log(1 + exp(-|x|)) + max(±x, 0): what binary_cross_entropy_with_logits computes.
            tail = np.log1p(np.exp(-np.abs(logits)))
            for kind in (0, 1):
                own = true if kind else ~true
                against = np.maximum(-logits[own] if kind else logits[own], 0)
                self._entropy[channel, kind] += (tail[own] + against).sum(dtype=np.float64)
                self._counts[channel, kind] += against.size
            if self._weights[1]:
                probabilities = np.exp(np.minimum(logits, 0) - tail)
                self._predicted += float(probabilities.sum(dtype=np.float64))
                self._both += float(probabilities[true].sum(dtype=np.float64))

    def add_descriptors(
        self,
        logits_DZYX: NDArray[np.floating[Any]],
        descriptors_DZYX: NDArray[np.float32],
        counted_ZYX: NDArray[np.bool_],
    ) -> None:
        """Count one block of descriptors: logits, true values, and where they count."""
        for logits_ZYX, true_ZYX in zip(logits_DZYX, descriptors_DZYX, strict=True):
            logits = logits_ZYX[counted_ZYX].astype(np.float32)
            probabilities = np.exp(-np.logaddexp(np.float32(0), -logits))
            errors = probabilities - true_ZYX[counted_ZYX]
            self._squares += float(np.square(errors).sum(dtype=np.float64))
            self._described += logits.size

    def value(self) -> float:
        """Return the weighted sum of the terms; 0 for each of which nothing counted."""
        bce, dice, mse = self._weights
        return (
            bce * self._balanced_entropy()
            + (dice * self._dice() if dice else 0.0)
            + mse * self._squares / max(self._described, 1)
        )

    def _balanced_entropy(self) -> float:
        weights = np.ones(self._counts.shape)
        if self._clip is not None:
            weights = np.stack([class_balance(counts, self._clip) for counts in self._counts])
        total = float((weights * self._counts).sum())
        return float((weights * self._entropy).sum()) / total if total > 0 else 0.0

    def _dice(self) -> float:
        from incasem.networks import dice_of_sums

        return float(dice_of_sums(self._both, self._predicted, int(self._counts[:, 1].sum())))
