"""Variation of information and adapted Rand error: those of scikit-image, for any blocks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import adapted_rand_error, variation_of_information

from incasem.errors import DataError
from incasem.metrics import PartitionAccumulator
from incasem.metrics import partition as partition_module


def partitions(seed, shape=(12, 9, 14), ids=6, scale=3):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, ids, (2, *(-(-n // scale) for n in shape)))
    whole = np.kron(coarse, np.ones((1, scale, scale, scale), np.int64))
    segmentation, truth = whole[(slice(None), *(slice(0, n) for n in shape))]
    noise = rng.random(shape) < 0.1
    segmentation = np.where(
        noise, rng.integers(0, ids, shape), np.where(rng.random(shape) < 0.7, truth, segmentation)
    )
    return segmentation.astype(np.uint64), truth.astype(np.uint64)


def scored(segmentation, truth, mask=None, **options):
    accumulator = PartitionAccumulator(**options)
    accumulator.add(segmentation, truth, mask)
    return accumulator.scores()


@given(
    seed=st.integers(0, 10**6),
    ids=st.integers(1, 40),
    scale=st.integers(1, 5),
    ignored=st.sampled_from([0, None]),
)
@settings(max_examples=60, deadline=None)
def test_scores_are_those_of_scikit_image(seed, ids, scale, ignored):
    segmentation, truth = partitions(seed, ids=ids, scale=scale)
    counted = truth != 0 if ignored == 0 else np.ones(truth.shape, bool)
    if not counted.any():
        with pytest.raises(DataError, match="nothing to score"):
            scored(segmentation, truth, ignored_truth=ignored)
        return
    ours = scored(segmentation, truth, ignored_truth=ignored)
    merge, split = variation_of_information(segmentation[counted].astype(int), truth[counted].astype(int))
    assert ours.voi_split == pytest.approx(split, abs=1e-10)
    assert ours.voi_merge == pytest.approx(merge, abs=1e-10)
    labels = () if ignored is None else (0,)
    # scikit-image calls precision what its documentation defines as recall, and the other way round.
    error, recall, precision = adapted_rand_error(
        truth.astype(int), segmentation.astype(int), ignore_labels=labels
    )
    assert ours.adapted_rand_error == pytest.approx(error, abs=1e-10)
    assert (ours.rand_precision, ours.rand_recall) == pytest.approx((precision, recall), abs=1e-10)
    assert ours.voxels == counted.sum()


@given(seed=st.integers(0, 10**6), cuts=st.lists(st.integers(1, 11), max_size=4), masked=st.booleans())
@settings(max_examples=30, deadline=None)
def test_any_blocks_and_any_order_give_the_same_scores(seed, cuts, masked):
    segmentation, truth = partitions(seed)
    mask = np.random.default_rng(seed).random(truth.shape) < 0.6 if masked else None
    whole = scored(segmentation, truth, mask)
    slabs = [slice(a, b) for a, b in zip([0, *sorted(cuts)], [*sorted(cuts), None], strict=True)]
    total = PartitionAccumulator()
    for slab in reversed(slabs):
        part = PartitionAccumulator()
        part.add(segmentation[slab], truth[slab], None if mask is None else mask[slab])
        total.merge(part)
    assert total.scores() == whole


def dense_snemi_error(segmentation, truth):
    """The challenge's own steps: a dense table over voxels of true objects, segment 0 apart."""
    segments, objects = (np.unique(a, return_inverse=True)[1] for a in (segmentation, truth))
    table = np.zeros((segments.max() + 1, objects.max() + 1))
    np.add.at(table, (segments.reshape(-1), objects.reshape(-1)), 1)
    if truth.min() == 0:
        table = table[:, 1:]
    alone = 0.0
    if segmentation.min() == 0:
        alone = table[0].sum()
        real = table[1:]
    else:
        real = table
    sum_objects = (table.sum(axis=0) ** 2).sum()
    sum_segments = (real.sum(axis=1) ** 2).sum() + alone
    sum_both = (real**2).sum() + alone
    precision, recall = sum_both / sum_segments, sum_both / sum_objects
    return 1 - 2 * precision * recall / (precision + recall)


@given(seed=st.integers(0, 10**6), ids=st.integers(2, 30), scale=st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_the_error_of_the_challenge(seed, ids, scale):
    segmentation, truth = partitions(seed, ids=ids, scale=scale)
    if not truth.any():
        return
    assert scored(segmentation, truth).adapted_rand_snemi == pytest.approx(
        dense_snemi_error(segmentation, truth), abs=1e-10
    )
    # Without a segment 0 it is that of scikit-image but for the pair of each voxel with itself.
    ours = scored(segmentation + np.uint64(1), truth)
    assert ours.adapted_rand_snemi == pytest.approx(ours.adapted_rand_error, abs=0.02)


def test_background_alone_is_a_perfect_recall_of_nothing():
    truth = np.repeat(np.arange(1, 5), 25)
    assert scored(np.zeros_like(truth), truth).adapted_rand_snemi > 0.9
    assert scored(np.zeros_like(truth), truth).rand_recall == 1


def test_tables_add_up():
    segmentation, truth = partitions(11)
    total = PartitionAccumulator()
    for part in (slice(0, 1), slice(1, None)):
        one = PartitionAccumulator()
        one.add(segmentation[part], truth[part])
        total.add_table(*one.table())
    total.add_table(*PartitionAccumulator().table())
    assert total.scores() == scored(segmentation, truth)


def test_names_of_ids_do_not_count():
    segmentation, truth = partitions(5)
    plain = scored(segmentation, truth)
    rng = np.random.default_rng(0)
    names = rng.permutation(np.arange(10, dtype=np.uint64) * np.uint64(2**60) + np.uint64(7))
    renamed = scored(names[segmentation], truth * np.uint64(2**50))
    assert renamed.voi == pytest.approx(plain.voi, abs=1e-12)
    assert renamed.adapted_rand_error == pytest.approx(plain.adapted_rand_error, abs=1e-12)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.uint32, np.int64, np.uint64])
def test_any_integers(dtype):
    segmentation, truth = partitions(7)
    assert scored(segmentation.astype(dtype), truth.astype(dtype)) == scored(segmentation, truth)


def test_a_perfect_segmentation():
    _, truth = partitions(3)
    scores = scored(truth, truth)
    assert (scores.voi_split, scores.voi_merge, scores.adapted_rand_error) == (0, 0, 0)


def test_everything_in_one_segment_is_all_merged():
    truth = np.repeat(np.arange(1, 5), 25)
    scores = scored(np.ones_like(truth), truth)
    assert scores.voi_split == 0
    assert scores.voi_merge == pytest.approx(2)
    assert scores.rand_recall == 1
    assert scores.rand_precision == pytest.approx(24 / 99)


def test_more_pairs_than_the_table_held_at_first(monkeypatch):
    monkeypatch.setattr(partition_module, "_LEAST_SLOTS", 8)
    monkeypatch.setattr(partition_module, "_SLICE_VOXELS", 64)
    segmentation = np.arange(5000) // 2
    truth = 1 + np.arange(5000) // 3
    grown = scored(segmentation, truth)
    monkeypatch.undo()
    assert grown == scored(segmentation, truth)


@pytest.mark.parametrize(
    ("segmentation", "truth", "message"),
    [
        (np.zeros((2, 3), int), np.zeros((3, 2), int), "shape of the segmentation"),
        (np.zeros(3), np.zeros(3, int), "type of the segmentation"),
        (np.zeros(3, int), np.array([1, -4, 2]), "id in the truth is -4"),
    ],
)
def test_what_cannot_be_scored(segmentation, truth, message):
    accumulator = PartitionAccumulator()
    with pytest.raises(DataError, match=message):
        accumulator.add(segmentation, truth)
    assert accumulator.voxels == 0


def test_scores_of_another_kind_are_not_merged():
    with pytest.raises(DataError, match="ignored id"):
        PartitionAccumulator().merge(PartitionAccumulator(ignored_truth=None))
