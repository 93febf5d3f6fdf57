"""The scores of a region that every task reports: overlap and average precision of classes.

What the classes are is the task's business; class 0 is the background.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from incasem.metrics import OverlapAccumulator, PrecisionRecallAccumulator


class RegionScores:
    """All scores of a region, from its decoded blocks; they do not depend on how the region was cut.

    Args:
        num_classes: C.

    Attributes:
        overlap: of the classes; see `OverlapAccumulator`.
        precision_recall: of the probabilities; empty where blocks came without.
    """

    def __init__(self, num_classes: int) -> None:
        self.overlap = OverlapAccumulator(num_classes)
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


def background(foreground: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Return what the stored probabilities of all foreground classes (uint8) leave to the background.

    Within one level of 255 times its probability for each class that was rounded.
    """
    left = np.full(foreground[0].shape, 255, np.int32)
    for probability in foreground:
        left -= probability
    return np.maximum(left, 0).astype(np.uint8)


def class_fractions(classes: NDArray[Any], mask: NDArray[Any], num_classes: int) -> dict[str, float]:
    """Return `pct_class_c`: the share of each class among the voxels inside the mask (nonzero)."""
    counts = np.bincount(classes[mask != 0], minlength=num_classes)
    total = max(int(counts.sum()), 1)
    return {f"pct_class_{c}": int(count) / total for c, count in enumerate(counts)}


def overlap_in_training(
    predicted: NDArray[Any], classes: NDArray[Any], mask: NDArray[Any], num_classes: int
) -> dict[str, float]:
    """Return the published `dice_class_c_train` (= F1) of a batch, one a class, inside the mask."""
    overlap = OverlapAccumulator(num_classes)
    overlap.add(predicted, classes, mask)
    return {f"dice_class_{score.class_id}_train": score.f1 for score in overlap.scores()}
