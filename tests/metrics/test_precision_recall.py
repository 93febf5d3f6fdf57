"""The curve from histograms equals its definition on every voxel's probability."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from incasem.errors import DataError
from incasem.metrics import PrecisionRecallAccumulator

SHAPE = (3, 4, 5)
CLASSES = 3

truths = hnp.arrays(np.uint8, SHAPE, elements=st.integers(0, CLASSES - 1))
# Few levels make ties, many make long curves.
probabilities = st.one_of(
    hnp.arrays(np.uint8, (CLASSES, *SHAPE)),
    hnp.arrays(np.uint8, (CLASSES, *SHAPE), elements=st.sampled_from([0, 1, 254, 255])),
)
masks = hnp.arrays(np.bool_, SHAPE)


def defined(probability, own):
    """Thresholds, precision, recall and average precision, threshold after threshold, voxel by voxel."""
    thresholds = sorted(set(probability.tolist()), reverse=True)
    precision, recall = [], []
    for threshold in thresholds:
        found = probability >= threshold
        precision.append((found & own).sum() / found.sum())
        recall.append((found & own).sum() / own.sum() if own.any() else np.nan)
    average, before = 0.0, 0.0
    for p, r in zip(precision, recall, strict=True):
        average, before = average + p * (r - before), r
    return thresholds, precision, recall, average if own.any() else np.nan


@given(probability=probabilities, truth=truths, mask=masks)
def test_the_curve_is_the_definition_inside_the_mask(probability, truth, mask):
    accumulator = PrecisionRecallAccumulator(CLASSES)
    accumulator.add(probability, truth, mask)

    for class_id in range(CLASSES):
        thresholds, precision, recall, average = defined(probability[class_id][mask], truth[mask] == class_id)
        curve = accumulator.curve(class_id)
        np.testing.assert_allclose(curve.thresholds * 255, thresholds)
        np.testing.assert_allclose(curve.precision, precision)
        np.testing.assert_allclose(curve.recall, recall)
        np.testing.assert_allclose(curve.average_precision, average, atol=1e-12)
        assert np.isnan(average) or 0 <= curve.average_precision <= 1 + 1e-12
    assert accumulator.histograms.sum() == CLASSES * mask.sum()


@given(probability=probabilities, truth=truths, mask=masks, cut=st.integers(0, SHAPE[0]))
def test_blocks_merged_in_any_order_equal_the_whole(probability, truth, mask, cut):
    whole = PrecisionRecallAccumulator(CLASSES)
    whole.add(probability, truth, mask)
    first, second = PrecisionRecallAccumulator(CLASSES), PrecisionRecallAccumulator(CLASSES)
    first.add(probability[:, cut:], truth[cut:], mask[cut:])
    second.add(probability[:, :cut], truth[:cut], mask[:cut])

    first.merge(second)

    np.testing.assert_array_equal(first.histograms, whole.histograms)


@given(probability=probabilities, truth=truths)
def test_counts_at_all_thresholds(probability, truth):
    accumulator = PrecisionRecallAccumulator(CLASSES)
    accumulator.add(probability, truth)

    counts = accumulator.counts(1)
    for level in (0, 1, 128, 254, 255):
        found, own = probability[1] >= level, truth == 1
        assert counts.true_positives[level] == (found & own).sum()
        assert counts.false_positives[level] == (found & ~own).sum()
        assert counts.true_negatives[level] == (~found & ~own).sum()
        assert counts.false_negatives[level] == (~found & own).sum()


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_floats_count_as_what_would_be_stored_of_them(dtype):
    rng = np.random.default_rng(0)
    one = rng.random(1000).astype(dtype)
    truth = rng.integers(0, 2, 1000)
    floats, stored = PrecisionRecallAccumulator(2), PrecisionRecallAccumulator(2)

    floats.add([1 - one, one], truth)
    stored.add([np.rint((1 - one) * 255).astype(np.uint8), np.rint(one * 255).astype(np.uint8)], truth)

    np.testing.assert_array_equal(floats.histograms, stored.histograms)


def test_a_known_curve():
    accumulator = PrecisionRecallAccumulator(2)
    one = np.array([0.1, 0.4, 0.35, 0.8])  # the example in scikit-learn's documentation
    accumulator.add([1 - one, one], np.array([0, 0, 1, 1]))

    curve = accumulator.curve(1)

    assert curve.average_precision == pytest.approx(0.8333, abs=1e-4)
    np.testing.assert_allclose(curve.precision, [1, 1 / 2, 2 / 3, 1 / 2])
    np.testing.assert_allclose(curve.recall, [1 / 2, 1 / 2, 1, 1])


def test_absent_everywhere_and_nothing_counted():
    absent = PrecisionRecallAccumulator(2)
    absent.add(np.full((2, 4), 128, np.uint8), np.zeros(4, int))
    assert np.isnan(absent.average_precision(1))
    assert np.isnan(absent.curve(1).recall).all()
    assert absent.average_precision(0) == 1, "a class that is everywhere cannot be missed"

    nothing = PrecisionRecallAccumulator(2)
    nothing.add(np.zeros((2, 4), np.uint8), np.zeros(4, int), np.zeros(4, bool))
    assert np.isnan(nothing.average_precision(0))
    assert nothing.curve(0).precision.size == 0


def test_perfect_and_random_probabilities():
    rng = np.random.default_rng(1)
    truth = rng.random(100_000) < 0.2
    perfect, random = PrecisionRecallAccumulator(2), PrecisionRecallAccumulator(2)
    perfect.add([1.0 - truth, truth.astype(float)], truth)
    guess = rng.random(truth.size)
    random.add([1 - guess, guess], truth)

    assert perfect.average_precision(1) == 1
    assert random.average_precision(1) == pytest.approx(truth.mean(), abs=0.01)


def test_large_blocks_are_counted_in_slices(monkeypatch):
    rng = np.random.default_rng(2)
    probability, truth = rng.integers(0, 256, (2, 9, 9), dtype=np.uint8), rng.integers(0, 2, (9, 9))
    mask = rng.integers(0, 2, (9, 9))
    whole, sliced = PrecisionRecallAccumulator(2), PrecisionRecallAccumulator(2)
    whole.add(probability, truth, mask)
    monkeypatch.setattr("incasem.metrics.precision_recall.SLICE_VOXELS", 10)
    sliced.add(probability, truth, mask)

    np.testing.assert_array_equal(whole.histograms, sliced.histograms)


@pytest.mark.parametrize(
    ("probability", "message"),
    [
        (np.zeros((3, 4), np.uint8), "probabilities of 3 classes were given; allowed: 2"),
        (np.zeros((2, 5), np.uint8), r"shape of the probability of class 0 is \(5,\)"),
        (np.zeros((2, 4), np.int64), "type of the probabilities is int64"),
        (np.array([[0.5] * 4, [0.5, 1.5, 0, 0]]), "outside 0 to 1"),
        (np.array([[0.5] * 4, [0.5, np.nan, 0, 0]]), "outside 0 to 1"),
    ],
)
def test_wrong_arrays_are_refused_and_not_counted(probability, message):
    accumulator = PrecisionRecallAccumulator(2)
    with pytest.raises(DataError, match=message):
        accumulator.add(probability, np.array([0, 1, 0, 1]))
    assert accumulator.histograms.sum() == 0


def test_wrong_numbers_of_classes_are_refused():
    with pytest.raises(DataError, match="num_classes is 0"):
        PrecisionRecallAccumulator(0)
    with pytest.raises(DataError, match="num_classes of the merged"):
        PrecisionRecallAccumulator(2).merge(PrecisionRecallAccumulator(3))
