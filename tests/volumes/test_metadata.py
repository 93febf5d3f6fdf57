"""Places as attributes state them."""

import json
import logging

import numpy as np
import pytest

from incasem.errors import DataError
from incasem.volumes import create_volume, open_volume
from incasem.volumes.metadata import on_grid
from incasem.volumes.store import Place


@pytest.fixture
def array_with(tmp_path, make_volume, grey_ZYX):
    """A function that opens an array with exactly these attributes."""
    volume = make_volume(tmp_path, "zarr2", grey_ZYX, dataset="raw")
    (tmp_path / "cell.zarr/.zattrs").unlink()

    def open_with(attributes, **arguments):
        (tmp_path / "cell.zarr/raw/.zattrs").write_text(json.dumps(attributes))
        return open_volume(volume.path, **arguments)

    return open_with


@pytest.mark.parametrize(
    ("attributes", "voxel_size", "offset_nm"),
    [
        ({"offset": [8, 0, 4], "resolution": [4, 4, 4]}, (4, 4, 4), (8, 0, 4)),
        ({"resolution": [4, 4, 4]}, (4, 4, 4), (0, 0, 0)),
        ({"offset": [8, 0, 4], "voxel_size": [4, 4, 4], "axis_names": ["z", "y", "x"]}, (4, 4, 4), (8, 0, 4)),
        ({"offset": [0, 0, 0, 8], "resolution": [1, 4, 4, 4]}, (4, 4, 4), (0, 0, 8)),
        ({"resolution": [0.04, 0.0059, 0.0059], "unit": "um"}, (40, 5.9, 5.9), (0, 0, 0)),
        ({"voxel_size": [40, 4, 4], "offset": [80, 0, 0], "units": ["nm"] * 3}, (40, 4, 4), (80, 0, 0)),
        ({"resolution": [50, 4.6, 4.6], "offset": [0, 589, 1178]}, (50, 4.6, 4.6), (0, 588.8, 1177.6)),
    ],
)
def test_attributes_of_several_programs(array_with, attributes, voxel_size, offset_nm):
    volume = array_with(attributes)
    assert volume.voxel_size == pytest.approx(voxel_size)
    assert volume.offset_nm == pytest.approx(offset_nm)
    assert volume.has_stated_place


def test_nothing_stated_is_said(array_with, caplog):
    with caplog.at_level(logging.WARNING):
        volume = array_with({})
    assert volume.voxel_size == (1, 1, 1)
    assert not volume.has_stated_place
    assert "states no voxel size" in caplog.text
    assert volume.with_place(voxel_size=(5, 5, 5)).has_stated_place
    caplog.clear()
    assert open_volume(volume.path, voxel_size=(5, 5, 5)).has_stated_place
    assert not open_volume(volume.path, quiet=True).has_stated_place
    assert caplog.text == "", "the caller knows it"


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        (
            {"resolution": [5, 5, 5], "offset": [0, 0, 7]},
            r"offset of .* is \[0.0, 0.0, 7.0\] nm.*for example to \[0, 0, 5\]",
        ),
        ({"resolution": [5, 5, 5], "voxel_size": [4, 4, 4]}, "disagree"),
        ({"resolution": [5, 0, 5]}, "positive numbers"),
        ({"resolution": [5, -5, 5]}, "positive numbers"),
        ({"resolution": "5 nm"}, "resolution of .* three numbers"),
        ({"resolution": [5, 5]}, "resolution of .* three numbers"),
        ({"resolution": [5, 5, 5], "offset": [None, 0, 0]}, "offset of .* three numbers"),
        ({"resolution": [5, 5, 5], "unit": "furlong"}, "'furlong'"),
    ],
)
def test_places_that_cannot_be(array_with, attributes, message):
    with pytest.raises(DataError, match=message):
        array_with(attributes)


def test_the_centre_of_a_binned_voxel_means_its_corner(array_with, caplog):
    with caplog.at_level(logging.WARNING):
        volume = array_with({"resolution": [10, 10, 10], "offset": [2.5, 12.5, 22.5]})
    assert volume.offset_nm == (0, 10, 20)
    assert "centre before binning" in caplog.text


def test_a_stated_place_can_be_overridden(array_with):
    attributes = {"resolution": [5, 5, 5], "offset": [0, 8, 4]}
    volume = array_with(attributes, voxel_size=(4, 4, 4))
    assert volume.voxel_size == (4, 4, 4)
    assert tuple(volume.roi_voxels.begin) == (0, 2, 1)
    moved = volume.with_place(offset_nm=(40, 0, 0))
    assert tuple(moved.roi_voxels.begin) == (10, 0, 0)
    np.testing.assert_array_equal(moved.read_voxels(moved.roi_voxels), volume.read_voxels(volume.roi_voxels))
    with pytest.raises(DataError, match="multiples of the voxel size"):
        volume.with_place(offset_nm=(7, 0, 0))


def test_writing_off_the_grid_is_refused(tmp_path):
    asked = {"shape": (4, 4, 4), "dtype": "uint8", "voxel_size": (10, 10, 10)}
    for offset in ((3, 0, 0), (2.5, 2.5, 2.5)):
        with pytest.raises(DataError, match="multiples of the voxel size"):
            create_volume(tmp_path / "a.zarr/raw", offset_nm=offset, **asked)
    assert not (tmp_path / "a.zarr").exists()


def test_binned_volumes_of_one_file_are_spoken_of_in_the_same_words(caplog):
    for dataset in ("volumes/raw", "volumes/labels/mito"):
        place = on_grid(Place(("z", "y", "x"), (10.0,) * 3, (2.5,) * 3), f"/data/cell.h5/{dataset}")
        assert place.offset_nm == (0.0, 0.0, 0.0)
    first, second = (record.getMessage() for record in caplog.records)
    assert first == second
    assert first.startswith("/data/cell.h5: offset [2.5, 2.5, 2.5] nm")
