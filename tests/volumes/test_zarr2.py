"""Zarr v2: arrays as the published pipeline and others wrote them, and what we write, read by others."""

import json

import numpy as np
import pytest

from incasem.errors import DataError
from incasem.geometry import Roi
from incasem.volumes import create_volume, list_datasets, open_volume

PLACE = {"offset": [10, 20, 30], "resolution": [5, 5, 5]}


@pytest.fixture
def numcodecs():
    return pytest.importorskip("numcodecs")


def assert_reads(path, data, offset=(2, 4, 6)):
    volume = open_volume(path)
    assert tuple(volume.roi_voxels.begin) == offset
    np.testing.assert_array_equal(volume.read_voxels(volume.roi_voxels), data)
    return volume


def test_published_formatted_data(tmp_path, zarr_array, numcodecs, grey_ZYX):
    path = tmp_path / "cell.zarr/volumes/raw"
    zarr_array(
        path, grey_ZYX, PLACE, chunks=(4, 4, 4), dimension_separator="/", compressor=numcodecs.Zlib(level=3)
    )
    volume = assert_reads(path, grey_ZYX)
    assert volume.voxel_size == (5, 5, 5)
    assert volume.attributes == PLACE
    assert (path / "0/0/0").is_file()


def test_published_predictions(tmp_path, zarr_array, numcodecs, rng):
    data = rng.integers(0, 3, (9, 9, 9), dtype=np.uint32)
    path = tmp_path / "cell.zarr/volumes/predictions/train_1841/predict_0001/segmentation"
    blosc = numcodecs.Blosc(cname="lz4", clevel=5, shuffle=1)
    zarr_array(path, data, PLACE, chunks=(5, 5, 5), dimension_separator=".", compressor=blosc)
    assert (path / "0.0.0").is_file()
    assert_reads(path, data)
    assert list_datasets(tmp_path / "cell.zarr") == [
        "volumes/predictions/train_1841/predict_0001/segmentation"
    ]


def test_a_nested_array_that_does_not_state_its_separator(tmp_path, zarr_array, grey_ZYX):
    path = zarr_array(tmp_path / "a.zarr/raw", grey_ZYX, PLACE, chunks=(4, 4, 4), dimension_separator="/")
    metadata = json.loads((path / ".zarray").read_text())
    del metadata["dimension_separator"]
    (path / ".zarray").write_text(json.dumps(metadata))
    assert_reads(path, grey_ZYX)


@pytest.mark.parametrize(
    ("name", "settings"),
    [("Zstd", {"level": 1, "checksum": True}), ("GZip", {"level": 3}), ("BZ2", {"level": 1}), (None, {})],
)
def test_codecs_of_others(tmp_path, zarr_array, numcodecs, grey_ZYX, name, settings):
    compressor = getattr(numcodecs, name)(**settings) if name else None
    path = zarr_array(tmp_path / "a.zarr/raw", grey_ZYX, PLACE, chunks=(4, 4, 4), compressor=compressor)
    assert_reads(path, grey_ZYX)


def test_an_array_with_zstd_checksums_is_extended_in_its_own_codec(tmp_path, zarr_array, numcodecs, grey_ZYX):
    zarr = pytest.importorskip("zarr")
    path = zarr_array(
        tmp_path / "a.zarr/raw", grey_ZYX, PLACE, chunks=(4, 4, 4),
        compressor=numcodecs.Zstd(level=1, checksum=True),
    )  # fmt: skip
    volume = open_volume(path, writable=True)
    volume.write_voxels(volume.roi_voxels, grey_ZYX[::-1].copy())
    np.testing.assert_array_equal(zarr.open(str(path), mode="r")[...], grey_ZYX[::-1])


@pytest.mark.parametrize("dtype", ["uint16", ">u2", "float32", "bool", "int64"])
def test_dtypes_and_orders_of_others(tmp_path, zarr_array, grey_ZYX, dtype):
    data = (grey_ZYX > 100).astype(dtype) if dtype == "bool" else grey_ZYX.astype(dtype)
    path = zarr_array(tmp_path / "a.zarr/raw", data, PLACE, chunks=(4, 4, 4), order="F")
    volume = assert_reads(path, data)
    assert volume.dtype == data.dtype.newbyteorder("=")


def test_filters_are_refused(tmp_path, zarr_array, numcodecs, grey_ZYX):
    path = zarr_array(
        tmp_path / "a.zarr/raw", grey_ZYX, PLACE, chunks=(4, 4, 4), filters=[numcodecs.Delta(dtype="u1")]
    )
    with pytest.raises(DataError, match=r"a\.zarr/raw cannot be opened.*filters"):
        open_volume(path)


def test_zarr_python_reads_what_is_written(tmp_path, make_volume, grey_ZYX):
    zarr = pytest.importorskip("zarr")
    for compression in ("default", "none", "lz4", "zstd", "zlib", "gzip"):
        volume = make_volume(tmp_path, "zarr2", grey_ZYX, dataset=compression, compression=compression)
        array = zarr.open(volume.path, mode="r")
        np.testing.assert_array_equal(array[...], grey_ZYX)
        assert array.chunks == (4, 4, 4)
        assert array.attrs["offset"] == [0, 0, 0]
        assert array.attrs["resolution"] == [5, 5, 5]
    group = zarr.open_group(str(tmp_path / "cell.zarr"), mode="r")
    np.testing.assert_array_equal(group["default"][...], grey_ZYX)


def test_layout_on_disk(tmp_path, grey_ZYX):
    volume = create_volume(
        tmp_path / "cell.zarr/volumes/labels/mito", shape=(4, 4, 4), dtype="uint32", voxel_size=(4, 4.6, 5.0),
        offset_nm=(8, 0, 0),
    )  # fmt: skip
    volume.write_voxels(Roi((2, 0, 0), (4, 4, 4)), np.zeros((4, 4, 4), dtype=np.uint32))
    metadata = json.loads((tmp_path / "cell.zarr/volumes/labels/mito/.zarray").read_text())
    assert metadata["dimension_separator"] == "/"
    assert metadata["compressor"]["id"] == "blosc"
    assert metadata["compressor"]["cname"] == "zstd"
    attributes = (tmp_path / "cell.zarr/volumes/labels/mito/.zattrs").read_text()
    assert '"offset": [\n        8,\n        0,\n        0\n    ]' in attributes  # whole numbers are ints
    assert json.loads(attributes)["resolution"] == [4, 4.6, 5]
    for group in ("", "volumes", "volumes/labels"):
        assert json.loads((tmp_path / "cell.zarr" / group / ".zgroup").read_text()) == {"zarr_format": 2}
    assert (tmp_path / "cell.zarr/volumes/labels/mito/0/0/0").is_file()


def test_damaged_metadata_is_named(tmp_path, make_volume, grey_ZYX):
    volume = make_volume(tmp_path, "zarr2", grey_ZYX)
    file = tmp_path / "cell.zarr/volumes/raw/.zarray"
    whole = file.read_text()
    file.write_text(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"raw/\.zarray is damaged: not valid JSON"):
        open_volume(volume.path)
    file.write_text("{}")
    with pytest.raises(DataError, match=r"it lacks shape, chunks, dtype"):
        open_volume(volume.path)
