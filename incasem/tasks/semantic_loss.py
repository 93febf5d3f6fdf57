"""The loss of semantic segmentation: balance, the published cross-entropy, and what it is summed with."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from incasem.errors import DataError, explain
from incasem.tasks.balance import CLIP_FRACTION, class_balance

if TYPE_CHECKING:
    import torch

    from incasem.config.training import Loss


def balance_scale(
    labels: NDArray[np.integer[Any]],
    mask: NDArray[Any],
    num_classes: int,
    clip: tuple[float, float] = CLIP_FRACTION,
) -> NDArray[np.float32]:
    """Return the loss scale of each voxel: the `class_balance` of the block inside the mask, 0 outside.

    Args:
        labels: class of each voxel, 0 … ``num_classes`` - 1, any shape.
        mask: voxels that count (nonzero), same shape.
    """
    inside = mask != 0
    counts = np.bincount(labels[inside], minlength=num_classes)
    if counts.size > num_classes:
        raise DataError(
            explain(
                "a class in the labels",
                counts.size - 1,
                f"0 to {num_classes - 1}",
                "Correct `labels` in the data configuration, or data.num_classes",
            )
        )
    scale: NDArray[np.float32] = class_balance(counts, clip).astype(np.float32)[labels]
    scale *= inside
    return scale


@dataclass(frozen=True)
class Terms:
    """The weights with which losses are added up; the published loss is the balanced cross-entropy alone.

    Attributes:
        cross_entropy: of `networks.balanced_cross_entropy`.
        bce: of `networks.weighted_bce`.
        dice: of `networks.soft_dice`.
    """

    cross_entropy: float = 1.0
    bce: float = 0.0
    dice: float = 0.0

    @classmethod
    def of(cls, settings: "Loss") -> Self:
        """Return what the settings say."""
        return cls(settings.cross_entropy_weight, settings.bce_weight, settings.dice_weight)


PUBLISHED = Terms()


@dataclass(frozen=True)
class StepTotals:
    """What the losses of a step of several batches are divided by, so that they add up to that of one batch.

    Attributes:
        scale: sum of the loss scale.
        voxels: voxels that count.
        samples: samples.
    """

    scale: float
    voxels: float
    samples: int

    @classmethod
    def of(cls, scales_NZYX: "Iterable[torch.Tensor]") -> Self:
        """Return the totals of the loss scales of some batches."""
        scales = list(scales_NZYX)
        return cls(
            sum(float(scale.sum()) for scale in scales),
            sum(int((scale > 0).sum()) for scale in scales),
            sum(len(scale) for scale in scales),
        )


def loss(
    logits_NCZYX: "torch.Tensor",
    labels_NZYX: "torch.Tensor",
    scale_NZYX: "torch.Tensor",
    class_weights: Sequence[float],
    terms: Terms = PUBLISHED,
    totals: StepTotals | None = None,
) -> "torch.Tensor":
    """Return the training loss of a batch, a scalar: the weighted sum of `terms`.

    Args:
        logits_NCZYX: output of the network.
        labels_NZYX: true classes.
        scale_NZYX: see `balance_scale`.
        class_weights: `loss.weight`.
        terms: at least one is not 0.
        totals: of the step that this batch is a part of; None: the batch is all of it.
    """
    from incasem.networks import balanced_cross_entropy, soft_dice, weighted_bce

    labelled = (logits_NCZYX, labels_NZYX, scale_NZYX)
    scale, voxels, samples = (totals.scale, totals.voxels, totals.samples) if totals else (None, None, None)
    summands = []
    if terms.cross_entropy:
        summands.append(terms.cross_entropy * balanced_cross_entropy(*labelled, class_weights, total=scale))
    if terms.bce:
        summands.append(terms.bce * weighted_bce(*labelled, class_weights, total=voxels))
    if terms.dice:
        summands.append(terms.dice * soft_dice(*labelled, total=samples))
    return sum(summands[1:], summands[0])


class RegionLoss:
    """The training loss of a whole region, from its blocks: balance and Dice are those of the region.

    The result does not depend on how the region was cut (up to the rounding of float64 sums).

    Args:
        num_classes: C.
        class_weights: `loss.weight`.
        clip: see `class_balance`.
        terms: see `loss`.
    """

    def __init__(
        self,
        num_classes: int,
        class_weights: Sequence[float],
        clip: tuple[float, float] = CLIP_FRACTION,
        terms: Terms = PUBLISHED,
    ) -> None:
        self._weights = np.asarray(class_weights, np.float64)
        self._clip = clip
        self._terms = terms
        self._entropy = np.zeros(num_classes, np.float64)
        self._counts = np.zeros(num_classes, np.int64)
        self._predicted, self._both = np.zeros(num_classes), np.zeros(num_classes)
        self._binary = 0.0

    def add(
        self, logits_CZYX: NDArray[np.floating[Any]], classes_ZYX: NDArray[Any], mask_ZYX: NDArray[Any]
    ) -> None:
        """Count one block: logits, true classes and mask (nonzero = counts)."""
        inside = mask_ZYX != 0
        classes = classes_ZYX[inside].astype(np.int64)
        logits_CV = logits_CZYX[:, inside].astype(np.float32)
        logits_CV -= logits_CV.max(axis=0, initial=-np.inf)
        exponents_CV = np.exp(logits_CV)
        sums = exponents_CV.sum(axis=0)
        own_logit = np.take_along_axis(logits_CV, classes[None], axis=0)[0]
        entropy = np.log(sums) - own_logit
        size = self._counts.size
        if self._terms.dice:
            self._predicted += (exponents_CV / sums).sum(axis=1, dtype=np.float64)
            self._both += np.bincount(classes, weights=np.exp(-entropy), minlength=size)
        if self._terms.bce:
            self._binary += self._binary_entropy(logits_CV, np.log(sums), classes)
        self._entropy += np.bincount(classes, weights=entropy, minlength=size)
        self._counts += np.bincount(classes, minlength=size)

    def value(self) -> float:
        """Return the weighted sum of the terms; 0 for each of which nothing counted."""
        return (
            self._terms.cross_entropy * self._balanced_entropy()
            + self._terms.bce * self._binary / max(int(self._counts.sum()), 1)
            + (self._terms.dice * self._dice() if self._terms.dice else 0.0)
        )

    def _balanced_entropy(self) -> float:
        balance = class_balance(self._counts, self._clip)
        total = float(balance @ self._counts)
        return float((self._weights * balance) @ self._entropy) / total if total > 0 else 0.0

    def _binary_entropy(
        self, logits_CV: NDArray[np.float32], log_sums: NDArray[np.float32], classes: NDArray[np.int64]
    ) -> float:
        """Return the sum over voxels of what `networks.weighted_bce` takes the mean of."""
        total = 0.0
        for index in range(1, len(logits_CV)):
            others = log_sums - np.logaddexp.reduce(np.delete(logits_CV, index, axis=0), axis=0)
            own = log_sums - logits_CV[index]
            is_own = classes == index
            total += self._weights[index] * float(own[is_own].sum(dtype=np.float64))
            total += self._weights[0] * float(others[~is_own].sum(dtype=np.float64))
        return total / (len(logits_CV) - 1)

    def _dice(self) -> float:
        from incasem.networks import dice_of_sums

        sums = zip(self._both[1:], self._predicted[1:], self._counts[1:], strict=True)
        return float(np.mean([dice_of_sums(both, predicted, true) for both, predicted, true in sums]))
