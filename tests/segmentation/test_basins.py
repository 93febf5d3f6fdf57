import contextlib
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from incasem.phantom.affinities import AffinityPhantom
from incasem.segmentation._basins import AFTER, BEFORE, block_basins
from tests.segmentation.plain import plain_watershed, same_partition

SHAPES = st.tuples(*[st.integers(1, 6)] * 3)


def padded(nearest):
    """Edges as `block_basins` wants them: none beyond the volume."""
    nearest = nearest.copy()
    for axis, channel in enumerate(nearest):
        np.moveaxis(channel, axis, 0)[0] = 0
    return np.pad(nearest, [(0, 0)] + [(BEFORE, AFTER)] * 3)


def whole_watershed(nearest):
    """Labels of a volume that is one block: all cores have gone their way in it."""
    basins = block_basins(padded(nearest))
    assert basins.link_of.size == 0
    return basins.labels


@settings(max_examples=150)
@given(SHAPES.flatmap(lambda s: arrays(np.uint8, (3, *s), elements=st.integers(0, 4))))
def test_a_block_follows_the_rule(nearest):
    assert same_partition(whole_watershed(nearest), plain_watershed(nearest))


def test_pieces_are_counted_in_scan_order():
    basins = block_basins(padded(AffinityPhantom().block((0, 0, 0), (20, 30, 25))[0]))
    found, first = np.unique(basins.labels, return_index=True)
    has_background = int(found[0] == 0)
    np.testing.assert_array_equal(found[has_background:], np.arange(1, len(basins.first) + 1))
    np.testing.assert_array_equal(first[has_background:], basins.first)
    assert (np.diff(basins.first) > 0).all()


def waterz_fragments(nearest, low=0.0001, high=0.9999):
    waterz = pytest.importorskip("waterz", reason="the extra `neurons` is not installed")
    affinities = np.ascontiguousarray(nearest).astype(np.float32) / 255
    with contextlib.redirect_stdout(io.StringIO()):
        (found,) = waterz.agglomerate(affinities, [0], aff_threshold_low=low, aff_threshold_high=high)
    return found.copy()


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 5)))
def test_without_plateaus_it_is_waterz_to_the_voxel(seed, shape):
    number = 3 * int(np.prod(shape))
    values = np.random.default_rng(seed).permutation(number) + 1
    nearest = values.reshape(3, *shape).astype(np.uint8)  # at most 240 different ones
    assert same_partition(whole_watershed(nearest), waterz_fragments(nearest))


@settings(max_examples=60)
@given(SHAPES.flatmap(lambda s: arrays(np.uint8, (3, *s), elements=st.sampled_from([0, 1, 2, 3, 255]))))
def test_with_plateaus_there_are_as_many_fragments_as_in_waterz(nearest):
    ours, theirs = whole_watershed(nearest), waterz_fragments(nearest)
    np.testing.assert_array_equal(ours == 0, theirs == 0)
    assert len(np.unique(ours)) == len(np.unique(theirs))


def test_fragments_of_neurites_are_like_those_of_waterz():
    nearest, ids = AffinityPhantom(seed=4).block((0, 0, 0), (64, 96, 96))
    ours, theirs = whole_watershed(nearest), waterz_fragments(nearest)
    assert len(np.unique(ours)) == len(np.unique(theirs)) > len(np.unique(ids))
    sizes = [np.sort(np.unique(a, return_counts=True)[1])[::-1] for a in (ours, theirs)]
    np.testing.assert_allclose(sizes[0][:20], sizes[1][:20], rtol=0.05)
    assert abs(np.median(sizes[0]) - np.median(sizes[1])) < 0.3 * np.median(sizes[1])
    # Neither joins neurites: a voxel in the wrong one is rare.
    for labels in (ours, theirs):
        pairs, counts = np.unique(np.stack([labels.ravel(), ids.ravel()]), axis=1, return_counts=True)
        order = np.argsort(counts)
        largest = dict(zip(pairs[0, order].tolist(), counts[order].tolist(), strict=True))
        largest.pop(0, None)
        assert sum(largest.values()) > 0.995 * np.count_nonzero(labels)
