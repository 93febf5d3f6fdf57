"""What tensorstore must not let through: torn chunks, forks, failed writes, stale caches."""

import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest

from incasem.errors import DataError
from incasem.geometry import Roi
from incasem.volumes import open_volume

# The file of the chunk (shard) that holds the last voxel.
LAST = {"zarr2": "2/2/2", "zarr3": "c/2/2/2", "sharded": "c/1/1/1", "n5": "2/2/2"}


@pytest.mark.parametrize("format_name", LAST)
@pytest.mark.parametrize("damage", ["cut", "empty", "noise"])
def test_a_torn_chunk_is_named_with_its_region(tmp_path, make_volume, grey_ZYX, format_name, damage):
    volume = make_volume(tmp_path, format_name, grey_ZYX, offset_nm=(5, 0, 0))
    file = Path(volume.path) / LAST[format_name]
    whole = file.read_bytes()
    file.write_bytes({"cut": whole[: len(whole) // 2], "empty": b"", "noise": bytes(len(whole))}[damage])
    with pytest.raises(DataError) as failure:
        volume.read_voxels(volume.roi_voxels)
    assert f"the chunk file {file}" in str(failure.value)
    assert "[8:9, 8:10, 8:11]" in str(failure.value)
    assert "damaged" in str(failure.value)
    part = Roi((1, 0, 0), (8, 8, 8))
    np.testing.assert_array_equal(volume.read_voxels(part), grey_ZYX[:8, :8, :8])
    volume.write_voxels(volume.roi_voxels, grey_ZYX)
    np.testing.assert_array_equal(volume.read_voxels(volume.roi_voxels), grey_ZYX)


def test_a_deleted_chunk_is_listed(tmp_path, make_volume, grey_ZYX):
    volume = make_volume(tmp_path, "zarr2", grey_ZYX, offset_nm=(5, 0, 0))
    (Path(volume.path) / "1/0/2").unlink()
    assert volume.missing_chunks() == [Roi((5, 0, 8), (4, 4, 3))]
    assert not volume.read_voxels(Roi((5, 0, 8), (4, 4, 3))).any()


def test_a_failed_write_names_the_volume(tmp_path, make_volume, grey_ZYX):
    volume = make_volume(tmp_path, "zarr2", grey_ZYX)
    (Path(volume.path) / "0/0/0").unlink()
    (Path(volume.path) / "0/0/0").mkdir()  # in the way of the new file
    with pytest.raises(DataError, match=r"cell\.zarr/volumes/raw: voxels .* cannot be written"):
        volume.write_voxels(volume.roi_voxels, grey_ZYX)


def test_a_cache_sees_writes_of_other_handles(tmp_path, make_volume, grey_ZYX):
    writer = make_volume(tmp_path, "zarr2", grey_ZYX)
    cached = open_volume(writer.path, cache_bytes=1 << 20)
    for _ in range(2):
        np.testing.assert_array_equal(cached.read_voxels(cached.roi_voxels), grey_ZYX)
    writer.write_voxels(writer.roi_voxels, grey_ZYX[::-1].copy())
    np.testing.assert_array_equal(cached.read_voxels(cached.roi_voxels), grey_ZYX[::-1])


def _read_in_child(volume, results):
    try:
        volume.read_voxels(volume.roi_voxels)
        results.put("read")
    except RuntimeError as error:
        results.put(str(error))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_is_refused_rather_than_killed(tmp_path, make_volume, grey_ZYX):
    if os.name != "posix":
        pytest.skip("no fork here")
    volume = make_volume(tmp_path, "zarr2", grey_ZYX)
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    child = context.Process(target=_read_in_child, args=(volume, results))
    child.start()
    assert "by spawn" in results.get(timeout=30)
    child.join(timeout=30)
    assert child.exitcode == 0
