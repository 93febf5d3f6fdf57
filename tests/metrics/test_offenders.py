"""The worst mergers and splits: their shares add up to the variation of information."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from incasem.metrics import PartitionAccumulator
from incasem.metrics.offenders import worst


def counted(segmentation, truth):
    accumulator = PartitionAccumulator()
    accumulator.add(segmentation, truth)
    return accumulator


@given(seed=st.integers(0, 10**6))
def test_shares_add_up(seed):
    rng = np.random.default_rng(seed)
    total = counted(rng.integers(0, 9, 400), rng.integers(1, 6, 400))
    segments, objects, shared = total.table()
    mergers, splits = worst(segments, objects, shared, 99), worst(objects, segments, shared, 99)
    assert sum(m.voi for m in mergers) == pytest.approx(total.scores().voi_merge)
    assert sum(s.voi for s in splits) == pytest.approx(total.scores().voi_split)
    assert [m.voi for m in mergers] == sorted((m.voi for m in mergers), reverse=True)
    assert worst(segments, objects, shared, 2) == mergers[:2]


def test_what_is_said_of_one():
    truth = np.repeat(np.arange(1, 8), [50, 40, 3, 4, 5, 6, 30])
    segmentation = np.where(truth == 7, np.uint64(2**40), np.uint64(2**63))
    segments, objects, shared = counted(segmentation, truth).table()
    (merger,) = worst(segments, objects, shared, 10)
    assert (merger.id, merger.voxels, merger.count) == (2**63, 108, 6)
    assert merger.parts == ((1, 50), (2, 40), (6, 6), (5, 5), (4, 4))
    assert worst(objects, segments, shared, 10) == []


def test_nothing():
    empty = np.zeros(0, np.uint64)
    assert worst(empty, empty, np.zeros(0, np.int64), 3) == []
