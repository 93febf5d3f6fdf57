"""N5: x, y, z on disk, z, y, x here."""

import json

import numpy as np
import pytest
import tensorstore as ts

from incasem.errors import DataError
from incasem.geometry import Roi
from incasem.volumes import create_volume, open_volume


def store(path, data_ZYX, attributes, block_XYZ=(4, 4, 4)):
    """An N5 dataset as other programs write it, through tensorstore's x, y, z view."""
    path.mkdir(parents=True)
    metadata = {
        "dimensions": list(data_ZYX.shape[::-1]),
        "blockSize": list(block_XYZ),
        "dataType": data_ZYX.dtype.name,
        "compression": {"type": "gzip"},
    }
    handle = ts.open(
        {"driver": "n5", "kvstore": {"driver": "file", "path": str(path)}, "metadata": metadata}, create=True
    ).result()
    handle.write(data_ZYX.T).result()
    stored = json.loads((path / "attributes.json").read_text())
    (path / "attributes.json").write_text(json.dumps(stored | attributes))
    return path


@pytest.fixture
def anisotropic_ZYX(rng):
    return rng.integers(0, 60000, (3, 6, 9), dtype=np.uint16)


def test_axes_are_presented_z_y_x(tmp_path, anisotropic_ZYX):
    attributes = {"resolution": [4, 5, 40], "offset": [8, 0, 80]}
    path = store(tmp_path / "export.n5/c1/s0", anisotropic_ZYX, attributes, block_XYZ=(4, 3, 2))
    volume = open_volume(path)
    assert volume.shape == (3, 6, 9)
    assert volume.chunk_shape == (2, 3, 4)
    assert volume.voxel_size == (40, 5, 4)
    assert volume.offset_nm == (80, 0, 8)
    assert volume.attributes == attributes
    np.testing.assert_array_equal(volume.read_voxels(volume.roi_voxels), anisotropic_ZYX)
    np.testing.assert_array_equal(
        volume.read_voxels(Roi((3, 1, 4), (2, 5, 3))), anisotropic_ZYX[1:3, 1:6, 2:5]
    )


@pytest.mark.parametrize(
    ("attributes", "group_attributes", "voxel_size", "offset_nm"),
    [
        ({"pixelResolution": {"dimensions": [4, 4, 2.96], "unit": "nm"}}, {}, (2.96, 4, 4), (0, 0, 0)),
        (
            {"pixelResolution": {"dimensions": [0.1, 0.2, 0.4], "unit": "um"},
             "downsamplingFactors": [4, 2, 1]}, {}, (400, 400, 400), (0, 0, 0),
        ),
        ({"downsamplingFactors": [2, 2, 1]}, {"pixelResolution": {"dimensions": [4, 4, 30], "unit": "nm"}},
         (30, 8, 8), (0, 0, 0)),
        ({"downsamplingFactors": [2, 2, 2]}, {"resolution": [4, 4, 4]}, (8, 8, 8), (0, 0, 0)),
        ({"resolution": [8, 8, 8], "downsamplingFactors": [2, 2, 2]}, {}, (8, 8, 8), (0, 0, 0)),
        ({"transform": {"axes": ["z", "y", "x"], "scale": [6, 4, 4], "translate": [12, 0, 8],
                        "units": ["nm", "nm", "nm"]}, "pixelResolution": [1, 1, 1]}, {},
         (6, 4, 4), (12, 0, 8)),
        ({"resolution": [4, 4, 4], "units": ["nm", "nm", "nm"]}, {}, (4, 4, 4), (0, 0, 0)),
    ],
)  # fmt: skip
def test_conventions(tmp_path, anisotropic_ZYX, attributes, group_attributes, voxel_size, offset_nm):
    path = store(tmp_path / "em.n5/c0/s1", anisotropic_ZYX, attributes)
    (path.parent / "attributes.json").write_text(json.dumps(group_attributes))
    volume = open_volume(path)
    assert volume.voxel_size == voxel_size
    assert volume.offset_nm == offset_nm


def test_an_older_way_to_state_the_compression(tmp_path, anisotropic_ZYX):
    path = store(tmp_path / "em.n5/raw", anisotropic_ZYX, {})
    stored = json.loads((path / "attributes.json").read_text())
    del stored["compression"]
    (path / "attributes.json").write_text(json.dumps(stored | {"compressionType": "gzip"}))
    volume = open_volume(path)
    np.testing.assert_array_equal(volume.read_voxels(volume.roi_voxels), anisotropic_ZYX)


def test_others_read_what_is_written(tmp_path, make_volume, anisotropic_ZYX):
    for compression in ("default", "none", "gzip", "zstd"):
        volume = make_volume(
            tmp_path, "n5", anisotropic_ZYX, (2, 3, 4), dataset=f"c1/{compression}", voxel_size=(40, 4, 4.5),
            offset_nm=(80, 0, 9), compression=compression,
        )  # fmt: skip
        stored = json.loads((tmp_path / "cell.n5/c1" / compression / "attributes.json").read_text())
        assert stored["dimensions"] == [9, 6, 3]
        assert stored["blockSize"] == [4, 3, 2]
        assert stored["resolution"] == [4.5, 4, 40]
        assert stored["offset"] == [9, 0, 80]
        spec = {"driver": "n5", "kvstore": {"driver": "file", "path": volume.path}}
        np.testing.assert_array_equal(ts.open(spec).result().read().result().T, anisotropic_ZYX)
    assert json.loads((tmp_path / "cell.n5/attributes.json").read_text()) == {"n5": "2.0.0"}


def test_channels_come_last_on_disk(tmp_path, make_volume, rng):
    data = rng.random((2, 3, 4, 5), dtype=np.float32)
    volume = make_volume(tmp_path, "n5", data)
    stored = json.loads((tmp_path / "cell.n5/volumes/raw/attributes.json").read_text())
    assert stored["dimensions"] == [5, 4, 3, 2]
    again = open_volume(volume.path)
    assert again.voxel_size == (5, 5, 5)
    np.testing.assert_array_equal(again.read_voxels(again.roi_voxels), data)


def test_what_n5_cannot_hold(tmp_path, make_volume, anisotropic_ZYX):
    with pytest.raises(DataError, match="bool"):
        create_volume(tmp_path / "a.n5/mask", shape=(4, 4, 4), dtype="bool", voxel_size=(4, 4, 4))
    volume = make_volume(tmp_path, "n5", anisotropic_ZYX)
    with pytest.raises(DataError, match=r"'dimensions'.*describes the array"):
        volume.set_attributes(dimensions=[1, 2, 3])
    assert open_volume(volume.path).shape == (3, 6, 9)
