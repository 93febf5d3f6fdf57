"""Opening and creating: what exists, what is missing, what differs."""

import json
import threading

import numpy as np
import pytest

from incasem.errors import DataError
from incasem.volumes import create_volume, exists, list_datasets, open_volume

ASKED = {"shape": (8, 8, 8), "dtype": "uint8", "voxel_size": (5, 5, 5), "chunk_shape": (4, 4, 4)}


@pytest.mark.parametrize("path", ["a.zarr/volumes/raw", "a.n5/c1/s0", "a.h5/raw"])
def test_an_existing_dataset_is_kept(tmp_path, path):
    volume = create_volume(tmp_path / path, **ASKED)
    data = np.full((8, 8, 8), 3, dtype=np.uint8)
    volume.write_voxels(volume.roi_voxels, data)
    with pytest.raises(DataError, match=r"exists. Choose another name"):
        create_volume(tmp_path / path, **ASKED)
    again = create_volume(tmp_path / path, existing="resume", **ASKED)
    np.testing.assert_array_equal(again.read_voxels(again.roi_voxels), data)


@pytest.mark.parametrize("path", ["a.zarr/volumes/raw", "a.n5/c1/s0", "a.h5/raw"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": (8, 8, 9)}, r"shape is \(8, 8, 8\), wanted \(8, 8, 9\)"),
        ({"dtype": "uint16"}, "dtype is uint8, wanted uint16"),
        ({"voxel_size": (4, 4, 4)}, "voxel size is"),
        ({"offset_nm": (5, 0, 0)}, r"offset is \(0.0, 0.0, 0.0\), wanted \(5.0, 0.0, 0.0\)"),
        ({"chunk_shape": (4, 4, 8)}, r"chunk shape is \(4, 4, 4\), wanted \(4, 4, 8\)"),
    ],
)
def test_a_dataset_that_differs_is_not_resumed(tmp_path, path, change, message):
    create_volume(tmp_path / path, **ASKED)
    with pytest.raises(DataError, match=message):
        create_volume(tmp_path / path, existing="resume", **(ASKED | change))


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_refusal_leaves_the_groups_above_as_they_are(tmp_path, zarr_format):
    create_volume(tmp_path / "a.zarr/volumes/raw", zarr_format=zarr_format, **ASKED)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(DataError, match="voxel size is"):
        create_volume(
            tmp_path / "a.zarr/volumes/raw", existing="resume", **(ASKED | {"voxel_size": (4, 4, 4)})
        )
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_creation_that_was_cut_short_is_done_again(tmp_path):
    create_volume(tmp_path / "a.zarr/volumes/raw", **ASKED)
    (tmp_path / "a.zarr/volumes/raw/.zarray").unlink()
    (tmp_path / "a.zarr/volumes/.zattrs").unlink()
    assert not exists(tmp_path / "a.zarr/volumes/raw")
    create_volume(tmp_path / "a.zarr/volumes/raw", existing="resume", **ASKED)
    (tmp_path / "a.zarr/volumes/.zattrs").unlink()
    create_volume(tmp_path / "a.zarr/volumes/raw", existing="resume", **ASKED)
    assert "multiscales" in json.loads((tmp_path / "a.zarr/volumes/.zattrs").read_text())


def test_leftover_chunks_do_not_become_data(tmp_path):
    volume = create_volume(tmp_path / "a.zarr/raw", **ASKED)
    volume.write_voxels(volume.roi_voxels, np.ones((8, 8, 8), dtype=np.uint8))
    (tmp_path / "a.zarr/raw/.zarray").unlink()
    with pytest.raises(DataError, match="a directory that holds 0, 1"):
        create_volume(tmp_path / "a.zarr/raw", **ASKED)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_arrays_do_not_take_the_place_of_groups_or_lie_in_arrays(tmp_path, zarr_format):
    asked = ASKED | {"zarr_format": zarr_format}
    create_volume(tmp_path / "a.zarr/volumes/raw", **asked)
    with pytest.raises(DataError, match="a directory that holds raw"):
        create_volume(tmp_path / "a.zarr/volumes", **asked)
    with pytest.raises(DataError, match="is a dataset, not a group"):
        create_volume(tmp_path / "a.zarr/volumes/raw/more", **asked)


def test_a_container_can_be_the_array(tmp_path, format_name):
    if format_name == "hdf5":
        pytest.skip("an HDF5 file holds datasets by name")
    suffix = "n5" if format_name == "n5" else "zarr"
    arguments = {"zarr_format": 3} if format_name in ("zarr3", "sharded") else {}
    volume = create_volume(tmp_path / f"a.{suffix}", **ASKED, **arguments)
    assert open_volume(volume.path).voxel_size == (5, 5, 5)


def test_missing_datasets_name_what_is_there(tmp_path, make_volume, grey_ZYX, format_name):
    path = make_volume(tmp_path, format_name, grey_ZYX).path
    make_volume(tmp_path, format_name, grey_ZYX, dataset="volumes/labels/mito")
    with pytest.raises(DataError) as failure:
        open_volume(path.replace("raw", "rawe"))
    assert "Datasets in this file: volumes/labels/mito, volumes/raw" in str(failure.value)
    assert "Did you mean 'volumes/raw'?" in str(failure.value)
    with pytest.raises(
        DataError, match=r"is a group, not a dataset. Datasets in this file: volumes/labels/mito"
    ):
        open_volume(path.replace("/raw", ""))


def test_missing_containers_name_near_matches(tmp_path, make_volume, grey_ZYX):
    make_volume(tmp_path, "zarr2", grey_ZYX)
    with pytest.raises(DataError, match=r"cel\.zarr does not exist.*Did you mean 'cell\.zarr'"):
        open_volume(tmp_path / "cel.zarr/volumes/raw")
    (tmp_path / "notes").mkdir()
    with pytest.raises(DataError, match="holds no dataset that can be read"):
        open_volume(tmp_path / "notes")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": (8, 8)}, "2 dimensions"),
        ({"shape": (8, 0, 8)}, "shape of .* positive"),
        ({"chunk_shape": (4, 4)}, "chunk shape of .* 3 numbers"),
        ({"voxel_size": (5, 5, 0)}, "positive numbers"),
        ({"axes": ("x", "y", "z")}, "axes of .*Transpose"),
        ({"compression": "zst"}, "compression is 'zst'.*Did you mean 'zstd'"),
        ({"zarr_format": 4}, "zarr_format is 4"),
    ],
)
def test_impossible_requests(tmp_path, change, message):
    with pytest.raises(DataError, match=message):
        create_volume(tmp_path / "a.zarr/raw", **(ASKED | change))
    assert not exists(tmp_path / "a.zarr/raw")


def test_arrays_created_at_the_same_time_are_all_listed(tmp_path):
    names = [f"class_{i}" for i in range(8)]
    threads = [
        threading.Thread(target=create_volume, args=(tmp_path / "a.zarr/prob_maps" / name,), kwargs=ASKED)
        for name in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    images = json.loads((tmp_path / "a.zarr/prob_maps/.zattrs").read_text())["multiscales"]
    assert sorted(image["name"] for image in images) == names


def test_urls_are_opened_to_read(tmp_path, make_volume, grey_ZYX):
    for format_name in ("zarr2", "sharded", "n5"):
        volume = make_volume(tmp_path / format_name, format_name, grey_ZYX, offset_nm=(10, 0, 0))
        url = f"file://{volume.path}"
        remote = open_volume(url)
        assert remote.offset_nm == (10, 0, 0)
        np.testing.assert_array_equal(remote.read_voxels(remote.roi_voxels), grey_ZYX)
        with pytest.raises(DataError, match="cannot be opened for writing"):
            open_volume(url, writable=True)
        with pytest.raises(DataError, match="is remote"):
            remote.missing_chunks()
        with pytest.raises(DataError, match="holds no array"):
            open_volume(url + "e")
    with pytest.raises(DataError, match="remote stores are read-only"):
        create_volume(f"file://{tmp_path}/b.zarr/raw", **ASKED)
    with pytest.raises(DataError, match="cannot be read"):
        open_volume("nowhere://bucket/a.zarr/raw")


@pytest.mark.parametrize("format_name", ["zarr2", "zarr3", "n5", "hdf5"])
def test_a_group_with_levels_stands_for_its_finest_one(tmp_path, make_volume, grey_ZYX, format_name):
    fine = make_volume(tmp_path, format_name, grey_ZYX, dataset="em/s0")
    make_volume(
        tmp_path, format_name, grey_ZYX[::2, ::2, ::2].copy(), dataset="em/s1", voxel_size=(10, 10, 10)
    )
    group = fine.path.removesuffix("/s0")
    assert exists(group)
    np.testing.assert_array_equal(open_volume(group).read_voxels(fine.roi_voxels), grey_ZYX)
    make_volume(tmp_path, format_name, grey_ZYX, dataset="other/raw")
    with pytest.raises(DataError, match="is a group, not a dataset"):
        open_volume(group.removesuffix("em") + "other")


def test_an_ome_zarr_image_stands_for_its_finest_level(tmp_path, make_volume, grey_ZYX):
    make_volume(tmp_path, "zarr2", grey_ZYX, dataset="image/0")
    assert not exists(tmp_path / "cell.zarr")
    np.testing.assert_array_equal(
        open_volume(tmp_path / "cell.zarr/image").read_voxels(
            open_volume(tmp_path / "cell.zarr/image/0").roi_voxels
        ),
        grey_ZYX,
    )


def test_what_is_hidden_is_not_listed(tmp_path, make_volume, grey_ZYX):
    make_volume(tmp_path, "zarr2", grey_ZYX)
    make_volume(tmp_path, "zarr2", grey_ZYX, dataset="volumes/.raw.pyramid/s1")
    assert list_datasets(tmp_path / "cell.zarr") == ["volumes/raw"]
