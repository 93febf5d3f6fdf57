import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from incasem.errors import DataError
from incasem.geometry import Coordinate, Roi
from incasem.segmentation.affinity_map import NEAREST, open_affinities
from incasem.volumes import create_volume
from tests.segmentation.plain import store

LONG = [(-1, 0, 0), (0, -1, 0), (0, 0, -1), (0, -3, 2), (-2, 0, 0)]


def random_map(channels, shape=(5, 6, 7), seed=0):
    return np.random.default_rng(seed).integers(1, 256, (channels, *shape)).astype(np.uint8)


def plain_read(values, offsets, begin, roi):
    """Edge by edge."""
    out = np.zeros((len(offsets), *roi.shape), np.uint8)
    for c, offset in enumerate(offsets):
        for index in np.ndindex(*roi.shape):
            here = np.array(index) + roi.begin - begin
            there = here + offset
            ends = np.array([here, there])
            if (ends >= 0).all() and (ends < values.shape[1:]).all():
                out[(c, *index)] = values[(c, *here)]
    return out


@settings(max_examples=25)
@given(st.tuples(*[st.integers(-4, 8)] * 3), st.tuples(*[st.integers(0, 12)] * 3))
def test_any_region_holds_the_edges_inside_the_volume(tmp_path_factory, begin, shape):
    values = random_map(len(LONG))
    path = tmp_path_factory.mktemp("map") / "a.zarr/affinities"
    store(path, values, offset_nm=(8, -8, 12), offsets=LONG)
    affinities = open_affinities(path)
    roi = Roi(Coordinate(begin) + Coordinate((2, -2, 3)), shape)
    np.testing.assert_array_equal(affinities.read(roi), plain_read(values, LONG, (2, -2, 3), roi))


@settings(max_examples=25)
@given(st.tuples(*[st.booleans()] * 3), st.permutations(range(4)))
def test_nearest_edges_whatever_their_direction_and_order(tmp_path_factory, forward, order):
    rng = np.random.default_rng(3)
    before = plain_read(random_map(3), NEAREST, (0, 0, 0), Roi((0, 0, 0), (5, 6, 7)))
    offsets, channels = [(0, 0, -5)], [rng.integers(0, 256, (5, 6, 7))]
    for axis, turned in enumerate(forward):
        step = np.zeros(3, int)
        step[axis] = 1 if turned else -1
        offsets.append(tuple(int(s) for s in step))
        channels.append(np.roll(before[axis], -1, axis) if turned else before[axis])
    path = tmp_path_factory.mktemp("map") / "a.zarr/affinities"
    stacked = np.stack([channels[i] for i in order]).astype(np.uint8)
    store(path, stacked, offsets=[offsets[i] for i in order])
    affinities = open_affinities(path)
    np.testing.assert_array_equal(affinities.read_nearest(affinities.roi_voxels), before)
    inner = Roi((1, 2, 0), (3, 5, 9))
    whole = np.zeros((3, 20, 20, 20), np.uint8)
    whole[:, :5, :6, :7] = before
    np.testing.assert_array_equal(affinities.read_nearest(inner), whole[:, 1:4, 2:7, 0:9])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_are_rounded_to_255_steps(tmp_path, dtype):
    steps = random_map(3)
    store(tmp_path / "f.zarr/a", (steps / 255).astype(dtype))
    store(tmp_path / "u.zarr/a", steps)
    floats, bytes_ = open_affinities(tmp_path / "f.zarr/a"), open_affinities(tmp_path / "u.zarr/a")
    assert floats.offsets == NEAREST
    np.testing.assert_array_equal(floats.read(floats.roi_voxels), bytes_.read(bytes_.roi_voxels))
    assert floats.read(floats.roi_voxels).dtype == np.uint8


@pytest.mark.parametrize(
    ("value", "message"),
    [(np.nan, "is NaN.*Repeat the prediction"), (1.2, "1.2.*Rescale"), (-0.1, "-0.1 to"), (np.inf, "inf")],
)
def test_senseless_values_are_refused_when_read(tmp_path, value, message):
    values = np.full((3, 4, 4, 4), 0.5, np.float32)
    values[1, 2, 2, 2] = value
    store(tmp_path / "a.zarr/a", values)
    affinities = open_affinities(tmp_path / "a.zarr/a")
    with pytest.raises(DataError, match=message) as refused:
        affinities.read(affinities.roi_voxels)
    at = tuple(int(b) + 2 for b in affinities.roi_voxels.begin)
    assert f"first at voxel {at}" in str(refused.value)
    affinities.read(Roi((0, 0, 0), (2, 4, 4)))


@pytest.mark.parametrize(
    ("channels", "offsets"),
    [
        (4, None),
        (3, [[-1, 0, 0], [0, -1, 0]]),
        (2, [[-1, 0, 0], [0, -1]]),
        (2, [[-1, 0, 0], [1, 0, 0]]),
        (1, [[0, 0, 0]]),
        (1, [[0, 0.5, 0]]),
        (1, "z"),
    ],
)
def test_offsets_that_do_not_fit_are_refused(tmp_path, channels, offsets):
    store(tmp_path / "a.zarr/a", random_map(channels))
    with pytest.raises(DataError, match=f"offsets of .*one .z, y, x. .* {channels} channels"):
        open_affinities(tmp_path / "a.zarr/a", offsets)


def test_a_missing_nearest_edge_is_named(tmp_path):
    store(tmp_path / "a.zarr/a", random_map(2), offsets=[[0, -1, 0], [0, 0, 1]])
    affinities = open_affinities(tmp_path / "a.zarr/a")
    with pytest.raises(DataError, match=r"\[-1, 0, 0\] or \[1, 0, 0\].*or segment .* with --per_section"):
        _ = affinities.nearest
    store(tmp_path / "a.zarr/b", random_map(2), offsets=[[-1, 0, 0], [0, 0, 1]])
    for other in (
        open_affinities(tmp_path / "a.zarr/b"),
        open_affinities(tmp_path / "a.zarr/b").by_section(),
    ):
        with pytest.raises(
            DataError, match=r"\[0, -1, 0\] or \[0, 1, 0\]; allowed|\[0, -1, 0\] or"
        ) as caught:
            _ = other.nearest
        assert "--per_section" not in str(caught.value), "which would not help"


@pytest.mark.parametrize("offsets", [LONG, LONG[1:4], [(0, 0, 1), (0, -3, 2), (2, 0, 0), (0, 1, 0)]])
def test_by_section_no_edge_leads_to_another_section(tmp_path, offsets):
    values = random_map(len(offsets))
    store(tmp_path / "a.zarr/a", values, offsets=offsets)
    affinities = open_affinities(tmp_path / "a.zarr/a")
    flat, roi = affinities.by_section(), affinities.roi_voxels
    assert affinities.connects_sections == (offsets is LONG)
    assert not flat.connects_sections
    assert flat.identity() != affinities.identity()
    across = np.array([offset[0] != 0 for offset in offsets])
    read = flat.read(roi)
    assert not read[across].any()
    np.testing.assert_array_equal(read[~across], affinities.read(roi)[~across])
    nearest = flat.read_nearest(roi)
    assert not nearest[0].any()
    for axis in (1, 2):
        channel, step = flat.nearest[axis], np.eye(3, dtype=int)[axis]
        turned = offsets[channel] == tuple(step)
        wanted = np.roll(read[channel], 1, axis) if turned else read[channel]
        np.testing.assert_array_equal(nearest[axis], wanted)


def test_labels_and_grey_values_are_refused(tmp_path):
    create_volume(tmp_path / "a.zarr/ids", shape=(3, 4, 4), dtype=np.uint8, voxel_size=(1, 1, 1))
    with pytest.raises(DataError, match=r"axes of .* is z, y, x; allowed: c, z, y, x"):
        open_affinities(tmp_path / "a.zarr/ids")
    create_volume(tmp_path / "a.zarr/wide", shape=(3, 4, 4, 4), dtype=np.uint16, voxel_size=(1, 1, 1))
    with pytest.raises(DataError, match=r"dtype of .* is uint16"):
        open_affinities(tmp_path / "a.zarr/wide")


def test_it_travels_to_workers(tmp_path):
    values = random_map(3)
    store(tmp_path / "a.zarr/a", values)
    affinities = open_affinities(tmp_path / "a.zarr/a")
    again = pickle.loads(pickle.dumps(affinities))
    np.testing.assert_array_equal(again.read(again.roi_voxels), affinities.read(affinities.roi_voxels))
    assert again.identity() == affinities.identity()


def test_a_prediction_that_is_not_finished_is_refused(tmp_path):
    store(tmp_path / "a.zarr/a", random_map(3), incasem={"begun_by": "predict"})
    with pytest.raises(DataError, match="a is not finished"):
        open_affinities(tmp_path / "a.zarr/a")


def test_channels_that_are_not_needed_are_not_read(tmp_path):
    values = np.full((5, 4, 4, 4), 0.5, np.float32)
    values[3:] = np.nan  # would be refused
    store(tmp_path / "a.zarr/a", values, offsets=LONG)
    affinities = open_affinities(tmp_path / "a.zarr/a")
    nearest = affinities.read_nearest(affinities.roi_voxels)
    assert set(np.unique(nearest)) == {0, 128}
    with pytest.raises(DataError, match="NaN"):
        affinities.read(affinities.roi_voxels)
