"""Reading the volumes of an entry, and the checks before a training."""

from dataclasses import replace

import numpy as np
import pytest

from incasem.errors import DataError
from incasem.geometry import Roi
from incasem.training._gunpowder import gp
from incasem.training.sources import Keys, VolumeSource, check_entries, open_entry
from tests.training.cells import ball, cell, store

ROI = ((8, 8, 8), (32, 32, 32))


def read(entry, key, roi):
    """One array through gunpowder."""
    request = gp.BatchRequest({key: gp.ArraySpec(roi=roi)})
    with gp.build(gp.Pipeline(VolumeSource(open_entry(entry)))) as pipeline:
        return pipeline.request_batch(request)[key].data


def test_raw_is_real_wherever_the_volume_has_it_and_reflected_beyond(tmp_path):
    raw = np.random.default_rng(0).integers(0, 256, (48, 48, 48), dtype=np.uint8)
    entry = cell(tmp_path, raw=raw, roi=((20, 20, 20), (4, 4, 4)))
    found = read(entry, Keys.RAW, Roi((-10, 0, 20), (60, 48, 50)))
    expected = np.pad(raw, ((10, 2), (0, 0), (0, 22)), mode="reflect")[:, :, 20:]
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.uint8


def test_outside_the_roi_nothing_is_labelled_or_masked_in(tmp_path):
    shape = (48, 48, 48)
    everything = np.full(shape, 3, np.uint32)
    entry = cell(tmp_path, labels={"er": (everything, 1)}, mask=np.full(shape, 255, np.uint8))
    for key in (Keys.LABELS, Keys.MASK, Keys.METRIC_MASK):
        found = read(entry, key, Roi((0, 0, 0), shape))
        expected = np.zeros(shape, np.uint8)
        expected[8:40, 8:40, 8:40] = 1
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == np.uint8
        assert not read(entry, key, Roi((100, 0, 0), (5, 5, 5))).any()


def test_masks_and_metric_masks(tmp_path):
    rng = np.random.default_rng(1)
    mask, first, second = (rng.integers(0, 2, (48, 48, 48), dtype=np.uint8) * 255 for _ in range(3))
    entry = cell(tmp_path, mask=mask, metric_masks=(first, second))
    roi = Roi(*ROI)
    inside = roi.to_slices()
    np.testing.assert_array_equal(read(entry, Keys.MASK, roi), (mask != 0)[inside])
    counted = (mask != 0) & (first != 0) & (second != 0)
    np.testing.assert_array_equal(read(entry, Keys.METRIC_MASK, roi), counted[inside])


def test_two_datasets_of_the_same_last_name_are_two_classes_and_conflicts_are_background(tmp_path):
    shape = (48, 48, 48)
    left, right = np.zeros(shape, np.uint32), np.zeros(shape, np.uint32)
    left[:, :, :26], right[:, :, 22:] = 5, 9
    entry = cell(tmp_path, labels={"one/mito": (left, 1), "two/mito": (right, 2)})
    found = read(entry, Keys.LABELS, Roi(*ROI))
    expected = np.zeros((32, 32, 32), np.uint8)
    expected[:, :, : 22 - 8], expected[:, :, 26 - 8 :] = 1, 2
    np.testing.assert_array_equal(found, expected)


def test_an_entry_without_labels_is_background(tmp_path):
    entry = cell(tmp_path, labels={})
    assert not read(entry, Keys.LABELS, Roi(*ROI)).any()
    assert read(entry, Keys.MASK, Roi(*ROI)).all()


def test_volumes_anywhere_on_the_grid_and_fractional_voxels(tmp_path):
    raw = np.arange(24**3, dtype=np.uint16).reshape(24, 24, 24)
    size = (5.9, 5.9, 40.0)
    store(tmp_path / "c.zarr/raw", raw, (100, -7, 3), size)
    store(tmp_path / "c.zarr/er", (raw % 2).astype(np.uint8), (100, -7, 3), size)
    entry = replace(
        cell(tmp_path), file=tmp_path / "c.zarr", voxel_size=size, offset=(104, -3, 7), shape=(8, 8, 8),
        raw="raw", labels={"er": 1},
    )  # fmt: skip
    place = Roi((104, -3, 7), (8, 8, 8))
    np.testing.assert_array_equal(read(entry, Keys.RAW, place), raw[4:12, 4:12, 4:12])
    np.testing.assert_array_equal(read(entry, Keys.LABELS, place), raw[4:12, 4:12, 4:12] % 2)


def test_offset_and_shape_left_out_mean_where_raw_and_labels_are(tmp_path):
    store(tmp_path / "c.zarr/raw", np.zeros((30, 30, 30), np.uint8), (0, 0, 0))
    store(tmp_path / "c.zarr/er", np.ones((20, 20, 20), np.uint8), (15, 5, 5))
    entry = replace(
        cell(tmp_path), file=tmp_path / "c.zarr", offset=None, shape=None, raw="raw", labels={"er": 1}
    )
    source = open_entry(entry)
    assert source.roi == Roi((15, 5, 5), (15, 20, 20))
    assert source.entry.offset == (15, 5, 5)


def test_floats_beyond_0_to_1_are_refused_where_they_are_read(tmp_path):
    raw = np.full((16, 16, 16), 0.5, np.float32)
    raw[4, 4, 4] = 1.5
    entry = cell(tmp_path, raw=raw, roi=((0, 0, 0), (16, 16, 16)))
    assert read(entry, Keys.RAW, Roi((8, 8, 8), (8, 8, 8))).dtype == np.float32
    with pytest.raises(
        Exception, match=r"a grey value of .*'cell' is between 0\.5 and 1\.5 .*allowed: 0 to 1"
    ):
        read(entry, Keys.RAW, Roi((0, 0, 0), (8, 8, 8)))


@pytest.fixture
def entry(tmp_path):
    return cell(tmp_path)


def test_good_entries_pass(entry):
    check_entries([entry, replace(entry, nickname="again")])


def wrong_entries(entry, folder):
    box = np.ones((16, 16, 16), np.uint8)
    store(folder / "w.zarr/raw", box)
    store(folder / "w.zarr/far", box, (40, 40, 40))
    store(folder / "w.zarr/shifted", box, (4, 4, 4))
    store(folder / "w.zarr/coarse", box, voxel_size=(10, 10, 10))
    store(folder / "w.zarr/floats", box.astype(np.float32))
    store(folder / "w.zarr/signed", box.astype(np.int16))
    good = replace(entry, file=folder / "w.zarr", raw="raw", labels={}, offset=(0, 0, 0), shape=(16, 16, 16))
    return {
        "missing raw": (replace(good, raw="rw"), "rw"),
        "missing file": (replace(good, file=folder / "nothing.zarr"), "nothing.zarr"),
        "missing labels": (replace(good, labels={"nothing": 1}), "nothing"),
        "outside": (replace(good, offset=(8, 0, 0)), r"the region of 'cell'.*\[8:24, 0:16, 0:16\] voxels"),
        "no overlap": (replace(good, labels={"far": 1}), r"far of 'cell' is at \[40:56.*overlap \[0:16"),
        "part": (
            replace(good, labels={"shifted": 1}),
            r"the region of 'cell' .*within \[4:20.*where shifted",
        ),
        "coarse": (replace(good, mask="coarse"), r"voxel size of .*coarse.*\[10.0, 10.0, 10.0\] nm"),
        "float labels": (replace(good, labels={"floats": 1}), "data type of floats of 'cell' is float32"),
        "signed raw": (replace(good, raw="signed"), "data type of the raw data is int16"),
    }


@pytest.mark.parametrize(
    "case",
    ["missing raw", "missing file", "missing labels", "outside", "no overlap", "part", "coarse",
     "float labels", "signed raw"],
)  # fmt: skip
def test_entries_that_cannot_be_used(entry, tmp_path, case):
    wrong, message = wrong_entries(entry, tmp_path)[case]
    with pytest.raises(DataError, match=message):
        check_entries([wrong])


def test_channels_are_refused(entry, tmp_path):
    from incasem.volumes import create_volume

    create_volume(
        tmp_path / "rgb.zarr/raw", shape=(3, 8, 8, 8), dtype=np.uint8, voxel_size=(5, 5, 5),
        axes=("c", "z", "y", "x"), chunk_shape=(3, 8, 8, 8),
    )  # fmt: skip
    with pytest.raises(DataError, match=r"axes of .* is c, z, y, x; allowed: z, y, x"):
        open_entry(replace(entry, file=tmp_path / "rgb.zarr", raw="raw", labels={}))


def test_the_ball_is_what_the_fixture_says():
    assert set(np.unique(ball((8, 8, 8)))) == {0, 7}
