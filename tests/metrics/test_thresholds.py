import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from incasem.errors import ConfigError, DataError
from incasem.metrics import PrecisionRecallAccumulator, ThresholdSweep
from incasem.metrics.thresholds import reaches, threshold_range

RNG = np.random.default_rng(0)
TRUTH = RNG.integers(0, 3, (6, 7, 8))
MASK = RNG.integers(0, 2, (6, 7, 8)) * 255


def counted(found, truth, mask):
    inside = mask != 0
    own = truth != 0
    return [
        int((inside & a & b).sum()) for a, b in ((found, own), (found, ~own), (~found, own), (~found, ~own))
    ]


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
@given(
    thresholds=st.lists(st.floats(0, 1, width=32), min_size=1, max_size=9, unique=True).map(sorted),
    seed=st.integers(0, 9),
)
def test_all_thresholds_in_one_pass_are_those_one_by_one(dtype, thresholds, seed):
    rng = np.random.default_rng(seed)
    probabilities = rng.random(TRUTH.shape)
    # Some voxels lie exactly on a threshold.
    probabilities.ravel()[: len(thresholds)] = thresholds
    probabilities = (
        np.rint(probabilities * 255).astype(dtype) if dtype == np.uint8 else probabilities.astype(dtype)
    )
    sweep = ThresholdSweep(thresholds)
    for part in np.array_split(np.arange(len(TRUTH)), 3):
        block = ThresholdSweep(thresholds)
        block.add(probabilities[part], TRUTH[part], MASK[part])
        sweep.add_counts(block.counts)
    for at in sweep.scores():
        tp, fp, fn, tn = counted(reaches(probabilities, at.threshold), TRUTH, MASK)
        assert (at.true_positives, at.false_positives, at.false_negatives, at.true_negatives) == (
            tp,
            fp,
            fn,
            tn,
        )
        assert at.scores.jaccard == pytest.approx(tp / (tp + fp + fn) if tp + fp + fn else 1)
    assert sweep.voxels == (MASK != 0).sum()


def test_bytes_and_levels_agree_with_the_definition():
    levels = np.arange(256, dtype=np.uint8).reshape(4, 8, 8)
    sweep = ThresholdSweep([0.5])
    sweep.add(levels, np.ones_like(levels))
    assert sweep.scores()[0].true_positives == 128  # 128/255 and above
    assert [at.true_positives for at in sweep.level_scores()] == list(range(256, 0, -1))


def test_the_average_precision_is_that_of_predictions():
    probabilities = RNG.integers(0, 256, TRUTH.shape, dtype=np.uint8)
    sweep, other = ThresholdSweep([0.5]), PrecisionRecallAccumulator(2)
    sweep.add(probabilities, TRUTH)
    other.add([255 - probabilities, probabilities], (TRUTH != 0).astype(int))
    assert sweep.curve().average_precision == other.average_precision(1)


def test_nothing_found_and_nothing_to_find():
    sweep = ThresholdSweep([0.5])
    sweep.add(np.zeros((2, 2, 2), np.float32), np.zeros((2, 2, 2)))
    assert sweep.scores()[0].scores.f1 == 1  # published: NaN
    assert np.isnan(sweep.curve().average_precision)


@pytest.mark.parametrize("thresholds", [[], [0.5, 0.5], [0.6, 0.5], [-0.1], [1.5], [float("nan")]])
def test_bad_thresholds(thresholds):
    with pytest.raises(ConfigError, match="thresholds is"):
        ThresholdSweep(thresholds)


def test_bad_probabilities():
    with pytest.raises(DataError, match="outside 0 to 1"):
        ThresholdSweep([0.5]).add(np.full((2, 2), 1.5), np.ones((2, 2)))
    with pytest.raises(DataError, match="shape"):
        ThresholdSweep([0.5]).add(np.ones((2, 2)), np.ones((2, 3)))
    with pytest.raises(DataError, match="uint8 or floats"):
        reaches(np.ones((2, 2), np.uint32), 0.5)


def test_the_published_range_includes_its_end():
    assert threshold_range(0.5, 0.5, 0.1) == [0.5]
    assert threshold_range(0.1, 0.9, 0.1) == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    assert len(threshold_range(0, 1, 0.01)) == 101
    for bad in ((0.6, 0.5, 0.1), (-0.1, 0.5, 0.1), (0.5, 1.1, 0.1), (0.1, 0.5, 0), (0.1, 0.5, -1)):
        with pytest.raises(ConfigError, match="threshold_"):
            threshold_range(*bad)
