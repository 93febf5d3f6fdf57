"""Zarr v3, read back by another implementation."""

import json

import numpy as np
import pytest

from incasem.errors import DataError
from incasem.volumes import create_volume, open_volume

READ = """
import sys, numpy, zarr
array = zarr.open_array(sys.argv[1], mode="r")
expected = numpy.load(sys.argv[2])
assert (array[...] == expected).all(), "other values"
assert array.dtype == expected.dtype
metadata = array.metadata
print(metadata.zarr_format, array.chunks, array.shards, array.attrs["offset"], metadata.dimension_names)
"""

WRITE = """
import sys, numpy, zarr
data = numpy.load(sys.argv[2])
array = zarr.create_array(
    sys.argv[1], shape=data.shape, dtype=data.dtype, chunks=(4, 4, 4), shards=(8, 8, 8), fill_value=0,
    attributes={"offset": [10, 0, 0], "resolution": [5, 5, 5]},
)
array[...] = data
"""


@pytest.mark.parametrize("compression", ["default", "none", "zstd", "gzip"])
@pytest.mark.parametrize("format_name", ["zarr3", "sharded"])
def test_zarr_python_3_reads_what_is_written(
    tmp_path, make_volume, reader, grey_ZYX, format_name, compression
):
    volume = make_volume(tmp_path, format_name, grey_ZYX, offset_nm=(10, 0, 0), compression=compression)
    np.save(tmp_path / "expected.npy", grey_ZYX)
    told = reader("python", "-c", READ, volume.path, tmp_path / "expected.npy")
    shards = "(8, 8, 8)" if format_name == "sharded" else "None"
    assert told.strip() == f"3 (4, 4, 4) {shards} [10, 0, 0] ('z', 'y', 'x')"


def test_what_zarr_python_3_writes_is_read(tmp_path, reader, rng):
    data = rng.integers(0, 1000, (9, 10, 11), dtype=np.uint16)
    np.save(tmp_path / "data.npy", data)
    reader("python", "-c", WRITE, tmp_path / "a.zarr", tmp_path / "data.npy")
    volume = open_volume(tmp_path / "a.zarr")
    assert volume.write_shape == (8, 8, 8)
    assert tuple(volume.roi_voxels.begin) == (2, 0, 0)
    np.testing.assert_array_equal(volume.read_voxels(volume.roi_voxels), data)


def test_the_format_of_a_container_is_kept(tmp_path):
    first = {"shape": (4, 4, 4), "dtype": "uint8", "voxel_size": (5, 5, 5)}
    create_volume(tmp_path / "a.zarr/raw", zarr_format=3, **first)
    create_volume(tmp_path / "a.zarr/labels/mito", **first)
    assert json.loads((tmp_path / "a.zarr/labels/mito/zarr.json").read_text())["zarr_format"] == 3
    assert json.loads((tmp_path / "a.zarr/labels/zarr.json").read_text())["node_type"] == "group"
    with pytest.raises(DataError, match=r"zarr_format is 2, but .* is Zarr v3"):
        create_volume(tmp_path / "a.zarr/mask", zarr_format=2, **first)
    create_volume(tmp_path / "b.zarr/raw", **first)
    with pytest.raises(DataError, match=r"zarr_format is 3, but .* is Zarr v2"):
        create_volume(tmp_path / "b.zarr/mask", zarr_format=3, **first)


def test_shards_are_multiples_of_chunks_and_need_version_3(tmp_path):
    asked = {"shape": (9, 9, 9), "dtype": "uint8", "voxel_size": (5, 5, 5), "chunk_shape": (4, 4, 4)}
    with pytest.raises(DataError, match=r"shard shape.*multiples of the chunk shape \(4, 4, 4\)"):
        create_volume(tmp_path / "a.zarr/raw", zarr_format=3, shard_shape=(6, 8, 8), **asked)
    for path in ("b.zarr/raw", "c.n5/raw", "d.h5/raw"):
        with pytest.raises(DataError, match="shards need"):
            create_volume(tmp_path / path, shard_shape=(8, 8, 8), **asked)
    assert not list(tmp_path.glob("*/*"))
