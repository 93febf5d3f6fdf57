from pathlib import Path

import pytest

from incasem.volumes import exists, list_datasets, split_path
from incasem.volumes.paths import find_format


@pytest.mark.parametrize(
    ("path", "container", "dataset"),
    [
        ("cell.zarr/volumes/raw", "cell.zarr", "volumes/raw"),
        ("/data/cell.zarr/", "/data/cell.zarr", ""),
        ("/data/cell.zarr//volumes//raw/", "/data/cell.zarr", "volumes/raw"),
        ("export.n5/c1/s0", "export.n5", "c1/s0"),
        ("data.h5/raw", "data.h5", "raw"),
        ("DATA.HDF5/raw", "DATA.HDF5", "raw"),
        ("stack_dir/", "stack_dir", ""),
        ("stack.tif", "stack.tif", ""),
        ("archive.zarr/old.n5/raw", "archive.zarr/old.n5", "raw"),
        (Path("cell.zarr/raw"), "cell.zarr", "raw"),
    ],
)
def test_split(path, container, dataset):
    assert split_path(path) == (Path(container), dataset)


def test_containers_without_a_suffix_are_recognised_by_what_lies_there(tmp_path, make_volume, grey_ZYX):
    volume = make_volume(tmp_path, "zarr2", grey_ZYX)
    renamed = tmp_path / "cell"
    Path(volume.path).parents[1].rename(renamed)
    assert split_path(renamed / "volumes/raw") == (renamed, "volumes/raw")
    assert find_format(renamed / "volumes/raw") == "zarr2"


def test_exists_means_an_array(tmp_path, make_volume, grey_ZYX, format_name):
    volume = make_volume(tmp_path, format_name, grey_ZYX)
    assert exists(volume.path)
    assert not exists(Path(volume.path).parent)
    assert not exists(volume.path + "e")
    assert not exists(tmp_path / "other.zarr/raw")


def test_datasets_are_listed_in_natural_order(tmp_path, make_volume, grey_ZYX, format_name):
    for name in ("class_10", "class_2", "raw"):
        path = make_volume(tmp_path, format_name, grey_ZYX, dataset=f"volumes/{name}").path
    (container, _) = split_path(path)
    assert list_datasets(container) == ["volumes/class_2", "volumes/class_10", "volumes/raw"]
    assert list_datasets(container / "volumes") == ["class_2", "class_10", "raw"]
    assert list_datasets(path) == [""]
    assert list_datasets(tmp_path / "missing.zarr") == []
    assert list_datasets(tmp_path / "missing.h5") == []
