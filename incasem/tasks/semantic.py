"""Semantic segmentation: each voxel gets one of C classes, class 0 being the background.

The target comes from `ground_truth` and is balanced here; the loss is the published balanced cross-entropy;
decoding is softmax and argmax; scores are overlaps (F1, Jaccard, precision, recall).
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from incasem.errors import DataError, explain
from incasem.metrics import OverlapAccumulator

if TYPE_CHECKING:
    import torch

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


def loss(
    logits_NCZYX: "torch.Tensor",
    labels_NZYX: "torch.Tensor",
    scale_NZYX: "torch.Tensor",
    class_weights: Sequence[float],
    dice_weight: float = 0.0,
) -> "torch.Tensor":
    """Return the training loss, a scalar: `networks.balanced_cross_entropy`, and so much `soft_dice`."""
    from incasem.networks import balanced_cross_entropy, soft_dice

    entropy = balanced_cross_entropy(logits_NCZYX, labels_NZYX, scale_NZYX, class_weights)
    if dice_weight == 0:
        return entropy
    return entropy + dice_weight * soft_dice(logits_NCZYX, labels_NZYX, scale_NZYX)


class RegionLoss:
    """The training loss of a whole region, from its blocks: balance and Dice are those of the region.

    The result does not depend on how the region was cut (up to the rounding of float64 sums).

    Args:
        num_classes: C.
        class_weights: `loss.weight`.
        clip: see `class_balance`.
        dice_weight: see `loss`.
    """

    def __init__(
        self,
        num_classes: int,
        class_weights: Sequence[float],
        clip: tuple[float, float] = CLIP_FRACTION,
        dice_weight: float = 0.0,
    ) -> None:
        self._weights = np.asarray(class_weights, np.float64)
        self._clip = clip
        self._dice_weight = dice_weight
        self._entropy = np.zeros(num_classes, np.float64)
        self._counts = np.zeros(num_classes, np.int64)
        self._predicted, self._both = np.zeros(num_classes), np.zeros(num_classes)

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
        if self._dice_weight:
            self._predicted += (exponents_CV / sums).sum(axis=1, dtype=np.float64)
            self._both += np.bincount(classes, weights=np.exp(-entropy), minlength=size)
        self._entropy += np.bincount(classes, weights=entropy, minlength=size)
        self._counts += np.bincount(classes, minlength=size)

    def value(self) -> float:
        """Return ``sum(w * CE * scale) / sum(scale)`` (0 where nothing counted), and the Dice term."""
        balance = class_balance(self._counts, self._clip)
        total = float(balance @ self._counts)
        entropy = float((self._weights * balance) @ self._entropy) / total if total > 0 else 0.0
        return entropy + self._dice_weight * self._dice() if self._dice_weight else entropy

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


def stored_classes(num_classes: int, dtype: Probability) -> range:
    """Return the classes whose probabilities are stored.

    In uint8 those of the foreground, since what they lack of 255 is the background's; in float32 all, as
    published.
    """
    return range(0 if dtype == "float32" else 1, num_classes)


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
