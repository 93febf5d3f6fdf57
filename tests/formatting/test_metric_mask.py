import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from incasem.blockwise import run_in_process
from incasem.errors import ConfigError, DataError
from incasem.formatting import MetricMaskOptions, create_metric_mask, metric_mask
from incasem.volumes import create_volume, open_volume


def make_labels(tmp_path, shape, dtype=np.uint32, chunks=(8, 8, 8), seed=0):
    smooth = ndimage.gaussian_filter(np.random.default_rng(seed).random(shape), 1.5)
    labels = np.where(smooth > np.quantile(smooth, 0.7), 1 + (np.indices(shape)[2] // 9) % 3, 0).astype(dtype)
    volume = create_volume(
        tmp_path / "cell.zarr/volumes/labels/er",
        shape=shape, dtype=dtype, voxel_size=(5, 5, 5), offset_nm=(10, 20, 30), chunk_shape=chunks,
    )  # fmt: skip
    volume.write_voxels(volume.roi_voxels, labels)
    return labels


def options(tmp_path, **kwargs):
    return MetricMaskOptions(
        tmp_path / "cell.zarr",
        "volumes/labels/er",
        "volumes/metric_masks/er",
        **{"chunk_shape": (8, 8, 8), **kwargs},
    )


def expected(labels, outwards, inwards):
    """The whole-volume rule, by scipy."""
    objects = labels > 0
    dilated = ndimage.binary_dilation(objects, iterations=outwards) if outwards else objects
    eroded = ndimage.binary_erosion(objects, iterations=inwards, border_value=1) if inwards else objects
    return np.where(dilated & ~eroded, 0, 255)


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_any_blocks_give_the_whole_volumes_mask(tmp_path_factory, data):
    tmp_path = tmp_path_factory.mktemp("zone")
    shape = data.draw(st.tuples(*[st.integers(1, 30)] * 3))
    chunks = data.draw(st.tuples(*[st.integers(4, 16)] * 3))
    block = tuple(c * data.draw(st.integers(1, 2)) for c in chunks)
    outwards, inwards = data.draw(st.integers(0, 5)), data.draw(st.integers(0, 5))
    labels = make_labels(tmp_path, shape, seed=data.draw(st.integers(0, 99)))
    job, output = metric_mask.prepare_metric_mask(
        options(
            tmp_path, chunk_shape=chunks, exclude_voxels_outwards=outwards, exclude_voxels_inwards=inwards
        ),
        block,
    )
    run_in_process(job)
    np.testing.assert_array_equal(output.read_voxels(output.roi_voxels), expected(labels, outwards, inwards))


def test_by_workers(tmp_path):
    labels = make_labels(tmp_path, (20, 21, 22))
    opts = options(tmp_path, exclude_voxels_outwards=2, exclude_voxels_inwards=2)
    create_metric_mask(opts, num_workers=2, progress=False)
    mask = open_volume(tmp_path / "cell.zarr/volumes/metric_masks/er")
    assert mask.dtype == np.uint8
    assert mask.offset_nm == (10, 20, 30)
    np.testing.assert_array_equal(mask.read_voxels(mask.roi_voxels), expected(labels, 2, 2))
    assert create_metric_mask(opts, num_workers=2, progress=False).already_complete


def test_no_width_means_no_zone_on_that_side():
    labels = np.zeros((9, 9, 9), np.uint8)
    labels[3:6, 3:6, 3:6] = 5
    assert (metric_mask.keep_zone_free(labels, 0, 0) == 255).all()
    zone = metric_mask.keep_zone_free(labels, 1, 0) == 0
    assert zone.sum() == 6 * 9
    assert not zone[labels > 0].any()
    zone = metric_mask.keep_zone_free(labels, 0, 1) == 0
    np.testing.assert_array_equal(zone, (labels > 0) & (np.indices(labels.shape) != 4).any(axis=0))


def test_touching_objects_and_the_volumes_border_make_no_zone():
    labels = np.ones((6, 6, 6), np.uint32)
    labels[3:] = 2
    assert (metric_mask.keep_zone_free(labels, 2, 2) == 255).all()


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"exclude_voxels_outwards": -1}, ConfigError, "exclude_voxels_outwards is -1"),
        ({"exclude_voxels_inwards": 5000}, ConfigError, "exclude_voxels_inwards is 5000"),
    ],
)
def test_bad_options(tmp_path, kwargs, error, message):
    make_labels(tmp_path, (8, 8, 8))
    with pytest.raises(error, match=message):
        create_metric_mask(options(tmp_path, **kwargs), num_workers=1, progress=False)
    assert not (tmp_path / "cell.zarr/volumes/metric_masks").exists()


def test_floats_are_no_labels(tmp_path):
    make_labels(tmp_path, (8, 8, 8), np.float32)
    with pytest.raises(DataError, match="integers"):
        create_metric_mask(options(tmp_path), num_workers=1, progress=False)
