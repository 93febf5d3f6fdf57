import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from incasem.phantom.affinities import AffinityPhantom

LONG = ((-1, 0, 0), (0, -1, 0), (0, 0, -1), (0, 6, -2), (-3, 0, 0))


@settings(max_examples=10)
@given(st.tuples(*[st.integers(0, 20)] * 3), st.tuples(*[st.integers(1, 12)] * 3))
def test_any_block_is_a_part_of_the_whole(begin, shape):
    phantom = AffinityPhantom(seed=5, spacing_voxels=9.5, offsets=LONG)
    origin = np.array((-7, -3, 40))
    affinities, ids = phantom.block(origin, (32, 32, 32))
    inner = tuple(slice(b, b + s) for b, s in zip(begin, shape, strict=True))
    part, part_ids = phantom.block(origin + begin, shape)
    np.testing.assert_array_equal(part, affinities[(slice(None), *inner)])
    np.testing.assert_array_equal(part_ids, ids[inner])


def test_affinities_are_high_in_neurites_and_low_between_them():
    phantom = AffinityPhantom(seed=1, noise=0)
    affinities, ids = phantom.block((0, 0, 0), (48, 64, 64))
    assert 10 < len(np.unique(ids)) < 60
    for axis, channel in enumerate(affinities):
        here = np.moveaxis(ids, axis, 0)
        same = here[1:] == here[:-1]
        edges = np.moveaxis(channel, axis, 0)[1:]
        assert edges[~same].max() < 80
        assert np.median(edges[same]) > 240
    noisy = AffinityPhantom(seed=1).block((0, 0, 0), (48, 64, 64))[0]
    assert 0.02 < np.abs(noisy / 255 - affinities / 255).mean() < 0.3


def test_another_seed_is_another_map():
    first, second = (AffinityPhantom(seed=s).block((0, 0, 0), (8, 32, 32))[1] for s in (1, 2))
    assert (first != second).any()
