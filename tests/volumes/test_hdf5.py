"""HDF5 datasets: CREMI layout, real files, refusals."""

import os
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from incasem.errors import DataError
from incasem.volumes import create_volume, list_datasets, open_volume

DATA = Path(__file__).parents[3] / "shared/data"


def store(path, data, **attributes):
    with h5py.File(path, "a") as file:
        made = file.create_dataset("volumes/raw", data=data)
        made.attrs.update(attributes)
    return f"{path}/volumes/raw"


@pytest.mark.parametrize(
    ("attributes", "voxel_size", "offset_nm"),
    [
        ({"resolution": (40.0, 4.0, 4.0), "offset": (80.0, 0.0, 4.0)}, (40, 4, 4), (80, 0, 4)),
        ({"resolution": (1.75, 0.8, 0.8), "unit": "um"}, (1750, 800, 800), (0, 0, 0)),
        ({"element_size_um": (0.25, 0.1, 0.1)}, (250, 100, 100), (0, 0, 0)),
    ],
)
def test_places(tmp_path, grey_ZYX, attributes, voxel_size, offset_nm):
    volume = open_volume(store(tmp_path / "data.h5", grey_ZYX, **attributes))
    assert volume.voxel_size == voxel_size
    assert volume.offset_nm == offset_nm
    np.testing.assert_array_equal(volume.read_voxels(volume.roi_voxels), grey_ZYX)
    assert volume.missing_chunks() == []


def test_other_byte_order(tmp_path, grey_ZYX):
    volume = open_volume(store(tmp_path / "data.h5", grey_ZYX.astype(">u2"), resolution=(4, 4, 4)))
    result = volume.read_voxels(volume.roi_voxels)
    assert result.dtype == volume.dtype == np.dtype("uint16")
    assert result.dtype.isnative
    np.testing.assert_array_equal(result, grey_ZYX)


@pytest.mark.parametrize(
    ("file", "voxel_size", "offset_nm", "shape"),
    [
        ("cdeep3m_sbem_mito_5.9x5.9x40nm_open.h5", (40, 5.9, 5.9), (720, 0, 0), (12, 576, 576)),
        ("epfl_ca1_mito_10nm_open.h5", (10, 10, 10), (0, 0, 0), (82, 384, 512)),
        ("vnc_drosophila_ssTEM_4.6x4.6x50nm_open.h5", (50, 4.6, 4.6), (0, 588.8, 1177.6), (11, 640, 640)),
    ],
)
def test_real_files(file, voxel_size, offset_nm, shape):
    if not (DATA / file).exists():
        pytest.skip(f"{DATA / file} is missing")
    assert "volumes/labels/mito" in list_datasets(DATA / file)
    raw, labels = (open_volume(DATA / file / f"volumes/{name}") for name in ("raw", "labels/mito"))
    assert raw.voxel_size == voxel_size
    assert raw.offset_nm == pytest.approx(offset_nm)
    assert raw.shape == shape
    assert raw.roi == labels.roi
    corner = raw.read_voxels(raw.roi_voxels.grow(-np.array(raw.shape) // 4, -np.array(raw.shape) // 4))
    with h5py.File(DATA / file) as opened:
        expected = opened["volumes/raw"][tuple(slice(-(-n // 4), n + (-n // 4)) for n in shape)]
    np.testing.assert_array_equal(corner, expected)


def test_a_file_in_use_by_a_writer_is_named(tmp_path, make_volume, grey_ZYX):
    volume = make_volume(tmp_path, "hdf5", grey_ZYX)
    assert not volume.concurrent_writers
    path = str(tmp_path / "cell.h5")
    code = (
        "import h5py, sys, time; f = h5py.File(sys.argv[1], 'r+'); print('open', flush=True); time.sleep(60)"
    )
    environment = os.environ | {"HDF5_USE_FILE_LOCKING": "TRUE"}
    holder = subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE, env=environment)
    try:
        assert holder.stdout.readline() == b"open\n"
        with pytest.raises(DataError, match=r"cell\.h5 is in use by another process.*one writer"):
            volume.write_voxels(volume.roi_voxels, grey_ZYX)
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    volume.write_voxels(volume.roi_voxels, grey_ZYX)


def test_files_that_cannot_be_read(tmp_path, grey_ZYX):
    text = tmp_path / "text.h5"
    text.write_text("no HDF5")
    with pytest.raises(DataError, match=r"text\.h5 cannot be opened as HDF5"):
        open_volume(f"{text}/raw")
    path = store(tmp_path / "cut.h5", np.zeros((40, 100, 100), dtype=np.uint8), resolution=(4, 4, 4))
    volume = open_volume(path)
    os.truncate(tmp_path / "cut.h5", 100_000)
    with pytest.raises(DataError, match=r"cut\.h5.*truncated"):
        volume.read_voxels(volume.roi_voxels)
    with h5py.File(tmp_path / "names.h5", "w") as file:
        file["names"] = np.array([[[b"a"]]])
    with pytest.raises(DataError, match=r"dtype of .*names\.h5/names"):
        open_volume(tmp_path / "names.h5/names")


def test_what_hdf5_cannot_do(tmp_path):
    asked = {"shape": (4, 4, 4), "dtype": "uint8", "voxel_size": (4, 4, 4)}
    with pytest.raises(DataError, match="compression of an HDF5 dataset is lz4"):
        create_volume(tmp_path / "a.h5/raw", compression="lz4", **asked)
    with pytest.raises(DataError, match=r"names no dataset"):
        create_volume(tmp_path / "a.h5", **asked)
    create_volume(tmp_path / "a.h5/volumes/raw", **asked)
    with pytest.raises(DataError, match=r"a\.h5/volumes cannot be created"):
        create_volume(tmp_path / "a.h5/volumes", **asked)


def test_the_fingerprint_changes_with_the_file(tmp_path, make_volume, grey_ZYX):
    volume = make_volume(tmp_path, "hdf5", grey_ZYX)
    before = volume.fingerprint()
    time.sleep(0.02)
    volume.write_voxels(volume.roi_voxels, grey_ZYX[::-1].copy())
    assert volume.fingerprint() != before
