"""Voxel overlap of two class maps, accumulated block by block.

All scores come from one confusion matrix, so the order and the size of the blocks cannot change them, and
the accumulators of several workers add up to that of the whole volume exactly (they are integers).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from incasem.errors import DataError

Array = npt.NDArray[Any]

SLICE_VOXELS = 1 << 20
"""Voxels counted at a time: np.bincount copies its input to 8-byte integers."""


@dataclass(frozen=True)
class ClassScores:
    """The overlap scores of one class, all in [0, 1], and the voxel counts behind them.

    With TP, FP and FN the voxels of the class that are in both maps, only in the prediction, only in the
    truth: ``f1`` = 2TP / (2TP + FP + FN) (the Dice coefficient; Dice, Ecology 26, 1945), ``jaccard`` =
    TP / (TP + FP + FN), ``precision`` = TP / (TP + FP), ``recall`` = TP / (TP + FN). ``support`` = TP + FN
    is the class's size in the truth, ``predicted`` = TP + FP its size in the prediction.

    Where a denominator is 0: a class that is in neither map was predicted without a fault, and all four
    scores are 1. In every other case TP is 0 and so is the score: precision when nothing was predicted,
    recall when there was nothing to find.
    """

    class_id: int
    f1: float
    jaccard: float
    precision: float
    recall: float
    support: int
    predicted: int


def class_scores(class_id: int, both: int, support: int, predicted: int) -> ClassScores:
    """Return the scores of a class from its voxels in both maps, in the truth, and in the prediction."""
    empty = support == 0 and predicted == 0

    def ratio(numerator: int, denominator: int) -> float:
        if empty:
            return 1.0
        return numerator / denominator if denominator else 0.0

    return ClassScores(
        class_id=class_id,
        f1=ratio(2 * both, support + predicted),
        jaccard=ratio(both, support + predicted - both),
        precision=ratio(both, predicted),
        recall=ratio(both, support),
        support=support,
        predicted=predicted,
    )


def check_shapes(arrays: Mapping[str, Array], truth: Array) -> None:
    """Raise a DataError for an array (by name) that has not the shape of the truth."""
    for name, array in arrays.items():
        if array.shape != truth.shape:
            raise DataError(
                f"shape of the {name} is {array.shape}; allowed: that of the truth, {truth.shape}. "
                "Score arrays of the same region."
            )


def check_num_classes(num_classes: int) -> None:
    """Raise a DataError for a number of classes, with the background, that is not positive."""
    if num_classes < 1:
        raise DataError(f"num_classes is {num_classes}; allowed: 1 or more. Count the background as a class.")


def check_mergeable(what: str, other: int, own: int) -> None:
    """Raise a DataError where counts (``what``) of ``other`` classes are to be added to those of ``own``."""
    if other != own:
        raise DataError(
            f"num_classes of the merged {what} is {other}; allowed: {own}, as here. "
            "Merge scores of one task only."
        )


class OverlapAccumulator:
    """Confusion matrix of predicted against true classes over any number of blocks.

    Args:
        num_classes: C; class maps hold 0 … C - 1 (0 is the background, and is scored like every other class).

    Raises:
        DataError: ``num_classes`` is less than 1.
    """

    def __init__(self, num_classes: int) -> None:
        check_num_classes(num_classes)
        self.num_classes = num_classes
        self._confusion = np.zeros((num_classes, num_classes), dtype=np.int64)

    @property
    def confusion(self) -> npt.NDArray[np.int64]:
        """Voxel counts, shape (C, C): row = class in the truth, column = class in the prediction. A copy."""
        return self._confusion.copy()

    @property
    def voxels(self) -> int:
        """Number of voxels counted so far (those inside the mask)."""
        return int(self._confusion.sum())

    def add(self, prediction: Array, truth: Array, mask: Array | None = None) -> None:
        """Count one block.

        Args:
            prediction: class of each voxel, any shape, integer (or bool for two classes).
            truth: the same, same shape.
            mask: voxels that count (nonzero), same shape; all of them if None.

        Raises:
            DataError: shapes differ, the type is not an integer, or a class inside the mask is not 0 … C - 1.
                The block is then not counted.
        """
        prediction, truth = np.asarray(prediction), np.asarray(truth)
        arrays = {"prediction": prediction, "truth": truth}
        if mask is not None:
            mask = np.asarray(mask)
        check_shapes(arrays | ({} if mask is None else {"mask": mask}), truth)
        for name, array in arrays.items():
            if array.dtype.kind not in "bui":
                raise DataError(
                    f"type of the {name} is {array.dtype}; allowed: integers (class indices). "
                    "Take the argmax or a threshold of probabilities first."
                )
        flat_mask = None if mask is None else mask.reshape(-1)
        block = np.zeros_like(self._confusion)
        flat_prediction, flat_truth = prediction.reshape(-1), truth.reshape(-1)
        for begin in range(0, flat_truth.size, SLICE_VOXELS):
            part = slice(begin, begin + SLICE_VOXELS)
            block += self._count(
                flat_prediction[part], flat_truth[part], None if flat_mask is None else flat_mask[part]
            )
        self._confusion += block

    def _count(self, prediction: Array, truth: Array, mask: Array | None) -> npt.NDArray[np.int64]:
        if mask is not None:
            inside = mask != 0
            prediction, truth = prediction[inside], truth[inside]
        for name, classes in (("prediction", prediction), ("truth", truth)):
            if classes.size and (int(classes.min()) < 0 or int(classes.max()) >= self.num_classes):
                worst = int(classes.max()) if int(classes.min()) >= 0 else int(classes.min())
                raise DataError(
                    f"a class in the {name} is {worst}; allowed: 0 to {self.num_classes - 1}. "
                    "Correct num_classes, or turn instance ids into classes first."
                )
        index = truth.astype(np.int64) * self.num_classes + prediction.astype(np.int64)
        counts = np.bincount(index, minlength=self.num_classes**2)
        return counts.reshape(self.num_classes, self.num_classes).astype(np.int64)

    def merge(self, other: "OverlapAccumulator") -> None:
        """Add the counts of ``other``, for instance those of another worker.

        Raises:
            DataError: ``other`` has another number of classes.
        """
        check_mergeable("scores", other.num_classes, self.num_classes)
        self._confusion += other._confusion

    def scores(self) -> list[ClassScores]:
        """Return the scores of class 0, 1, … C - 1 over everything counted so far."""
        return [self._class_scores(class_id) for class_id in range(self.num_classes)]

    def _class_scores(self, class_id: int) -> ClassScores:
        return class_scores(
            class_id,
            both=int(self._confusion[class_id, class_id]),
            support=int(self._confusion[class_id, :].sum()),
            predicted=int(self._confusion[:, class_id].sum()),
        )

    def accuracy(self) -> float:
        """Return the fraction of counted voxels whose class is right; NaN if none was counted."""
        return float(np.trace(self._confusion)) / self.voxels if self.voxels else math.nan

    def to_json(self) -> dict[str, object]:
        """Return the counts as plain JSON values; `from_json` reads them back."""
        return {"num_classes": self.num_classes, "confusion": self._confusion.tolist()}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "OverlapAccumulator":
        """Return the accumulator that `to_json` described.

        Raises:
            DataError: the counts are missing, not square, negative, or not whole numbers.
        """
        accumulator = cls(int(stored.get("num_classes", 0)))
        rows: Sequence[Sequence[int]] = stored.get("confusion", [])
        shape = (accumulator.num_classes,) * 2
        try:
            confusion = np.array(rows)
        except ValueError:
            confusion = np.zeros(0)
        if confusion.shape != shape or confusion.dtype.kind != "i" or confusion.min() < 0:
            raise DataError(
                f"stored confusion matrix is {rows}; allowed: {shape[0]} × {shape[1]} counts. "
                "Delete the damaged file and score again."
            )
        accumulator._confusion = confusion.astype(np.int64)
        return accumulator
