"""Networks whose result depends on the whole tile: tiles of one size on one grid, whatever is asked for."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from incasem.errors import ConfigError
from incasem.geometry import Coordinate, Roi
from incasem.networks import InferenceNetwork, ResidualUnet, initialise
from incasem.prediction import AlignedTiling, Device, FixedTiling, Planner, Predictor, tiling_for

CPU = Device("cpu", 4, 16_000_000_000)
TILE = (5, 14, 10)


def lively(norm, **more):
    torch.manual_seed(0)
    network = ResidualUnet(
        filters=[4, 8], downsample_factors=[[1, 2, 2]], kernel_sizes=[[1, 3, 3], [3, 3, 3]], norm=norm, **more
    )
    initialise(network)
    with torch.no_grad():
        network.conv_out.weight.mul_(15)  # far from even probabilities
    return network.eval()


NETWORKS = {norm: lively(norm, activation=act) for norm, act in
            {"none": "relu", "channel": "elu", "group": "elu"}.items()}  # fmt: skip
ROI = Roi((-3, 5, 2), (12, 23, 27))


def by_hand(network, raw, roi, tile_shape):
    """Each tile of the absolute grid by one call of the network, put together."""
    result = np.zeros((2, *roi.shape), np.float32)
    step = [t // s * s for t, s in zip(tile_shape, network.stride, strict=True)]
    shape = network.input_shape_for(tile_shape)
    grid = [range(b // s * s, e, s) for b, e, s in zip(roi.begin, roi.end, step, strict=True)]
    for z in grid[0]:
        for y in grid[1]:
            for x in grid[2]:
                read = Roi(Coordinate(z, y, x) - network.context_voxels, shape)
                values = torch.from_numpy(raw.read_voxels(read, beyond="reflect") / np.float32(255) * 2 - 1)
                with torch.no_grad():
                    logits = network(values[None, None].float())[0].softmax(0).numpy()
                kept = Roi((z, y, x), step).intersect(roi)
                inside = (kept - Coordinate(z, y, x)).to_slices()
                result[(slice(None), *(kept - roi.begin).to_slices())] = logits[(slice(None), *inside)]
    return result


@pytest.fixture(scope="module")
def raw(memory_raw):
    return memory_raw(np.random.default_rng(0).integers(0, 256, ROI.shape, dtype=np.uint8), ROI.begin)


@pytest.fixture(scope="module")
def whole(raw):
    """The whole region: one pass, for group norm the tiles of the fixed grid."""
    results = {
        norm: Predictor(network, "cpu", "fp32", tiling=AlignedTiling(network)).probabilities(raw, ROI)
        for norm, network in NETWORKS.items()
        if norm != "group"
    }
    return results | {"group": by_hand(NETWORKS["group"], raw, ROI, TILE)}


@settings(deadline=None, max_examples=15)
@given(data=st.data())
@pytest.mark.parametrize("norm", NETWORKS)
def test_any_region_equals_the_same_part_of_the_whole(data, norm, raw, whole):
    begin = [b + data.draw(st.integers(0, s - 1)) for b, s in zip(ROI.begin, ROI.shape, strict=True)]
    roi = Roi(begin, [data.draw(st.integers(1, e - b)) for b, e in zip(begin, ROI.end, strict=True)])
    tile = TILE if norm == "group" else data.draw(st.tuples(*[st.integers(2, 20)] * 3))
    network = NETWORKS[norm]

    predictor = Predictor(network, "cpu", "fp32", tiling=tiling_for(network, tile))
    part = predictor.probabilities(raw, roi)

    expected = whole[norm][(slice(None), *(roi - ROI.begin).to_slices())]
    np.testing.assert_allclose(part, expected, rtol=0, atol=1e-5)


def test_group_norm_really_depends_on_the_tile(raw, whole):
    """Else the fixed tiles would be for nothing."""
    network = NETWORKS["group"]
    aligned = Predictor(network, "cpu", "fp32", tiling=AlignedTiling(network)).probabilities(raw, ROI)
    assert np.abs(aligned - whole["group"]).max() > 1e-3
    assert [n.depends_on_tile for n in NETWORKS.values()] == [False, False, True]


@pytest.mark.parametrize("tta", [8, 16])
@pytest.mark.parametrize("norm", ["channel", "group"])
def test_views_do_not_change_that(tta, norm, raw):
    network = NETWORKS[norm]
    predictor = Predictor(network, "cpu", "fp32", tta=tta, tiling=tiling_for(network, (4, 8, 8)))
    whole = predictor.probabilities(raw, ROI)
    part = Roi((-1, 9, 6), (5, 7, 11))
    inside = (slice(None), *(part - ROI.begin).to_slices())
    np.testing.assert_allclose(predictor.probabilities(raw, part), whole[inside], rtol=0, atol=1e-5)


@settings(deadline=None)
@given(
    begin=st.tuples(*[st.integers(-30, 30)] * 3), shape=st.tuples(*[st.integers(1, 40)] * 3),
    tile_shape=st.tuples(*[st.integers(1, 20)] * 3),
)  # fmt: skip
def test_tiles_cover_each_voxel_once_with_one_size_on_one_grid(begin, shape, tile_shape):
    network, roi = NETWORKS["group"], Roi(begin, shape)
    tiling = tiling_for(network, tile_shape)
    assert isinstance(tiling, FixedTiling)
    covered = np.zeros(shape, int)
    for tile in tiling.tiles(roi):
        covered[(tile.keep_roi - roi.begin).to_slices()] += 1
        assert tuple(tile.input_roi.shape) == tuple(tiling.input_shape)
        assert all(b % s == 0 for b, s in zip(tile.output_begin, tiling.step, strict=True))
        emitted = network.output_shape(tiling.input_shape)
        assert all(c.start >= 0 and c.stop <= e for c, e in zip(tile.crop, emitted, strict=True))
    assert (covered == 1).all()
    assert all(s % stride == 0 for s, stride in zip(tiling.step, network.stride, strict=True))
    again = FixedTiling(network, tiling.output_shape)
    assert (again.step, again.input_shape) == (tiling.step, tiling.input_shape)


def test_other_networks_keep_aligned_tiles():
    assert isinstance(tiling_for(NETWORKS["channel"], (4, 8, 8)), AlignedTiling)
    default = Predictor(NETWORKS["group"], "cpu", "fp32").tiling
    assert default.output_shape == (110, 110, 110)


def test_too_little_memory_is_told_and_not_mended_by_other_tiles(raw, monkeypatch):
    network = NETWORKS["group"]
    predictor = Predictor(network, "cpu", "fp32", tiling=tiling_for(network, TILE))

    def fails(self, given):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(InferenceNetwork, "__call__", fails)
    with pytest.raises(ConfigError, match=r"output_size_voxels is \(5, 14, 10\).* depends on them"):
        predictor.logits(raw, ROI)


def test_the_plan_has_the_fixed_tile_and_counts_what_blocks_compute_twice():
    network = NETWORKS["group"]
    tiling = FixedTiling(network, (16, 48, 48))
    planner = Planner(network, CPU, Roi((3, 5, 7), (200, 200, 200)), (32, 32, 32), tiling)
    plan = planner.plan()
    small = planner.plan((32, 32, 32))
    assert plan.tile_shape == small.tile_shape == (16, 48, 48)
    assert small.flops > 1.5 * plan.flops
    assert math.prod(plan.block_shape) > math.prod(small.block_shape)


def test_a_fixed_tile_that_does_not_fit_names_the_setting():
    network = NETWORKS["group"]
    little = Device("cpu", 4, 1_100_000_000)
    planner = Planner(
        network, little, Roi((0, 0, 0), (300, 300, 300)), (64, 64, 64), FixedTiling(network, (200, 200, 200))
    )
    with pytest.raises(ConfigError, match=r"its tiles of 200×200×200 voxels.*smaller prediction.output_size"):
        planner.plan()
