"""All thresholds of a probability map in one pass.

A threshold only asks how many voxels reach it. So each voxel is counted once, under the number of thresholds
that it reaches, apart for voxels of the structure and all others; the confusion at every threshold follows by
summing up. The counts are integers: neither order nor size of the blocks changes them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from incasem.errors import ConfigError, DataError, explain
from incasem.metrics.overlap import SLICE_VOXELS, ClassScores, check_shapes, class_scores
from incasem.metrics.precision_recall import LEVELS, PrecisionRecallCurve, curve_of, levels_of

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class ThresholdScores:
    """Scores of ``probability ≥ threshold``; see `ClassScores` for their definitions and empty cases."""

    threshold: float
    scores: ClassScores
    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int


class ThresholdSweep:
    """Counts of a probability map against a structure, for any thresholds and for the 256 stored levels.

    Stored bytes stand for level / 255, so a byte reaches t where level / 255 ≥ t. Floats are compared in
    their own precision, as published.

    Args:
        thresholds: rising, in [0, 1].

    Raises:
        ConfigError: none, not rising, or outside [0, 1].
    """

    def __init__(self, thresholds: Sequence[float]) -> None:
        values = np.asarray(thresholds, dtype=np.float64)
        good = values.ndim == 1 and values.size > 0 and (np.diff(values) > 0).all()
        if not (good and values[0] >= 0 and values[-1] <= 1):
            raise ConfigError(
                explain("thresholds", list(thresholds), "rising numbers from 0 to 1", "Correct them")
            )
        self.thresholds = values
        self._reached = np.zeros((2, values.size + 1), np.int64)
        self._histogram = np.zeros((2, LEVELS), np.int64)

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """All counts, int64, shape (2, thresholds + 1 + 256): of other voxels, then of the structure."""
        return np.concatenate([self._reached, self._histogram], axis=1)

    @property
    def voxels(self) -> int:
        """Number of voxels counted so far."""
        return int(self._histogram.sum())

    def add_counts(self, counts: npt.NDArray[np.int64]) -> None:
        """Add the `counts` of another sweep over the same thresholds."""
        self._reached += counts[:, : self.thresholds.size + 1]
        self._histogram += counts[:, self.thresholds.size + 1 :]

    def add(self, probabilities: Array, truth: Array, mask: Array | None = None) -> None:
        """Count one block.

        Args:
            probabilities: uint8 holding round(255 p), or floats in [0, 1]; any shape.
            truth: nonzero where the structure is, same shape.
            mask: voxels that count (nonzero), same shape; all of them if None.

        Raises:
            DataError: shapes differ, or a probability that counts is outside [0, 1].
        """
        check_shapes({"probabilities": probabilities} | ({} if mask is None else {"mask": mask}), truth)
        flat, own = probabilities.reshape(-1), truth.reshape(-1)
        inside = None if mask is None else mask.reshape(-1)
        for begin in range(0, flat.size, SLICE_VOXELS):
            part = slice(begin, begin + SLICE_VOXELS)
            chosen = slice(None) if inside is None else inside[part] != 0
            values, row = flat[part][chosen], (own[part][chosen] != 0).astype(np.intp)
            levels = levels_of(values)
            self._histogram += _count(row, levels, LEVELS)
            self._reached += _count(row, self._number_reached(values), self.thresholds.size + 1)

    def _number_reached(self, values: Array) -> npt.NDArray[np.intp]:
        if values.dtype == np.uint8:
            by_level = np.searchsorted(self.thresholds, np.arange(LEVELS) / (LEVELS - 1), side="right")
            return by_level[values]
        # Thresholds too near to each other for the values' type coincide there; searchsorted allows that.
        return np.searchsorted(self.thresholds.astype(values.dtype), values, side="right")

    def scores(self) -> list[ThresholdScores]:
        """Return the scores at each threshold, the lowest first."""
        found = np.cumsum(self._reached[:, ::-1], axis=1)[:, ::-1][:, 1:]
        return [self._at(float(t), int(f), int(o)) for t, f, o in zip(self.thresholds, *found, strict=True)]

    def level_scores(self) -> list[ThresholdScores]:
        """Return the scores at the thresholds 0/255, 1/255, … 255/255, of probabilities rounded to them."""
        found = np.cumsum(self._histogram[:, ::-1], axis=1)[:, ::-1]
        return [
            self._at(level / (LEVELS - 1), int(f), int(o))
            for level, (f, o) in enumerate(zip(*found, strict=True))
        ]

    def curve(self) -> PrecisionRecallCurve:
        """Return precision over recall, with the average precision."""
        return curve_of(self._histogram, 1)

    def _at(self, threshold: float, false_positives: int, true_positives: int) -> ThresholdScores:
        others, own = (int(n) for n in self._histogram.sum(axis=1))
        return ThresholdScores(
            threshold,
            class_scores(1, true_positives, own, true_positives + false_positives),
            true_positives,
            false_positives,
            own - true_positives,
            others - false_positives,
        )


def _count(row: npt.NDArray[np.intp], column: Array, columns: int) -> npt.NDArray[np.int64]:
    counts = np.bincount(row * columns + column, minlength=2 * columns)
    return counts.reshape(2, columns).astype(np.int64)


def threshold_range(start: float, stop: float, step: float) -> list[float]:
    """Return start, start + step, … up to stop, both included, as the published flags mean them.

    Raises:
        ConfigError: outside [0, 1], stop below start, or a step that is not positive or gives too many.
    """
    if not 0 <= start <= stop <= 1:
        raise ConfigError(
            explain(
                "threshold_start and threshold_stop",
                f"{start:g} and {stop:g}",
                "0 ≤ start ≤ stop ≤ 1",
                "Correct them",
            )
        )
    if not 1e-4 <= step <= 1:
        raise ConfigError(explain("threshold_step", f"{step:g}", "0.0001 to 1", "Correct it"))
    return [round(start + k * step, 9) for k in range(int((stop - start) / step + 1e-6) + 1)]


def reaches(values: Array, threshold: float) -> npt.NDArray[np.bool_]:
    """Return where stored probabilities (uint8: round(255 p), or floats) are at least ``threshold``.

    Raises:
        DataError: other types.
    """
    if values.dtype == np.uint8:
        return (np.arange(LEVELS) / (LEVELS - 1) >= threshold)[values]
    if values.dtype.kind != "f":
        raise DataError(
            explain(
                "the type of the probabilities", values.dtype, "uint8 or floats", "Give a probability map"
            )
        )
    return values >= values.dtype.type(threshold)
