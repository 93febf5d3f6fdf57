"""What the words after -d mean."""

import json

import numpy as np
import pytest

from incasem.errors import ConfigError, DataError
from incasem.viewing import find_datasets, open_pyramid
from incasem.viewing.datasets import parse_word
from incasem.volumes import create_volume


def make(path, shape=(8, 8, 8), **arguments):
    arguments = {"dtype": "uint8", "voxel_size": (5, 5, 5), "chunk_shape": (4, 4, 4)} | arguments
    return create_volume(path, shape=shape, **arguments)


@pytest.fixture(params=["zarr", "h5", "n5"])
def cell(request, tmp_path):
    path = tmp_path / f"cell.{request.param}"
    for name in ("volumes/raw", "volumes/labels/er", "volumes/labels/mito"):
        make(path / name)
    for level, size in enumerate((8, 4, 2)):
        make(path / f"volumes/fine/s{level}", (size,) * 3, voxel_size=(5 * 2**level,) * 3)
    return str(path)


def names(found):
    return [dataset.name for dataset in found]


def test_an_array_with_and_without_a_leading_slash(cell):
    for word in ("volumes/raw", "/volumes/raw", "volumes/raw/"):
        (found,) = find_datasets(cell, word)
        assert found.name == "volumes/raw"
        assert found.levels == (f"{cell}/volumes/raw",)
        assert open_pyramid(found).roi_voxels.shape == (8, 8, 8)


def test_a_group_stands_for_all_arrays_below_it(cell):
    assert names(find_datasets(cell, "volumes/labels")) == ["volumes/labels/er", "volumes/labels/mito"]


def test_nothing_stands_for_everything_and_levels_are_one(cell):
    found = find_datasets(cell)
    assert names(found) == ["volumes/fine", "volumes/labels/er", "volumes/labels/mito", "volumes/raw"]
    assert [level.rsplit("/", 1)[1] for level in found[0].levels] == ["s0", "s1", "s2"]


def test_a_group_of_levels_is_one_array(cell):
    (found,) = find_datasets(cell, "volumes/fine")
    pyramid = open_pyramid(found)
    assert [level.factor for level in pyramid.levels] == [(1, 1, 1), (2, 2, 2), (4, 4, 4)]
    assert pyramid.voxel_size == (5, 5, 5)


def test_one_level_may_be_named(cell):
    (found,) = find_datasets(cell, "volumes/fine/s1")
    assert found.levels == (f"{cell}/volumes/fine/s1",)


def test_ten_levels_are_in_the_order_of_their_numbers(tmp_path):
    for level in range(11):
        make(tmp_path / f"a.zarr/raw/s{level}", (1024 >> level, 1, 1), voxel_size=(2**level, 1, 1))
    (found,) = find_datasets(str(tmp_path / "a.zarr"), "raw")
    assert [path.rsplit("/s", 1)[1] for path in found.levels] == [str(n) for n in range(11)]


def test_numbers_are_levels_only_where_the_group_says_so(tmp_path):
    path = tmp_path / "a.zarr"
    for level in (0, 1):
        make(path / f"image/{level}", (8 >> level,) * 3, voxel_size=(5 * 2**level,) * 3)
        make(path / f"samples/{level}")
    (path / "samples/.zattrs").write_text("{}")
    datasets = [{"path": str(n), "coordinateTransformations": []} for n in (0, 1)]
    (path / "image/.zattrs").write_text(json.dumps({"multiscales": [{"datasets": datasets}]}))
    assert names(find_datasets(str(path))) == ["image", "samples/0", "samples/1"]


def test_what_is_missing_is_said_with_what_there_is(cell):
    with pytest.raises(DataError, match=r"volumes/raws.*Did you mean 'volumes/raw'"):
        find_datasets(cell, "volumes/raws")
    with pytest.raises(DataError, match="does not exist"):
        find_datasets(cell + "x", "volumes/raw")


def test_a_container_that_is_an_array(tmp_path):
    make(tmp_path / "raw.zarr")
    (found,) = find_datasets(str(tmp_path / "raw.zarr"))
    assert (found.name, found.levels) == ("", (str(tmp_path / "raw.zarr"),))


@pytest.mark.parametrize(
    ("word", "name", "selection"),
    [
        ("volumes/raw", "volumes/raw", ()),
        ("/a[3]", "a", (3,)),
        ("a[-1, 2:]", "a", (-1, slice(2, None))),
        ("a[:, 0:4,7]", "a", (slice(None, None), slice(0, 4), 7)),
    ],
)
def test_indices(word, name, selection):
    assert parse_word(word) == (name, selection)


@pytest.mark.parametrize(
    "word", ["a[", "a[x]", "a[1.5]", "a[]", "a[1][2]", "a[0:9:2]", "a[__import__('os')]"]
)
def test_what_is_no_index(word):
    with pytest.raises(ConfigError, match=r"a dataset is .*volumes/raw\[3\]"):
        parse_word(word)


def test_indices_cut_out_a_part_in_its_place(tmp_path):
    volume = make(tmp_path / "a.zarr/raw", (6, 8, 10), offset_nm=(10, 20, 30))
    data = np.arange(480, dtype=np.uint8).reshape(6, 8, 10)
    volume.write_voxels(volume.roi_voxels, data)
    (found,) = find_datasets(str(tmp_path / "a.zarr"), "raw[-2, 1:5]")
    pyramid = open_pyramid(found)
    assert pyramid.roi_voxels.begin == (2 + 4, 4 + 1, 6)
    assert pyramid.roi_voxels.shape == (1, 4, 10)
    np.testing.assert_array_equal(
        pyramid.read((1, 1, 1), (0, 0, 0), (1, 4, 10), average=True), data[4:5, 1:5]
    )


def test_indices_outside(tmp_path):
    make(tmp_path / "a.zarr/raw", (6, 8, 10))
    for word in ("raw[6]", "raw[-7]", "raw[0, 0, 0, 0]", "raw[4:4]"):
        (found,) = find_datasets(str(tmp_path / "a.zarr"), word)
        with pytest.raises(DataError, match=r"indices within its shape \(6, 8, 10\)"):
            open_pyramid(found)


def test_a_channel(tmp_path):
    volume = make(tmp_path / "a.zarr/maps", (3, 4, 4, 4), dtype="float32")
    data = np.random.default_rng(1).random((3, 4, 4, 4), dtype=np.float32)
    volume.write_voxels(volume.roi_voxels, data)
    whole, one, two = (
        open_pyramid(find_datasets(str(tmp_path / "a.zarr"), word)[0])
        for word in ("maps", "maps[1]", "maps[1:]")
    )
    assert (whole.num_channels, one.num_channels, two.num_channels) == (3, None, 2)
    box = ((1, 1, 1), (0, 0, 0), (4, 4, 4))
    np.testing.assert_array_equal(one.read(*box, average=True), data[1])
    np.testing.assert_array_equal(two.read(*box, average=True), data[1:])
