"""Semantic segmentation: each voxel gets one of C classes, class 0 being the background.

The target comes from `ground_truth` and is balanced here; the loss is the published balanced cross-entropy or
a weighted sum with others; decoding is softmax and argmax; scores are overlaps (F1, Jaccard, precision,
recall) and average precision.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from incasem.errors import DataError, explain
from incasem.metrics import OverlapAccumulator, PrecisionRecallAccumulator

if TYPE_CHECKING:
    import torch

    from incasem.config.training import Loss

Probability = Literal["uint8", "float32"]
"""How probabilities are stored."""

CLIP_FRACTION = (0.01, 0.99)  # loss.balance_labels.clipmin, clipmax


def full_scale(dtype: np.dtype[Any]) -> float:
    """Return the grey value that means 1 for raw data of a type: 255, 65535, or 1.0 for floats.

    Raises:
        DataError: raw data of this type have no agreed range.
    """
    kind = np.dtype(dtype)
    if kind in (np.dtype(np.uint8), np.dtype(np.uint16)):
        return float(np.iinfo(kind).max)
    if kind.kind == "f":
        return 1.0
    raise DataError(
        explain(
            "data type of the raw data",
            kind,
            "uint8, uint16, or floats in [0, 1]",
            "Convert the volume, for instance with `incasem convert --dtype uint8`",
        )
    )


def normalise(raw: NDArray[Any]) -> NDArray[np.float32]:
    """Return raw data of any allowed type as float32 in [-1, 1], as the network reads them."""
    factor = np.float32(2.0 / full_scale(raw.dtype))
    unit: NDArray[np.float32] = raw.astype(np.float32)
    unit *= factor
    unit -= np.float32(1)
    return unit


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


def training_scores(
    logits_NCZYX: "torch.Tensor", labels_NZYX: "torch.Tensor", mask_NZYX: "torch.Tensor"
) -> dict[str, float]:
    """Return the published `dice_class_c_train` (= F1) of a batch, one a class, inside the mask."""
    overlap = scores(int(logits_NCZYX.shape[1]))
    predicted = logits_NCZYX.argmax(dim=1).cpu().numpy()
    overlap.add(predicted, labels_NZYX.cpu().numpy(), mask_NZYX.cpu().numpy())
    return {f"dice_class_{score.class_id}_train": score.f1 for score in overlap.scores()}


def scores(num_classes: int) -> OverlapAccumulator:
    """Return the accumulator of this task's scores."""
    return OverlapAccumulator(num_classes)


class RegionScores:
    """All scores of a region, from its decoded blocks; they do not depend on how the region was cut.

    Args:
        num_classes: C.

    Attributes:
        overlap: of the classes; see `OverlapAccumulator`.
        precision_recall: of the probabilities; empty where blocks came without.
    """

    def __init__(self, num_classes: int) -> None:
        self.overlap = scores(num_classes)
        self.precision_recall = PrecisionRecallAccumulator(num_classes)

    def add(
        self,
        segmentation_ZYX: NDArray[Any],
        probabilities: Sequence[NDArray[Any]],
        classes_ZYX: NDArray[Any],
        mask_ZYX: NDArray[Any],
    ) -> None:
        """Count one block: decoded segmentation and stored probabilities (or none), truth and mask."""
        self.overlap.add(segmentation_ZYX, classes_ZYX, mask_ZYX)
        if len(probabilities) == self.overlap.num_classes - 1:
            probabilities = [background(probabilities), *probabilities]
        if probabilities:
            self.precision_recall.add(probabilities, classes_ZYX, mask_ZYX)

    def merge(self, other: "RegionScores") -> None:
        """Add the counts of ``other``."""
        self.overlap.merge(other.overlap)
        self.precision_recall.merge(other.precision_recall)

    def by_class(self) -> list[dict[str, float]]:
        """Return ``f1``, ``jaccard``, ``precision``, ``recall`` and ``average_precision`` of each class.

        See `ClassScores` and `PrecisionRecallCurve` for where they are 1, 0 or NaN.
        """
        return [
            {
                "f1": score.f1,
                "jaccard": score.jaccard,
                "precision": score.precision,
                "recall": score.recall,
                "average_precision": self.precision_recall.average_precision(score.class_id),
            }
            for score in self.overlap.scores()
        ]


def stored_classes(num_classes: int, dtype: Probability) -> range:
    """Return the classes whose probabilities are stored.

    In uint8 those of the foreground, since what they lack of 255 is the background's; in float32 all, as
    published.
    """
    return range(0 if dtype == "float32" else 1, num_classes)


def background(foreground: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Return what the stored probabilities of all foreground classes (uint8) leave to the background.

    Within one level of 255 times its probability for each class that was rounded.
    """
    left = np.full(foreground[0].shape, 255, np.int32)
    for probability in foreground:
        left -= probability
    return np.maximum(left, 0).astype(np.uint8)


def decode(
    logits_CZYX: "NDArray[np.floating[Any]] | torch.Tensor", dtype: Probability = "uint8"
) -> Mapping[str, NDArray[Any]]:
    """Return what is stored of a prediction: ``segmentation`` and ``prob_maps/class_c``.

    Args:
        logits_CZYX: output of the network.
        dtype: of the probabilities; uint8 holds ``round(255 p)``.

    Returns:
        ``segmentation``: the class of the largest logit, the lower one of equals; uint8 (uint16 above 256
        classes). ``prob_maps/class_c``, c of `stored_classes`: softmax over all classes.
    """
    import torch

    with torch.inference_mode():
        logits = torch.as_tensor(logits_CZYX).to(torch.float32)
        index_type = torch.uint8 if logits.shape[0] <= 256 else torch.int32
        best, segmentation = logits[0], torch.zeros(logits.shape[1:], dtype=index_type, device=logits.device)
        for index in range(1, logits.shape[0]):
            segmentation = torch.where(logits[index] > best, index, segmentation)
            best = torch.maximum(best, logits[index])
        stored = stored_classes(logits.shape[0], dtype)
        probabilities = torch.softmax(logits, dim=0)[stored.start :]
        if dtype == "uint8":
            probabilities = probabilities.mul_(255).round_().to(torch.uint8)
        maps = {f"prob_maps/class_{c}": p.cpu().numpy() for c, p in zip(stored, probabilities, strict=True)}
        classes = segmentation.cpu().numpy()
        if classes.dtype != np.uint8:
            classes = classes.astype(np.uint16)
        return {"segmentation": classes} | maps
