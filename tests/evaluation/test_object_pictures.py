"""Objects in colours that stay, and stay apart; affinities as what they are."""

import numpy as np
import pytest

from incasem.evaluation.object_pictures import id_colours, paint_affinities, paint_objects
from incasem.evaluation.report_pictures import SlicePanel, views

GREY = np.full((60, 80, 3), 128, np.uint8)
APART = 0.6 * 60  # in a picture, of colours that were mixed with the grey values


def cells(seed, first=1, size=10):
    """Touching boxes of ids in no order, from ``first`` on."""
    ids = np.random.default_rng(seed).permutation(48).reshape(6, 8).astype(np.uint64) + np.uint64(first)
    return ids.repeat(size, 0).repeat(size, 1)


@pytest.mark.parametrize("first", [1, 2**33, 2**63])
@pytest.mark.parametrize("gap", [0, 1])
def test_objects_that_touch_have_different_colours(first, gap):
    for seed in range(5):
        ids = cells(seed, first)
        middles = paint_objects(GREY, ids)[5::10, 5::10].astype(float)
        if gap:  # a background voxel between them: they still lie side by side to the eye
            ids[9::10], ids[:, 9::10] = 0, 0
            middles = paint_objects(GREY, ids)[5::10, 5::10].astype(float)
        for axis in (0, 1):
            assert np.linalg.norm(np.diff(middles, axis=axis), axis=-1).min() > APART


def test_an_object_has_one_colour_in_all_pictures():
    one, other = (paint_objects(GREY, cells(seed)) for seed in (1, 2))
    same = [(one[cells(1) == number][0] == other[cells(2) == number][0]).all() for number in range(1, 49)]
    assert np.mean(same) > 0.6, "but for those with a neighbour of nearly the same"
    for picture, seed in ((one, 1), (other, 2)):
        for number in range(1, 49):
            assert np.unique(picture[cells(seed) == number], axis=0).shape == (1, 3)
    np.testing.assert_array_equal(
        id_colours(np.array([7, 9], np.uint64))[1], id_colours(np.array([9], np.uint64))[0]
    )


def test_where_there_is_no_object_it_is_grey_and_darker():
    ids = cells(0).astype(np.int64)
    ids[:10] = 0
    picture = paint_objects(GREY, ids)
    assert (picture[:10] == 64).all()
    assert (np.ptp(picture[10:].astype(int), axis=-1) > 10).all(), "objects are coloured"
    assert (paint_objects(GREY, np.zeros((60, 80), np.uint8)) == 64).all()


def test_the_grey_values_show_through():
    raw = np.tile(np.array([100, 140], np.uint8)[:, None], (30, 80))[..., None].repeat(3, -1)
    picture = paint_objects(raw, np.ones((60, 80), np.uint32)).astype(int)
    assert (picture[1::2] - picture[::2] == 16).all()


def test_affinities_are_red_green_and_blue():
    affinities = np.random.default_rng(0).random((3, 6, 7), dtype=np.float32)
    np.testing.assert_array_equal(np.moveaxis(paint_affinities(affinities), -1, 0), np.rint(affinities * 255))
    stored = np.rint(affinities * 255).astype(np.uint8)
    np.testing.assert_array_equal(paint_affinities(stored), np.moveaxis(stored, 0, -1))
    assert paint_affinities(np.full((3, 1, 1), np.nan)).tolist() == [[[0, 0, 0]]]


def test_the_views_of_a_slice():
    ids, affinities = cells(0), np.full((3, 60, 80), 200, np.uint8)
    boundary = np.zeros((60, 80), np.uint8)
    boundary[20] = 1
    whole = {"labels_YX": boundary, "prediction_YX": boundary, "probability_YX": boundary / 2}
    shown = views(SlicePanel("z", GREY[..., 0], **whole, ids_YX=ids, affinities_CYX=affinities))
    assert list(shown) == [
        "raw", "objects of the labels", "affinities z, y, x as red, green, blue", "boundaries, compared",
    ]  # fmt: skip
    np.testing.assert_array_equal(shown["objects of the labels"], paint_objects(shown["raw"], ids))
    unlabelled = views(SlicePanel("z", GREY[..., 0], prediction_YX=boundary, affinities_CYX=affinities))
    assert list(unlabelled) == ["raw", "affinities z, y, x as red, green, blue", "boundaries"]
    assert (unlabelled["boundaries"][20] != unlabelled["raw"][20]).any()
