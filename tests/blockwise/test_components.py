import pickle
import sys
from functools import partial

import cloudpickle
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage
from skimage import morphology

from incasem.blockwise import Grid
from incasem.blockwise.components import label_components, mask_of, without_holes, without_small_objects
from incasem.errors import ConfigError, DataError
from incasem.geometry import Coordinate, Roi

cloudpickle.register_pickle_by_value(sys.modules[__name__])

ORIGIN = Coordinate((-3, 7, 100))
shapes = st.tuples(*[st.integers(1, 7)] * 3)
block_shapes = st.tuples(*[st.integers(2, 5)] * 3)
masks = shapes.flatmap(lambda shape: arrays(bool, shape))
AXES = {6: 1, 18: 2, 26: 3, 4: 1, 8: 2}
connectivities = st.sampled_from(list(AXES))
here = {"identity": {}, "num_workers": 0}


class Array:
    """Reads like a Volume."""

    def __init__(self, data):
        self.data = data

    def read_voxels(self, roi_voxels):
        return self.data[(roi_voxels - ORIGIN).to_slices()]


def cut(data, block_shape):
    return Grid(Roi(ORIGIN, data.shape), Coordinate(block_shape), Coordinate((0, 0, 0)))


def whole(mask, grid, dtype=bool):
    read = mask()
    result = np.empty(grid.total_roi.shape, dtype)
    for block in grid.blocks():
        result[(block.write_roi - ORIGIN).to_slices()] = read(block)
    return result


def labels_of(table, data):
    return whole(lambda: lambda b: table.label(Array(data).read_voxels(b.write_roi), b), table.grid, np.int64)


def structure(connectivity):
    around = ndimage.generate_binary_structure(3, AXES[connectivity])
    if connectivity in (4, 8):  # of one section
        around[[0, 2]] = False
    return around


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("components")


@settings(deadline=None, max_examples=60)
@given(masks, block_shapes, connectivities)
def test_labels_equal_those_of_the_whole_volume(folder, data, block_shape, connectivity):
    grid = cut(data, block_shape)
    table = label_components(mask_of(Array(data)), grid, folder, connectivity=connectivity, **here)
    expected, count = ndimage.label(data, structure(connectivity))
    assert table.count == count
    np.testing.assert_array_equal(labels_of(table, data), expected)
    np.testing.assert_array_equal(table.sizes[1:], np.bincount(expected.ravel(), minlength=count + 1)[1:])
    inner = np.zeros(data.shape, bool)
    inner[1:-1, 1:-1, 1:-1] = True
    at_border = np.setdiff1d(expected[~inner], [0])
    np.testing.assert_array_equal(np.flatnonzero(table.touches_border), at_border)


@pytest.mark.parametrize("connectivity", AXES)
@pytest.mark.parametrize("density", [0.1, 0.3, 0.6])
def test_labels_of_a_larger_volume(tmp_path, connectivity, density):
    data = np.random.default_rng(1).random((40, 37, 45)) < density
    grid = cut(data, (16, 11, 8))
    table = label_components(mask_of(Array(data)), grid, tmp_path, connectivity=connectivity, **here)
    np.testing.assert_array_equal(labels_of(table, data), ndimage.label(data, structure(connectivity))[0])


def test_two_voxels_that_meet_at_a_corner_of_four_blocks(tmp_path):
    for direction in ([1, 1], [1, -1]):
        data = np.zeros((4, 4, 4), bool)
        x = 1 if direction[1] > 0 else 2
        data[1, 1, x] = data[2, 1 + direction[0], x + direction[1]] = True
        for connectivity, count in ((6, 2), (18, 2), (26, 1)):
            mask, grid = mask_of(Array(data)), cut(data, (2, 2, 2))
            table = label_components(mask, grid, tmp_path, connectivity=connectivity, **here)
            assert table.count == count


@settings(deadline=None, max_examples=25)
@given(masks, block_shapes, connectivities, st.integers(0, 12))
def test_small_objects_equal_those_of_the_whole_volume(folder, data, block_shape, connectivity, min_voxels):
    grid = cut(data, block_shape)
    mask = without_small_objects(
        mask_of(Array(data)), grid, folder, min_voxels=min_voxels, connectivity=connectivity, **here
    )
    labels, count = ndimage.label(data, structure(connectivity))
    keep = np.bincount(labels.ravel(), minlength=count + 1) >= min_voxels
    keep[0] = False
    np.testing.assert_array_equal(whole(mask, grid), keep[labels])


@settings(deadline=None, max_examples=25)
@given(masks, block_shapes)
def test_filled_holes_equal_those_of_the_whole_volume(folder, data, block_shape):
    grid = cut(data, block_shape)
    mask = without_holes(mask_of(Array(data)), grid, folder, **here)
    np.testing.assert_array_equal(whole(mask, grid), ndimage.binary_fill_holes(data))


@settings(deadline=None, max_examples=15)
@given(masks, block_shapes, st.integers(1, 12))
def test_small_holes_equal_those_of_skimage(folder, data, block_shape, max_voxels):
    grid = cut(data, block_shape)
    mask = without_holes(
        mask_of(Array(data)), grid, folder, max_voxels=max_voxels, fill_at_border=True, **here
    )
    expected = morphology.remove_small_holes(data, max_size=max_voxels)
    np.testing.assert_array_equal(whole(mask, grid), expected)


def test_masks_chain_and_run_in_workers(tmp_path):
    z, y, x = np.ogrid[:24, :24, :24]
    radius = np.sqrt((z - 11) ** 2 + (y - 12) ** 2 + (x - 10) ** 2)
    data = np.where((radius > 5) & (radius < 9), 200, 10).astype(np.uint8)  # a shell, with a hole
    data[1, 1, 1:4] = 200  # and a speck
    grid, how = cut(data, (10, 9, 8)), {"identity": {"seed": 1}, "num_workers": 2, "progress": False}
    mask = mask_of(Array(data), lambda gray: gray > 100)
    mask = without_small_objects(mask, grid, tmp_path / "objects", min_voxels=10, **how)
    mask = without_holes(mask, grid, tmp_path / "holes", **how)
    np.testing.assert_array_equal(whole(mask, grid), radius < 9)
    table = label_components(mask, grid, tmp_path / "labels", **how)
    assert table.count == 1
    assert table.sizes.tolist() == [0, int((radius < 9).sum())]
    again = pickle.loads(pickle.dumps(table))
    np.testing.assert_array_equal(labels_of(again, radius < 9), radius < 9)


def test_a_mask_that_changed_since_is_noticed(tmp_path):
    data = np.zeros((4, 4, 4), bool)
    data[0, 0, 0] = True
    table = label_components(mask_of(Array(data)), cut(data, (2, 2, 2)), tmp_path, **here)
    data[0, 1, 1] = True
    with pytest.raises(DataError, match="has 2 pieces and had 1"):
        labels_of(table, data)


def test_senseless_settings_are_refused(tmp_path):
    data = np.zeros((4, 4, 4), bool)
    ask = partial(label_components, mask_of(Array(data)), cut(data, (2, 2, 2)), tmp_path, **here)
    with pytest.raises(ConfigError, match="connectivity is 5; allowed: 6, 18 or 26; 4 or 8 within"):
        ask(connectivity=5)
    with pytest.raises(ValueError, match="fill everything"):
        without_holes(mask_of(Array(data)), cut(data, (2, 2, 2)), tmp_path, fill_at_border=True, **here)
