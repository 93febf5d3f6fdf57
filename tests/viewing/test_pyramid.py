"""Reading piece by piece, from the right level, and no more than asked for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from incasem.viewing import find_datasets, open_pyramid
from incasem.viewing.pyramid import Pyramid
from incasem.volumes import Volume, create_volume

SHAPE = (13, 16, 21)


def write(path, data, voxel_size=(5, 5, 5), offset_nm=(0, 0, 0), **arguments):
    volume = create_volume(
        path, shape=data.shape, dtype=data.dtype, voxel_size=voxel_size, offset_nm=offset_nm,
        chunk_shape=(8, 8, 8), **arguments,
    )  # fmt: skip
    volume.write_voxels(volume.roi_voxels, data)
    return volume


def opened(path, word):
    (dataset,) = find_datasets(str(path), word)
    return open_pyramid(dataset)


@pytest.fixture(scope="module")
def data():
    return np.random.default_rng(3).integers(0, 255, SHAPE, dtype=np.uint8)


@pytest.fixture(scope="module")
def cell(tmp_path_factory, data):
    """One level, and three whose values tell which level they are of."""
    path = tmp_path_factory.mktemp("cells") / "cell.zarr"
    write(path / "raw", data, offset_nm=(10, 20, 30))
    for level, value in enumerate((10, 20, 30)):
        shape = [-(-n // 2**level) for n in SHAPE]
        write(path / f"levels/s{level}", np.full(shape, value, np.uint8), (5 * 2**level,) * 3)
    return path


def mean_of(data, factor, begin, end):
    """Box means by plain loops."""
    result = np.empty([e - b for b, e in zip(begin, end, strict=True)], data.dtype)
    for index in np.ndindex(result.shape):
        box = tuple(slice((b + i) * f, (b + i + 1) * f) for b, i, f in zip(begin, index, factor, strict=True))
        result[index] = np.rint(data[box].astype(float).mean())
    return result


@given(st.data())
def test_averages_are_those_of_the_voxels_that_exist(cell, data, draw):
    pyramid = opened(cell, "raw")
    factor = tuple(draw.draw(st.sampled_from([1, 2, 4, 8])) for _ in range(3))
    shape = pyramid.shape_at(factor)
    begin = tuple(draw.draw(st.integers(0, n - 1)) for n in shape)
    end = tuple(draw.draw(st.integers(b + 1, n)) for b, n in zip(begin, shape, strict=True))
    piece = pyramid.read(factor, begin, end, average=True)
    wanted = mean_of(data, factor, begin, end)
    assert piece.dtype == np.uint8
    # One grey level for sums whose order differs.
    assert np.abs(piece.astype(int) - wanted).max() <= 1
    assert (piece == wanted).mean() > 0.9


def test_labels_are_sampled_in_the_middle(cell, data):
    pyramid = opened(cell, "raw")
    piece = pyramid.read((2, 4, 1), (0, 0, 0), pyramid.shape_at((2, 4, 1)), average=False)
    np.testing.assert_array_equal(piece[:6], data[1::2][:6, 2::4])
    np.testing.assert_array_equal(piece[6], data[12, 2::4])  # the last box has one section only


@pytest.mark.parametrize(
    ("factor", "value"),
    [((1, 1, 1), 10), ((2, 2, 2), 20), ((4, 4, 4), 30), ((8, 8, 8), 30), ((1, 2, 2), 10), ((4, 2, 2), 20)],
)
def test_a_piece_comes_from_the_coarsest_level_that_fits(cell, factor, value):
    pyramid = opened(cell, "levels")
    assert (pyramid.read(factor, (0, 0, 0), pyramid.shape_at(factor), average=True) == value).all()


def test_a_part_of_a_pyramid_uses_levels_that_begin_where_it_does(cell):
    even, odd = opened(cell, "levels[2:10, 4:12, 6:14]"), opened(cell, "levels[1:9, 4:12, 6:14]")
    assert (even.read((2, 2, 2), (0, 0, 0), (4, 4, 4), average=True) == 20).all()
    assert (odd.read((2, 2, 2), (0, 0, 0), (4, 4, 4), average=True) == 10).all()


def test_levels_need_not_lie_on_their_own_grid(tmp_path):
    """A volume at voxel 3 has coarse voxels between the multiples of their size."""
    fine = np.arange(512, dtype=np.uint16).reshape(8, 8, 8)
    write(tmp_path / "a.zarr/raw/s0", fine, offset_nm=(15, 15, 15))
    coarse = write(tmp_path / "a.zarr/raw/s1", fine[::2, ::2, ::2].copy(), (10, 10, 10))
    coarse.set_attributes(offset=[15, 15, 15])
    pyramid = opened(tmp_path / "a.zarr", "raw")
    assert [level.factor for level in pyramid.levels] == [(1, 1, 1), (2, 2, 2)]
    assert pyramid.roi_voxels.begin == (3, 3, 3)
    piece = pyramid.read((2, 2, 2), (1, 1, 1), (3, 3, 3), average=True)
    np.testing.assert_array_equal(piece, fine[2:6:2, 2:6:2, 2:6:2])


def test_a_level_that_was_cut_short_ends_in_its_last_values(tmp_path):
    write(tmp_path / "a.zarr/raw/s0", np.full((5, 5, 5), 7, np.uint8))
    write(tmp_path / "a.zarr/raw/s1", np.full((2, 2, 2), 9, np.uint8), (10, 10, 10))
    pyramid = opened(tmp_path / "a.zarr", "raw")
    assert pyramid.shape_at((2, 2, 2)) == (3, 3, 3)
    assert (pyramid.read((2, 2, 2), (0, 0, 0), (3, 3, 3), average=True) == 9).all()


def test_an_array_that_is_no_level_is_left_out(tmp_path, caplog):
    write(tmp_path / "a.zarr/raw/s0", np.zeros((8, 8, 8), np.uint8))
    write(tmp_path / "a.zarr/raw/s1", np.zeros((5, 5, 5), np.uint8), (8, 8, 8))
    assert len(opened(tmp_path / "a.zarr", "raw").levels) == 1
    assert "s1 is left out" in caplog.text


def test_another_voxel_size_than_the_stated_one(cell):
    (dataset,) = find_datasets(str(cell), "raw")
    assert open_pyramid(dataset, (10, 10, 10)).voxel_size == (10, 10, 10)


@pytest.fixture
def voxels_read(monkeypatch):
    """The number of voxels that were read, as a list of pieces."""
    pieces = []
    read = Volume.read_voxels

    def counted(self, roi, **arguments):
        pieces.append(int(np.prod(roi.shape)))
        return read(self, roi, **arguments)

    monkeypatch.setattr(Volume, "read_voxels", counted)
    return pieces


@pytest.fixture
def terabytes(tmp_path):
    """A volume of 8 TB, of which nothing was ever written."""
    create_volume(
        tmp_path / "huge.zarr/raw", shape=(20_000,) * 3, dtype="uint8", voxel_size=(4, 4, 4),
        chunk_shape=(128,) * 3,
    )  # fmt: skip
    return opened(tmp_path / "huge.zarr", "raw")


def test_opening_reads_nothing_and_a_piece_no_more_than_it(terabytes, voxels_read):
    assert isinstance(terabytes, Pyramid)
    assert voxels_read == []
    assert terabytes.read((1, 1, 1), (9000, 9000, 9000), (9064, 9064, 9064), average=True).shape == (64,) * 3
    assert terabytes.sample(96).shape == (96, 96, 96)
    assert voxels_read == [64**3, 96**3]


def test_sections_of_an_image_stack_are_decoded_once(tmp_path, voxels_read):
    tifffile = pytest.importorskip("tifffile")
    data = np.random.default_rng(1).integers(0, 255, (6, 40, 50), dtype=np.uint8)
    for z, section in enumerate(data):
        tifffile.imwrite(tmp_path / f"section_{z}.tif", section)
    (dataset,) = find_datasets(str(tmp_path))
    pyramid = open_pyramid(dataset)
    for y in range(0, 40, 10):
        piece = pyramid.read((1, 1, 1), (1, y, 7), (5, y + 10, 30), average=True)
        np.testing.assert_array_equal(piece, data[1:5, y : y + 10, 7:30])
    assert voxels_read == [40 * 50] * 4
