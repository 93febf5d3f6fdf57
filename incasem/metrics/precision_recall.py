"""The precision–recall curve and the average precision of class probabilities, accumulated block by block.

Two histograms a class hold all that the curve needs: of the probabilities of the class's own voxels and of
those of all others. Their 256 levels are those in which prediction stores probabilities, so a validation in
memory and a stored prediction have the same curve. They are integers: one pass over the blocks is enough, and
neither the order nor the size of the blocks can change the result.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from incasem.errors import DataError
from incasem.metrics.overlap import SLICE_VOXELS, check_mergeable, check_num_classes, check_shapes

Array = npt.NDArray[Any]

LEVELS = 256
"""Probability p counts as level round(255 p)."""


@dataclass(frozen=True)
class PrecisionRecallCurve:
    """Precision and recall of one class for falling thresholds, one point a level that any voxel has.

    At a threshold t the voxels whose probability is at least t are the prediction. ``average_precision`` is
    the sum of precision × gain in recall over the points (no interpolation), in [0, 1]: the definition of
    scikit-learn's `average_precision_score`, on probabilities of 256 levels.

    A class without voxels in the truth has no recall: ``recall`` and ``average_precision`` are NaN. (F1 is
    defined there since it also rewards that nothing was predicted; a ranking of nothing is neither good nor
    bad.) A class that is everywhere has an average precision of 1 whatever its probabilities are. Where
    nothing was counted the arrays are empty and the average precision is NaN.
    """

    class_id: int
    thresholds: npt.NDArray[np.float64]
    precision: npt.NDArray[np.float64]
    recall: npt.NDArray[np.float64]
    average_precision: float


@dataclass(frozen=True)
class ThresholdCounts:
    """Voxels rightly and wrongly found and left out at the thresholds 0/255, 1/255, … 255/255."""

    true_positives: npt.NDArray[np.int64]
    false_positives: npt.NDArray[np.int64]
    true_negatives: npt.NDArray[np.int64]
    false_negatives: npt.NDArray[np.int64]


class PrecisionRecallAccumulator:
    """Histograms of the probabilities of each class over any number of blocks.

    Args:
        num_classes: C; class 0 is the background, and is scored like every other class.

    Raises:
        DataError: ``num_classes`` is less than 1.
    """

    def __init__(self, num_classes: int) -> None:
        check_num_classes(num_classes)
        self.num_classes = num_classes
        self._histograms = np.zeros((num_classes, 2, LEVELS), dtype=np.int64)

    @property
    def histograms(self) -> npt.NDArray[np.int64]:
        """Voxel counts, shape (C, 2, 256): the levels of a class at other voxels and at its own. A copy."""
        return self._histograms.copy()

    def add(self, probabilities: Sequence[Array] | Array, truth: Array, mask: Array | None = None) -> None:
        """Count one block.

        Args:
            probabilities: of class 0, 1, … C - 1, each of the shape of ``truth``: uint8 holding round(255 p),
                or floats in [0, 1].
            truth: class of each voxel, integers.
            mask: voxels that count (nonzero), same shape; all of them if None.

        Raises:
            DataError: shapes differ, the number of classes is another one, or a probability that counts is
                outside [0, 1]. The block is then not counted.
        """
        truth = np.asarray(truth)
        maps = [np.asarray(probability) for probability in probabilities]
        if len(maps) != self.num_classes:
            raise DataError(
                f"probabilities of {len(maps)} classes were given; allowed: {self.num_classes}, one for each "
                "class with the background. Give all maps of the prediction."
            )
        named = {f"probability of class {index}": array for index, array in enumerate(maps)}
        mask = None if mask is None else np.asarray(mask)
        check_shapes(named | ({} if mask is None else {"mask": mask}), truth)
        flat_truth = truth.reshape(-1)
        flat_mask = None if mask is None else mask.reshape(-1)
        flat_maps = [array.reshape(-1) for array in maps]
        block = np.zeros_like(self._histograms)
        for begin in range(0, flat_truth.size, SLICE_VOXELS):
            part = slice(begin, begin + SLICE_VOXELS)
            inside = slice(None) if flat_mask is None else flat_mask[part] != 0
            classes = flat_truth[part][inside]
            for class_id, probability in enumerate(flat_maps):
                index = (classes == class_id).astype(np.intp)
                index *= LEVELS
                index += levels_of(probability[part][inside])
                block[class_id] += np.bincount(index, minlength=2 * LEVELS).reshape(2, LEVELS)
        self._histograms += block

    def merge(self, other: "PrecisionRecallAccumulator") -> None:
        """Add the counts of ``other``, for instance those of another worker.

        Raises:
            DataError: ``other`` has another number of classes.
        """
        check_mergeable("curves", other.num_classes, self.num_classes)
        self._histograms += other._histograms

    def counts(self, class_id: int) -> ThresholdCounts:
        """Return the confusion of a class with all others at each of the 256 thresholds, the lowest first."""
        return counts_of(self._histograms[class_id])

    def curve(self, class_id: int) -> PrecisionRecallCurve:
        """Return the curve of a class over everything counted so far."""
        return curve_of(self._histograms[class_id], class_id)

    def average_precision(self, class_id: int) -> float:
        """Return the average precision of a class; NaN where the truth has no voxel of it."""
        return self.curve(class_id).average_precision


def counts_of(histogram: npt.NDArray[np.int64]) -> ThresholdCounts:
    """Return the confusion at each of 256 thresholds; histogram of levels (2, 256): of others, of own."""
    others, own = histogram
    found_others, found_own = (np.cumsum(levels[::-1])[::-1] for levels in (others, own))
    return ThresholdCounts(found_own, found_others, others.sum() - found_others, own.sum() - found_own)


def curve_of(histogram: npt.NDArray[np.int64], class_id: int) -> PrecisionRecallCurve:
    """Return the curve of a class from its histogram, as `counts_of`."""
    counts = counts_of(histogram)
    levels = np.flatnonzero(histogram.sum(axis=0))[::-1]  # others repeat a point
    found = counts.true_positives[levels]
    precision = found / (found + counts.false_positives[levels])
    support = int(histogram[1].sum())
    recall = found / support if support else np.full(levels.size, np.nan)
    gained = np.diff(recall, prepend=0.0)
    return PrecisionRecallCurve(
        class_id=class_id,
        thresholds=levels / (LEVELS - 1),
        precision=precision,
        recall=recall,
        average_precision=float(gained @ precision) if support else float("nan"),
    )


def levels_of(probabilities: Array) -> npt.NDArray[np.uint8]:
    """Return probabilities as they are stored, round(255 p)."""
    if probabilities.dtype == np.uint8:
        return probabilities
    if probabilities.dtype.kind != "f":
        raise DataError(
            f"type of the probabilities is {probabilities.dtype}; allowed: uint8 (0 to 255) or floats (0 to "
            "1). Give the probability maps, not the segmentation."
        )
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise DataError(
            "a probability is outside 0 to 1; allowed: floats from 0 to 1. Apply the softmax to a network's "
            "output first."
        )
    return np.rint(probabilities * (LEVELS - 1)).astype(np.uint8)
