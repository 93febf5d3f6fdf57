import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from incasem.errors import ConfigError, DataError
from incasem.geometry import Coordinate, Roi
from incasem.networks import Unet
from incasem.prediction import AlignedTiling, PublishedTiling

PUBLISHED = Unet(num_fmaps=1)
ANISOTROPIC = Unet(num_fmaps=1, downsample_factors=((1, 2, 2), (2, 2, 2)))


@st.composite
def rois(draw, largest=60):
    begin = draw(st.tuples(*[st.integers(-30, 30)] * 3))
    return Roi(begin, draw(st.tuples(*[st.integers(1, largest)] * 3)))


def counts(roi, tiles):
    covered = np.zeros(roi.shape, int)
    for tile in tiles:
        covered[(tile.keep_roi - roi.begin).to_slices()] += 1
        assert roi.contains(tile.keep_roi)
    return covered


@settings(deadline=None)
@given(
    roi=rois(), tile_shape=st.none() | st.tuples(*[st.integers(1, 40)] * 3),
    network=st.sampled_from([PUBLISHED, ANISOTROPIC]),
    margin=st.just((0, 0)) | st.tuples(st.integers(0, 20), st.integers(0, 20)),
)  # fmt: skip
def test_aligned_tiles_give_each_voxel_once_from_the_stride_grid(roi, tile_shape, network, margin):
    before, after = (Coordinate((voxels,) * 3) for voxels in margin)
    tiles = AlignedTiling(network, tile_shape).with_margin((before, after)).tiles(roi)

    assert (counts(roi, tiles) == 1).all()
    for tile in tiles:
        assert all(
            begin % stride == 0 for begin, stride in zip(tile.output_begin, network.stride, strict=True)
        )
        emitted = network.output_shape(tile.input_roi.shape)  # raises where the size is not legal
        sides = zip(tile.crop, emitted, before, after, strict=True)
        assert all(c.start >= b and c.stop + a <= e for c, e, b, a in sides)
        assert tuple(tile.input_roi.begin) == tuple(tile.output_begin - network.context_voxels)
        if tile_shape is not None:
            limit = Coordinate(max(t // s * s, s) for t, s in zip(tile_shape, network.stride, strict=True))
            largest = network.input_shape_for(limit + before + after)
            assert all(i <= m for i, m in zip(tile.input_roi.shape, largest, strict=True))


def test_the_voxels_that_a_network_emits_beyond_the_stride_are_used():
    tiling = AlignedTiling(PUBLISHED, (256, 256, 256))

    assert [t.input_size for t in tiling.axis_tiles(0, 0, 262)] == [356]
    assert len(tiling.axis_tiles(0, 0, 263)) == 2
    assert [t.input_size for t in tiling.axis_tiles(0, 6, 262)] == [356]


def published_by_hand(roi, size, context):
    """For each voxel along one axis: begin of the tile that wrote it last, None in the shell."""
    owner = [None] * roi
    begin = context
    while True:
        start = min(begin, roi - context - size)
        owner[start : start + size] = [start] * size
        if start != begin or start + size == roi - context:
            return owner
        begin += size


@settings(deadline=None)
@given(extent=st.integers(204, 800), origin=st.integers(-50, 50), cut=st.data(), axis=st.integers(0, 2))
def test_published_tiles_are_those_of_the_scan_with_the_last_one_winning(extent, origin, cut, axis):
    roi = Roi((origin,) * 3, (extent,) * 3)
    tiling = PublishedTiling(PUBLISHED, roi, (204,) * 3, (110,) * 3)
    begin = cut.draw(st.integers(0, extent - 1))
    end = cut.draw(st.integers(begin + 1, extent))

    owner = [None] * (end - begin)
    for tile in tiling.axis_tiles(axis, origin + begin, origin + end):
        assert tile.input_size == 204
        assert tile.input_begin >= origin
        assert tile.input_begin + tile.input_size <= origin + extent
        for position in range(tile.keep_begin, tile.keep_end):
            assert owner[position - origin - begin] is None
            owner[position - origin - begin] = tile.input_begin + 47 - origin

    assert owner == published_by_hand(extent, 110, 47)[begin:end]


def test_published_tiling_refuses_what_the_published_code_could_not_do():
    with pytest.raises(DataError, match=r"at least \(204, 204, 204\) with prediction.tiling=published"):
        PublishedTiling(PUBLISHED, Roi((0, 0, 0), (203, 300, 300)), (204,) * 3, (110,) * 3)
    with pytest.raises(ConfigError, match=r"output_size_voxels is \(100, 100, 100\)"):
        PublishedTiling(PUBLISHED, Roi((0, 0, 0), (300, 300, 300)), (204,) * 3, (100,) * 3)
