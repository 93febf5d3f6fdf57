import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from incasem.errors import DataError
from incasem.geometry import Coordinate, Roi
from incasem.prediction import AlignedTiling, Predictor, PublishedTiling

RNG = np.random.default_rng(0)


def grey_values(shape, dtype=np.uint8):
    return RNG.integers(0, np.iinfo(dtype).max + 1, shape, dtype=dtype)


@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_any_region_in_any_tiles_equals_one_pass(data, network, memory_raw, reference):
    size = data.draw(st.tuples(*[st.integers(1, 50)] * 3), label="volume")
    offset = data.draw(st.tuples(*[st.integers(-20, 20)] * 3), label="offset")
    begin = [o + data.draw(st.integers(0, s - 1)) for o, s in zip(offset, size, strict=True)]
    shape = [data.draw(st.integers(1, o + s - b)) for b, o, s in zip(begin, offset, size, strict=True)]
    tile_shape = data.draw(st.tuples(*[st.integers(4, 40)] * 3), label="tile")
    raw, roi = memory_raw(grey_values(size), offset), Roi(begin, shape)

    predictor = Predictor(network, "cpu", "fp32", tiling=AlignedTiling(network, tile_shape))
    probabilities = predictor.probabilities(raw, roi)

    assert probabilities.shape == (2, *shape)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities, reference(network, raw, roi), rtol=0, atol=1e-6)


@settings(deadline=None, max_examples=8)
@given(data=st.data())
def test_blocks_of_any_size_meet_without_seams(data, network, memory_raw):
    roi = Roi((-3, 5, 2), (30, 37, 41))
    raw = memory_raw(grey_values(roi.shape), roi.begin)
    block = data.draw(st.tuples(*[st.integers(12, 40)] * 3))
    predictor = Predictor(network, "cpu", "fp32")

    whole = predictor.logits(raw, roi)
    starts = np.ndindex(*(-(-s // b) for s, b in zip(roi.shape, block, strict=True)))
    for start in starts:
        begin = [b + i * s for b, i, s in zip(roi.begin, start, block, strict=True)]
        part = Roi(begin, [min(s, e - b) for s, e, b in zip(block, roi.end, begin, strict=True)])
        place = (part - roi.begin).to_slices()
        np.testing.assert_allclose(
            predictor.logits(raw, part), whole[(slice(None), *place)], rtol=0, atol=1e-5
        )


def test_low_precision_tiles_agree_within_their_own_rounding(network, memory_raw):
    roi = Roi((0, 0, 0), (24, 36, 44))
    raw = memory_raw(grey_values(roi.shape))
    whole = Predictor(network, "cpu", "bf16").probabilities(raw, roi)
    tiled = Predictor(
        network, "cpu", "bf16", tiling=AlignedTiling(network, (8, 12, 16))
    ).probabilities(raw, roi)  # fmt: skip

    np.testing.assert_allclose(tiled, whole, rtol=0, atol=1 / 255)


def test_the_published_network_meets_at_its_stride(make_network, memory_raw, reference):
    network = make_network(num_fmaps=1, downsample_factors=((2, 2, 2),) * 3)
    roi = Roi((3, 6, 1), (16, 20, 30))
    raw = memory_raw(grey_values((40, 40, 40)))
    predictor = Predictor(network, "cpu", "fp32", tiling=AlignedTiling(network, (8, 16, 8)))

    np.testing.assert_allclose(
        predictor.probabilities(raw, roi), reference(network, raw, roi), rtol=0, atol=1e-6
    )


def test_published_tiles_are_the_ones_that_a_loop_over_the_scan_writes(make_network, memory_raw):
    """The published procedure, written out: tile by tile, the last one wins, the shell stays empty."""
    network = make_network(num_fmaps=1, downsample_factors=((2, 2, 2),) * 2)
    size, emitted = 56, int(network.output_shape((56, 56, 56))[0])
    context = (size - emitted) // 2
    roi = Roi((5, -2, 1), (size + 9, size, size + 2 * emitted + 1))
    raw = memory_raw(grey_values(roi.shape), roi.begin)
    values = torch.from_numpy(raw.array / np.float32(255) * 2 - 1)[None, None].float()
    expected = np.zeros((2, *roi.shape), np.float32)
    last = [s - size for s in roi.shape]
    starts = [sorted({*range(0, end, emitted), end}) for end in last]
    for z in starts[0]:
        for y in starts[1]:
            for x in starts[2]:
                with torch.no_grad():
                    logits = network(values[..., z : z + size, y : y + size, x : x + size])
                place = tuple(slice(b + context, b + context + emitted) for b in (z, y, x))
                expected[(slice(None), *place)] = logits.softmax(dim=1)[0].numpy()
    tiling = PublishedTiling(network, roi, (size,) * 3, (emitted,) * 3)
    predictor = Predictor(network, "cpu", "fp32", tiling=tiling)

    assert len(starts[2]) == 4
    np.testing.assert_allclose(predictor.probabilities(raw, roi), expected, rtol=0, atol=1e-6)
    part = Roi((20, 10, 30), (30, 33, 25))
    place = (part - roi.begin).to_slices()
    np.testing.assert_allclose(
        predictor.probabilities(raw, part), expected[(slice(None), *place)], rtol=0, atol=1e-6
    )
    assert all(roi.contains(read) for read in raw.reads), "the published tiling reads the ROI only"


def test_published_tiles_differ_from_aligned_ones(make_network, memory_raw):
    network = make_network(num_fmaps=2, downsample_factors=((2, 2, 2),) * 2)
    emitted = int(network.output_shape((56, 56, 56))[0])
    assert emitted % network.stride[0] != 0
    roi = Roi((0, 0, 0), (56, 56, 56 + 3 * emitted))
    raw = memory_raw(grey_values(roi.shape))
    inner = roi.grow(-network.context_voxels, -network.context_voxels)
    published = Predictor(
        network, "cpu", "fp32", tiling=PublishedTiling(network, roi, (56,) * 3, (emitted,) * 3)
    ).probabilities(raw, inner)  # fmt: skip
    aligned = Predictor(network, "cpu", "fp32").probabilities(raw, inner)

    assert np.abs(published - aligned).max() > 1e-3


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_types_of_raw_data_mean_the_same_grey_values(network, memory_raw, dtype):
    array = grey_values((20, 24, 28))
    same = array.astype(np.uint16) * 257 if dtype == np.uint16 else array.astype(np.float32) / 255
    roi = Roi((0, 0, 0), array.shape)
    predictor = Predictor(network, "cpu", "fp32")

    np.testing.assert_allclose(
        predictor.probabilities(memory_raw(same), roi),
        predictor.probabilities(memory_raw(array), roi),
        rtol=0, atol=1e-5,
    )  # fmt: skip


def test_probabilities_sum_to_one_and_agree_with_the_logits(network, memory_raw):
    raw, roi = memory_raw(grey_values((9, 9, 9))), Roi((1, 2, 3), (5, 4, 3))
    predictor = Predictor(network, "cpu", "fp32")
    probabilities, logits = predictor.probabilities(raw, roi), predictor.logits(raw, roi)

    np.testing.assert_allclose(probabilities.sum(axis=0), 1, atol=1e-6)
    np.testing.assert_array_equal(probabilities.argmax(axis=0), logits.argmax(axis=0))
    assert predictor.num_classes == 2


def test_wrong_raw_data_are_refused(network, memory_raw):
    predictor, roi = Predictor(network, "cpu", "fp32"), Roi((0, 0, 0), (4, 4, 4))
    with pytest.raises(DataError, match=r"reach from 0 to 255; allowed: 0 to 1"):
        predictor.logits(memory_raw(np.array([0, 255, 1, 2], np.float32).reshape(1, 2, 2)), roi)
    with pytest.raises(DataError, match="allowed: 0 to 1"):
        predictor.logits(memory_raw(np.full((2, 2, 2), np.nan, np.float32)), roi)
    with pytest.raises(DataError, match="int32"):
        predictor.logits(memory_raw(np.zeros((2, 2, 2), np.int32)), roi)
    with pytest.raises(DataError, match="region to predict is empty"):
        predictor.logits(memory_raw(grey_values((4, 4, 4))), Roi((0, 0, 0), (4, 0, 4)))


def test_a_large_region_is_cut_by_the_memory_of_the_device(network, memory_raw, monkeypatch):
    monkeypatch.setattr("incasem.prediction.plan.total_memory", lambda: 1_300_000_000)
    predictor = Predictor(network, "cpu", "fp32")
    edges = [tile.keep_roi.shape for tile in predictor.tiling.tiles(Roi((0, 0, 0), (1000, 1000, 1000)))]

    assert math.prod(edges[0]) < 1000**3
    assert sum(math.prod(Coordinate(edge)) for edge in edges) == 1000**3
