import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from incasem.errors import ConfigError, DataError
from incasem.geometry import Coordinate
from incasem.tasks.affinity_targets import NEAREST, affinity_targets, erode_borders, reach

IDS = {
    np.uint8: [0, 1, 7, 255],
    np.int16: [0, 1, 300, 2**15 - 1],
    np.uint32: [0, 3, 2**31, 2**32 - 1],
    np.int64: [0, 5, 2**32 + 5, 2**63 - 1],
    np.uint64: [0, 5, 2**32 + 5, 2**64 - 1],
    np.dtype(">i4"): [0, 1, 256, 2**31 - 1],
}


@st.composite
def labelled_boxes(draw):
    dtype = draw(st.sampled_from(list(IDS)))
    shape = draw(st.tuples(*[st.integers(1, 5)] * 3))
    chosen = draw(hnp.arrays(np.int8, shape, elements=st.integers(0, 3)))
    return np.array(IDS[dtype], dtype)[chosen]


offset_lists = st.lists(st.tuples(*[st.integers(-4, 4)] * 3).filter(any), min_size=1, max_size=4, unique=True)


def plain(labels, offsets, ignored=(), mask=None, uneroded=None):
    """The definition, voxel by voxel."""
    uneroded = labels if uneroded is None else uneroded
    affinities = np.zeros((len(offsets), *labels.shape), np.uint8)
    valid = np.zeros(affinities.shape, bool)

    def counts(at):
        return int(uneroded[at]) not in ignored and (mask is None or bool(mask[at]))

    for channel, offset in enumerate(offsets):
        for here in np.ndindex(labels.shape):
            there = tuple(int(h) + o for h, o in zip(here, offset, strict=True))
            if any(not 0 <= t < s for t, s in zip(there, labels.shape, strict=True)):
                continue
            if counts(here) and counts(there):
                valid[channel, *here] = True
                affinities[channel, *here] = labels[here] == labels[there] and labels[here] != 0
    return affinities, valid


def plainly_eroded(labels, steps):
    eroded = labels.copy()
    for z, y, x in np.ndindex(labels.shape):
        window = labels[z, max(0, y - steps) : y + steps + 1, max(0, x - steps) : x + steps + 1]
        if len(set(window.flatten().tolist()) - {0}) > 1:
            eroded[z, y, x] = 0
    return eroded


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_edges_are_those_of_the_definition(data):
    labels, offsets = data.draw(labelled_boxes()), data.draw(offset_lists)
    ignored = data.draw(st.sampled_from([(), (0,), (5, 1), (2**70, -3), (7, 255, 300, 2**63 - 1, 2**64 - 1)]))
    mask = data.draw(st.none() | hnp.arrays(st.sampled_from([bool, np.uint8]), labels.shape))
    steps = data.draw(st.integers(0, 2))
    before = labels.copy()

    affinities, valid = affinity_targets(
        labels, offsets, ignored_ids=ignored, mask_ZYX=mask, border_erosion=steps
    )

    expected = plain(plainly_eroded(labels, steps), offsets, ignored, mask, uneroded=labels)
    assert affinities.dtype == np.uint8
    assert valid.dtype == bool
    np.testing.assert_array_equal(affinities, expected[0])
    np.testing.assert_array_equal(valid, expected[1])
    np.testing.assert_array_equal(labels, before)


@settings(deadline=None, max_examples=100)
@given(labels=labelled_boxes(), steps=st.integers(0, 6))
def test_borders_are_those_of_the_published_rule(labels, steps):
    eroded = erode_borders(labels, steps)
    assert eroded.dtype.newbyteorder("=") == labels.dtype.newbyteorder("=")
    np.testing.assert_array_equal(eroded, plainly_eroded(labels, steps))


@pytest.mark.parametrize("dtype", IDS)
def test_large_ids_are_exact(dtype):
    """Ids that differ by 1 and would be one number in floating point."""
    top = IDS[dtype][-1]
    labels = np.array([[[top, top, top, top - 1, top - 1, top - 1]]], dtype)
    affinities, _ = affinity_targets(labels, [(0, 0, -1)], ignored_ids=[top])
    np.testing.assert_array_equal(affinities[0, 0, 0], [0, 0, 0, 0, 1, 1])
    expected = [top, top, 0, 0, top - 1, top - 1]
    np.testing.assert_array_equal(erode_borders(labels, 1)[0, 0], np.array(expected, dtype))


def test_background_is_no_second_id_in_the_window():
    section = np.array([[[0, 5, 5, 5, 9, 9, 0, 9]]])
    np.testing.assert_array_equal(erode_borders(section, 1), [[[0, 5, 5, 0, 0, 9, 0, 9]]])


def test_erosion_stays_within_the_section():
    labels = np.zeros((2, 3, 3), np.uint16)
    labels[0], labels[1] = 1, 2
    np.testing.assert_array_equal(erode_borders(labels, 2), labels)


def test_eroded_voxels_count_even_where_background_is_ignored():
    labels = np.array([[[1, 1, 1, 2, 2, 2, 0]]])
    affinities, valid = affinity_targets(labels, [(0, 0, -1)], ignored_ids=[0], border_erosion=1)
    np.testing.assert_array_equal(affinities[0, 0, 0], [0, 1, 0, 0, 0, 1, 0])
    np.testing.assert_array_equal(valid[0, 0, 0], [0, 1, 1, 1, 1, 1, 0])


def test_all_background_and_one_object():
    nothing = affinity_targets(np.zeros((3, 4, 5), np.uint64))
    assert not nothing[0].any()
    assert nothing[1].sum() == 2 * 4 * 5 + 3 * 3 * 5 + 3 * 4 * 4
    one = affinity_targets(np.full((3, 4, 5), 2**40, np.uint64))
    np.testing.assert_array_equal(one[0].astype(bool), one[1])


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_with_its_reach_every_edge_of_a_box_is_known(data):
    """And it is the same as in any other box: the edges of a volume do not depend on the cut."""
    offsets = data.draw(offset_lists)
    labels = data.draw(hnp.arrays(np.uint8, (14, 14, 14), elements=st.integers(0, 2)))
    before, after = reach(offsets)
    begin = [data.draw(st.integers(b, 13 - a)) for b, a in zip(before, after, strict=True)]
    end = [data.draw(st.integers(b + 1, 14 - a)) for b, a in zip(begin, after, strict=True)]
    grown = tuple(slice(b - r, e + a) for b, e, r, a in zip(begin, end, before, after, strict=True))
    inner = (slice(None), *(slice(r, r + e - b) for b, e, r in zip(begin, end, before, strict=True)))

    affinities, valid = affinity_targets(labels[grown], offsets)

    assert valid[inner].all()
    place = (slice(None), *(slice(b, e) for b, e in zip(begin, end, strict=True)))
    np.testing.assert_array_equal(affinities[inner], affinity_targets(labels, offsets)[0][place])


def test_reach_is_no_larger_than_the_edges():
    assert reach(NEAREST) == (Coordinate(1, 1, 1), Coordinate(0, 0, 0))
    assert reach([(0, 0, 9), (0, -3, 2)]) == (Coordinate(0, 3, 0), Coordinate(0, 0, 9))


def test_negative_ids_and_other_types_are_refused():
    with pytest.raises(DataError, match=r"an object id is -4; allowed: 0 \(background\) and above"):
        affinity_targets(np.array([[[1, -4]]]))
    with pytest.raises(DataError, match="labels is float32 of 3 dimensions"):
        erode_borders(np.zeros((1, 1, 1), np.float32), 1)
    with pytest.raises(DataError, match="of 4 dimensions"):
        affinity_targets(np.zeros((1, 1, 1, 1), np.uint8))
    with pytest.raises(DataError, match="shape of the mask"):
        affinity_targets(np.zeros((1, 1, 2), np.uint8), mask_ZYX=np.ones((1, 1, 1)))


@pytest.mark.parametrize("offsets", [[], [(0, 0, 0)], [(1, 1)], [(0, 0, 0.5)]])
def test_offsets_that_are_no_edges_are_refused(offsets):
    for function in (reach, lambda offsets: affinity_targets(np.zeros((1, 1, 1), np.uint8), offsets)):
        with pytest.raises(ConfigError, match=r"task.offsets is \[.*\]; allowed: a list of \[z, y, x\]"):
            function(offsets)
