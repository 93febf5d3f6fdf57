import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from incasem.errors import DataError
from incasem.metrics import OverlapAccumulator

SHAPE = (5, 6, 7)


def class_maps(num_classes=3):
    return hnp.arrays(np.uint8, SHAPE, elements=st.integers(0, num_classes - 1))


masks = hnp.arrays(np.bool_, SHAPE)


@given(prediction=class_maps(), truth=class_maps(), mask=masks)
def test_scores_equal_the_plain_formulas_inside_the_mask(prediction, truth, mask):
    accumulator = OverlapAccumulator(3)
    accumulator.add(prediction, truth, mask)

    for scores in accumulator.scores():
        p = (prediction == scores.class_id) & mask
        t = (truth == scores.class_id) & mask
        tp, fp, fn = np.sum(p & t), np.sum(p & ~t), np.sum(~p & t)
        if tp + fp + fn == 0:
            assert (scores.f1, scores.jaccard, scores.precision, scores.recall) == (1, 1, 1, 1)
            continue
        assert scores.f1 == pytest.approx(2 * tp / (2 * tp + fp + fn))
        assert scores.jaccard == pytest.approx(tp / (tp + fp + fn))
        assert scores.precision == pytest.approx(tp / (tp + fp) if tp + fp else 0)
        assert scores.recall == pytest.approx(tp / (tp + fn) if tp + fn else 0)
        assert scores.support == t.sum()
        assert scores.predicted == p.sum()
    assert accumulator.voxels == mask.sum()


@given(prediction=class_maps(), truth=class_maps(), mask=masks, cut=st.integers(0, SHAPE[0]))
def test_blocks_merged_in_any_order_equal_the_whole(prediction, truth, mask, cut):
    whole = OverlapAccumulator(3)
    whole.add(prediction, truth, mask)
    first, second = OverlapAccumulator(3), OverlapAccumulator(3)
    first.add(prediction[cut:], truth[cut:], mask[cut:])
    second.add(prediction[:cut], truth[:cut], mask[:cut])

    first.merge(second)

    np.testing.assert_array_equal(first.confusion, whole.confusion)
    assert first.scores() == whole.scores()


def test_confusion_rows_are_truth_and_columns_prediction():
    accumulator = OverlapAccumulator(2)
    accumulator.add(prediction=np.array([1, 1, 0]), truth=np.array([0, 0, 0]))

    np.testing.assert_array_equal(accumulator.confusion, [[1, 2], [0, 0]])


def test_class_absent_from_both_scores_one_and_absent_from_truth_only_scores_zero():
    accumulator = OverlapAccumulator(3)
    accumulator.add(prediction=np.array([0, 1]), truth=np.array([0, 0]))
    _, predicted_only, nowhere = accumulator.scores()

    assert (nowhere.f1, nowhere.jaccard, nowhere.precision, nowhere.recall) == (1, 1, 1, 1)
    assert (predicted_only.f1, predicted_only.jaccard) == (0, 0)
    assert (predicted_only.precision, predicted_only.recall) == (0, 0)


def test_large_blocks_are_counted_in_slices(monkeypatch):
    monkeypatch.setattr("incasem.metrics.overlap.SLICE_VOXELS", 10)
    rng = np.random.default_rng(0)
    prediction, truth = rng.integers(0, 4, (2, 9, 9, 9))
    accumulator = OverlapAccumulator(4)
    accumulator.add(prediction, truth)

    expected = np.zeros((4, 4), int)
    np.add.at(expected, (truth.ravel(), prediction.ravel()), 1)
    np.testing.assert_array_equal(accumulator.confusion, expected)


def test_unsigned_types_of_different_width_and_masks_of_255_are_accepted():
    accumulator = OverlapAccumulator(2)
    accumulator.add(np.array([1, 1], np.uint64), np.array([1, 0], np.uint8), np.array([255, 0], np.uint8))
    np.testing.assert_array_equal(accumulator.confusion, [[0, 0], [0, 1]])


def test_a_class_outside_the_range_counts_nothing_and_names_it():
    accumulator = OverlapAccumulator(2)
    with pytest.raises(DataError, match="class in the truth is 7; allowed: 0 to 1"):
        accumulator.add(np.array([0, 1]), np.array([0, 7]))
    with pytest.raises(DataError, match="class in the prediction is -1"):
        accumulator.add(np.array([0, -1]), np.array([0, 1]))
    assert accumulator.voxels == 0
    accumulator.add(np.array([0, 1]), np.array([0, 7]), mask=np.array([1, 0]))
    assert accumulator.voxels == 1


def test_wrong_arrays_are_refused():
    accumulator = OverlapAccumulator(2)
    with pytest.raises(DataError, match="shape of the prediction"):
        accumulator.add(np.zeros(3, int), np.zeros(4, int))
    with pytest.raises(DataError, match="shape of the mask"):
        accumulator.add(np.zeros(4, int), np.zeros(4, int), np.zeros(5, int))
    with pytest.raises(DataError, match="type of the prediction is float"):
        accumulator.add(np.zeros(4), np.zeros(4, int))
    with pytest.raises(DataError, match="num_classes"):
        accumulator.merge(OverlapAccumulator(3))
    with pytest.raises(DataError, match="num_classes is 0"):
        OverlapAccumulator(0)


def test_accuracy_and_json_round_trip():
    accumulator = OverlapAccumulator(2)
    assert np.isnan(accumulator.accuracy())
    accumulator.add(np.array([0, 1, 1, 1]), np.array([0, 1, 1, 0]))
    assert accumulator.accuracy() == 0.75

    again = OverlapAccumulator.from_json(accumulator.to_json())

    np.testing.assert_array_equal(again.confusion, accumulator.confusion)


@pytest.mark.parametrize("confusion", [[[1, 2]], [[1, -2], [0, 0]], [[0.5, 1], [0, 0]], [[1], [1, 2]], []])
def test_damaged_json_is_refused(confusion):
    with pytest.raises(DataError, match="stored confusion matrix"):
        OverlapAccumulator.from_json({"num_classes": 2, "confusion": confusion})
