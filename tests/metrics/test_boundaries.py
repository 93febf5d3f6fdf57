"""F1 of boundaries: that of distances over the whole volume, for any blocks and tolerances."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.segmentation import find_boundaries

from incasem.metrics.boundaries import ball_offsets, boundaries, boundary_scores, count_boundaries, reach

SHAPE = (11, 13, 15)


def ids(seed, scale=3):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 4, [-(-n // scale) for n in SHAPE])
    return np.kron(coarse, np.ones([scale] * 3, np.int64))[tuple(slice(0, n) for n in SHAPE)]


def by_distance(segmentation, truth, counted, tolerance_nm, voxel_size):
    found = []
    for own, other in ((segmentation, truth), (truth, segmentation)):
        edge, goal = (find_boundaries(a, connectivity=1, mode="thick") for a in (own, other))
        away = (
            ndimage.distance_transform_edt(~goal, sampling=voxel_size)
            if goal.any()
            else np.full(SHAPE, np.inf)
        )
        found += [(edge & counted).sum(), (edge & counted & (away <= tolerance_nm + 1e-6)).sum()]
    return found


@given(
    seeds=st.tuples(st.integers(0, 99), st.integers(0, 99)),
    tolerance=st.sampled_from([0, 4, 5.9, 8, 9, 13]),
    voxel_size=st.sampled_from([(4, 4, 4), (12, 4, 5), (0.1, 4, 4)]),
    cut=st.integers(1, SHAPE[1] - 1),
)
@settings(max_examples=40, deadline=None)
def test_counts_are_those_of_distances(seeds, tolerance, voxel_size, cut):
    if voxel_size[0] < 1 and tolerance > 1:
        tolerance /= 13  # a ball of a few voxels
    segmentation, truth = (ids(seed) for seed in seeds)
    counted = np.random.default_rng(seeds[0]).random(SHAPE) < 0.7
    offsets = ball_offsets(tolerance, voxel_size)
    around = reach(offsets)
    padded = [np.pad(a, [(c, c) for c in around], mode="reflect") for a in (segmentation, truth)]
    total = np.zeros(4, np.int64)
    for begin, end in ((0, cut), (cut, SHAPE[1])):
        part = np.s_[:, begin : end + 2 * around[1]]
        total += count_boundaries(*(boundaries(a[part]) for a in padded), counted[:, begin:end], offsets)
    assert total.tolist() == by_distance(segmentation, truth, counted, tolerance, voxel_size)


def test_boundaries_are_those_of_scikit_image():
    np.testing.assert_array_equal(boundaries(ids(1)), find_boundaries(ids(1), connectivity=1, mode="thick"))


def test_ids_of_any_size_differ():
    array = np.full((1, 1, 3), 2**63, np.uint64)
    array[0, 0, 2] += np.uint64(1)
    assert boundaries(array).tolist() == [[[False, True, True]]]


def test_balls_are_round_in_nanometres():
    assert len(ball_offsets(0, (4, 4, 4))) == 1
    assert len(ball_offsets(4, (4, 4, 4))) == 7
    assert len(ball_offsets(8, (4, 4, 4))) == 33
    flat = ball_offsets(10, (40, 5, 5))
    assert (flat[:, 0] == 0).all()
    assert reach(flat) == (1, 3, 3)
    assert flat[0].tolist() == [0, 0, 0]
    assert len(ball_offsets(0.3, (0.1, 1, 1))) == 7


def test_scores():
    scores = boundary_scores([10, 5, 20, 20])
    assert (scores.precision, scores.recall) == (0.5, 1.0)
    assert scores.f1 == pytest.approx(2 / 3)
    assert boundary_scores([0, 0, 0, 0]).f1 == 1
    assert boundary_scores([4, 0, 0, 0]).f1 == 0
    assert boundary_scores([4, 0, 3, 0]).f1 == 0
