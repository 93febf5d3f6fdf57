import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.morphology import ball

from incasem.blockwise import run_in_process
from incasem.errors import ConfigError, DataError
from incasem.formatting import MaskOptions, create_mask, mask
from incasem.volumes import create_volume, open_volume


def make_raw(tmp_path, shape, seed=0):
    rng = np.random.default_rng(seed)
    coarse = ndimage.gaussian_filter(rng.random(shape), 2.5)
    array = np.where(coarse > np.quantile(coarse, 0.45), 120, 0)
    array[rng.random(shape) < 0.002] = 200
    array = array.astype(np.uint8)
    volume = create_volume(
        tmp_path / "cell.zarr/volumes/raw",
        shape=shape, dtype=np.uint8, voxel_size=(5, 5, 5), offset_nm=(10, 20, 30), chunk_shape=(16, 16, 16),
    )  # fmt: skip
    volume.write_voxels(volume.roi_voxels, array)
    return array


def options(tmp_path, **kwargs):
    defaults = {"chunk_shape": (16, 16, 16), "min_size_voxels": 150}
    return MaskOptions(tmp_path / "cell.zarr", "volumes/raw", **{**defaults, **kwargs})


def small(binary, size):
    """Components of fewer than `size` voxels, over faces."""
    labels, _ = ndimage.label(binary)
    return binary & (np.bincount(labels.ravel()) < size)[labels]


def expected(array, size, low=2, high=180):
    """The published rule on the whole volume, by scipy."""
    inside = (array > low) & (array < high)
    for steps, radius in (("ed", 3), ("de", 2)):
        for step in steps:
            if step == "e":
                inside = ndimage.binary_erosion(inside, ball(radius), border_value=1)
            else:
                inside = ndimage.binary_dilation(inside, ball(radius))
    inside = inside | small(~inside, size)
    return np.where(inside & ~small(inside, size), 255, 0)


@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_any_blocks_give_the_whole_volumes_mask(tmp_path_factory, data):
    tmp_path = tmp_path_factory.mktemp("mask")
    shape = data.draw(st.tuples(*[st.integers(5, 45)] * 3))
    chunks = data.draw(st.tuples(*[st.integers(6, 20)] * 3))
    block = tuple(c * data.draw(st.integers(1, 3)) for c in chunks)
    size = data.draw(st.sampled_from([1, 30, 500, 5000]))
    array = make_raw(tmp_path, shape, data.draw(st.integers(0, 99)))
    stage = mask.prepare_mask(options(tmp_path, chunk_shape=chunks, min_size_voxels=size), block)
    run_in_process(stage.filter_job())
    run_in_process(stage.write_job(stage.sized_mask(0)))
    np.testing.assert_array_equal(stage.output.read_voxels(stage.output.roi_voxels), expected(array, size))


@pytest.mark.parametrize("few", [0, 100])
def test_by_workers(tmp_path, few, monkeypatch):
    monkeypatch.setattr(mask, "_FEW_BLOCKS", few)
    monkeypatch.setattr(mask, "default_block_shape", lambda *_, **__: (32, 32, 32))
    array = make_raw(tmp_path, (40, 50, 60))
    opts = options(tmp_path)
    create_mask(opts, num_workers=2, progress=False)
    result = open_volume(tmp_path / "cell.zarr/volumes/mask")
    values = result.read_voxels(result.roi_voxels)
    assert set(np.unique(values)) == {0, 255}
    np.testing.assert_array_equal(values, expected(array, 150))
    assert result.offset_nm == (10, 20, 30)
    assert not list((tmp_path / "cell.zarr/volumes/mask").glob(".incasem"))
    assert create_mask(opts, num_workers=2, progress=False).already_complete


def test_limits_are_strict():
    grey = np.zeros((20, 20, 20), np.uint8)
    grey[:10] = 2
    grey[10:] = 3
    np.testing.assert_array_equal(mask.between(grey, 2, 180), grey == 3)
    np.testing.assert_array_equal(mask.between(grey + 177, 2, 180), grey == 2)


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"min_gray_value": 180}, ConfigError, r"min_gray_value is 180; allowed: less than max_gray_value"),
        ({"min_size_voxels": 0}, ConfigError, "min_size_voxels"),
        ({"out_dataset": "volumes/raw"}, ConfigError, "another one than the input"),
        ({"out_dataset": "volumes"}, DataError, "volumes cannot be created"),
    ],
)
def test_bad_options(tmp_path, kwargs, error, message):
    make_raw(tmp_path, (8, 8, 8))
    with pytest.raises(error, match=message):
        create_mask(options(tmp_path, **kwargs), num_workers=1, progress=False)


def test_wide_greys_with_limits_of_eight_bits_are_noticed(tmp_path, caplog):
    volume = create_volume(
        tmp_path / "cell.zarr/volumes/raw", shape=(4, 4, 4), dtype=np.uint16, voxel_size=(5,) * 3
    )
    volume.write_voxels(volume.roi_voxels, np.full((4, 4, 4), 5000, np.uint16))
    mask.prepare_mask(options(tmp_path))
    assert "meant for 8 bits" in caplog.text
