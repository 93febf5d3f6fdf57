"""Where blocks are drawn, and which are rejected."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from incasem.config.training import Reject, Sampling
from incasem.errors import DataError
from incasem.geometry import Coordinate, Roi
from incasem.training import locations
from incasem.training.locations import CountGrid, Locations, _count, _running_sums, index_entry
from incasem.training.sources import open_entry
from tests.training.cells import cell

NEVER = Reject(reject_probability=0, mask_reject_probability=0)


@given(
    hnp.arrays(np.uint8, st.tuples(*[st.integers(1, 20)] * 3), elements=st.integers(0, 1)),
    st.sampled_from([1, 2, 4, 8]),
    st.data(),
)
@settings(deadline=None)
def test_counts_of_cells_bound_those_of_any_region(array, cell_size, data):
    origin = Coordinate(3, -5, 100)
    grid = CountGrid(Roi(origin, array.shape), cell_size, _running_sums(_count(array, cell_size)))
    assert grid.total == array.sum()
    begin = [data.draw(st.integers(0, size - 1)) for size in array.shape]
    shape = [data.draw(st.integers(1, size - b)) for b, size in zip(begin, array.shape, strict=True)]
    inside = Roi(begin, shape)
    low, high = grid.bounds(inside + origin)
    count = int(array[inside.to_slices()].sum())
    assert low <= count <= high
    if cell_size == 1 or inside.shape == grid.roi.shape:
        assert low == high
    cells = grid.cell_counts()
    chosen = tuple(data.draw(st.integers(0, size - 1)) for size in cells.shape)
    assert cells[chosen] == array[(grid.cell_roi(chosen) - origin).to_slices()].sum()


def test_counting_a_volume_block_by_block_counts_every_voxel_once(tmp_path, monkeypatch):
    monkeypatch.setattr(locations, "READ_VOXELS", 16)
    rng = np.random.default_rng(0)
    first, second = ((rng.random((48, 48, 48)) < 0.3).astype(np.uint32) for _ in range(2))
    mask = rng.integers(0, 2, (48, 48, 48), dtype=np.uint8)
    entry = cell(
        tmp_path, labels={"a": (first, 1), "b": (second, 2)}, mask=mask, roi=((3, 5, 8), (37, 33, 40))
    )
    source = open_entry(entry)
    index = index_entry(source)
    inside = source.roi.to_slices()
    assert index.foreground.total == ((first + second) == 1)[inside].sum()  # conflicts are background
    assert index.mask.total == mask[inside].sum()
    np.testing.assert_array_equal(index.foreground.cell_counts(), _count(((first + second) == 1)[inside], 8))


def test_a_large_region_gets_larger_cells(tmp_path, monkeypatch):
    monkeypatch.setattr(locations, "MOST_CELLS", 30)
    index = index_entry(open_entry(cell(tmp_path)))
    assert index.foreground.cell == 16
    assert index.foreground.cell_counts().shape == (2, 2, 2)


@pytest.fixture(scope="module")
def ball_source(tmp_path_factory):
    return open_entry(cell(tmp_path_factory.mktemp("ball")))


@given(st.tuples(*[st.integers(1, 50)] * 3), st.integers(0, 2**32))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_block_lies_inside_the_roi_or_covers_it(ball_source, shape, seed):
    drawn = Locations(ball_source, index_entry(ball_source), NEVER, Sampling())
    begin = drawn.draw(Coordinate(shape), np.random.default_rng(seed))
    block, roi = Roi(begin, shape), ball_source.roi
    for axis in range(3):
        if shape[axis] <= roi.shape[axis]:
            assert roi.begin[axis] <= block.begin[axis]
            assert block.end[axis] <= roi.end[axis]
        else:
            assert block.begin[axis] <= roi.begin[axis]
            assert roi.end[axis] <= block.end[axis]


def draw_many(drawn, count, shape=(8, 8, 8), seed=0):
    rng = np.random.default_rng(seed)
    return [drawn.draw(Coordinate(shape), rng) for _ in range(count)]


def test_every_location_is_reached(ball_source):
    drawn = Locations(ball_source, index_entry(ball_source), NEVER, Sampling())
    begins = np.array(draw_many(drawn, 500, shape=(31, 31, 30)))
    np.testing.assert_array_equal(begins.min(axis=0), [8, 8, 8])
    np.testing.assert_array_equal(begins.max(axis=0), [9, 9, 10])


def half_full(tmp_path, **options):
    shape = (48, 48, 48)
    labels = np.zeros(shape, np.uint8)
    labels[24:] = 1
    return open_entry(cell(tmp_path, labels={"half": (labels, 1)}, **options))


def test_locations_without_foreground_are_drawn_as_rarely_as_asked(tmp_path):
    source = half_full(tmp_path)
    drawn = Locations(source, index_entry(source), Reject(min_masked=0.5, reject_probability=0.9), Sampling())
    begins = np.array(draw_many(drawn, 2000))
    # 25 begins along z (8…32); a block has at least half foreground from 20 on: 13 of 25.
    below = (begins[:, 0] < 20).mean()
    expected = (12 / 25 * 0.1) / (12 / 25 * 0.1 + 13 / 25)
    assert below == pytest.approx(expected, abs=0.02)
    strict = Locations(source, index_entry(source), Reject(min_masked=0.5, reject_probability=1), Sampling())
    assert min(begin[0] for begin in draw_many(strict, 500)) == 20


def test_a_mean_mask_of_just_the_limit_is_rejected_as_published(tmp_path):
    mask = np.zeros((48, 48, 48), np.uint8)
    mask[:, 24:] = 255
    source = half_full(tmp_path, mask=mask)
    reject = Reject(reject_probability=0, min_mask=0.75, mask_reject_probability=1)
    begins = draw_many(Locations(source, index_entry(source), reject, Sampling()), 500)
    assert min(begin[1] for begin in begins) == 23  # 7 of 8; 22 gives 0.75


def test_a_small_roi_is_judged_by_what_lies_inside_it(tmp_path):
    source = half_full(tmp_path, mask=np.ones((48, 48, 48), np.uint8), roi=((30, 20, 20), (4, 4, 4)))
    strict = Reject(min_masked=1, reject_probability=1, mask_reject_probability=1)
    for begin in draw_many(
        Locations(source, index_entry(source), strict, Sampling()), 50, shape=(10, 10, 10)
    ):
        assert Roi(begin, (10, 10, 10)).contains(source.roi)


def test_without_any_foreground_samples_are_drawn_unless_that_is_forbidden(tmp_path):
    source = open_entry(cell(tmp_path, labels={}))
    index = index_entry(source)
    assert len(draw_many(Locations(source, index, Reject(), Sampling()), 50)) == 50
    assert len(draw_many(Locations(source, index, NEVER, Sampling(foreground=1)), 50)) == 50
    with pytest.raises(
        DataError, match=r"no sample can be drawn from 'cell'.*it has no foreground.*reject_probability=1"
    ):
        Locations(source, index, Reject(reject_probability=1), Sampling())


def test_an_impossible_demand_ends_with_an_error_that_names_the_settings(ball_source, monkeypatch):
    monkeypatch.setattr(locations, "MOST_DRAWS", 50)
    impossible = Reject(min_masked=1, reject_probability=1)
    drawn = Locations(ball_source, index_entry(ball_source), impossible, Sampling())
    with pytest.raises(DataError, match=r"'cell' \(\[8:40.*50 random locations were rejected.*min_masked=1 "):
        drawn.draw(Coordinate(30, 30, 30), np.random.default_rng(0))


def test_samples_around_foreground(ball_source):
    labels = ball_source.truth.classes(ball_source.roi)
    drawn = Locations(ball_source, index_entry(ball_source), Reject(), Sampling(foreground=1))
    begins = draw_many(drawn, 300, shape=(4, 4, 4))
    for begin in begins:
        block = Roi(begin, (4, 4, 4))
        assert ball_source.roi.contains(block)
        assert labels[(block - ball_source.roi.begin).to_slices()].any()
    assert len(set(begins)) > 200
    half = Locations(ball_source, index_entry(ball_source), Reject(), Sampling(foreground=0.5))
    hits = [
        labels[(Roi(begin, (4, 4, 4)) - ball_source.roi.begin).to_slices()].any()
        for begin in draw_many(half, 400, shape=(4, 4, 4))
    ]
    anywhere = Locations(ball_source, index_entry(ball_source), NEVER, Sampling())
    base = [
        labels[(Roi(begin, (4, 4, 4)) - ball_source.roi.begin).to_slices()].any()
        for begin in draw_many(anywhere, 400, shape=(4, 4, 4))
    ]
    assert np.mean(hits) == pytest.approx(0.5 + 0.5 * np.mean(base), abs=0.08)


def test_drawing_reads_no_raw_data_and_labels_only_where_the_counts_do_not_decide(ball_source, monkeypatch):
    index = index_entry(ball_source)
    read = []
    original = type(ball_source.truth).classes
    monkeypatch.setattr(
        type(ball_source.truth), "classes", lambda self, roi: read.append(roi) or original(self, roi)
    )
    without_raw = replace(ball_source, raw=None)
    draw_many(Locations(without_raw, index, Reject(min_masked=0.05), Sampling()), 200, shape=(16, 16, 16))
    assert len(read) < 60
