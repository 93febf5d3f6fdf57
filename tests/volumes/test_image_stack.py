"""Image stacks: order by number, whole or refused, pixels as they are."""

import pickle

import imagecodecs
import numpy as np
import pytest
import tifffile

from incasem.errors import ConfigError, DataError
from incasem.geometry import Roi
from incasem.volumes import image_stack, list_datasets, open_image_stack, open_volume


def save(directory, images, name="img_{}.tif", first=1):
    directory.mkdir(exist_ok=True)
    for number, image in enumerate(images, first):
        path = directory / name.format(number)
        if path.suffix == ".png":
            path.write_bytes(imagecodecs.png_encode(image))
        else:
            tifffile.imwrite(path, image)
    return directory


@pytest.fixture
def stack_ZYX(rng):
    return rng.integers(0, 65536, (12, 5, 7), dtype=np.uint16)


@pytest.mark.parametrize("name", ["img_{}.tif", "cell_5nm_s{:04d}_raw.tiff", "{}.png", "img_{:03d}.PNG"])
def test_natural_order_and_16_bits(tmp_path, stack_ZYX, name):
    if name.endswith("PNG"):
        save(tmp_path / "stack", stack_ZYX, name.lower())
        for file in list((tmp_path / "stack").iterdir()):
            file.rename(file.with_suffix(".PNG"))
    else:
        save(tmp_path / "stack", stack_ZYX, name)
    volume = open_volume(f"{tmp_path}/stack/")
    assert volume.dtype == np.uint16
    assert not volume.has_stated_place
    np.testing.assert_array_equal(volume.read_voxels(volume.roi_voxels), stack_ZYX)
    np.testing.assert_array_equal(volume.read_voxels(Roi((9, 1, 2), (3, 4, 5))), stack_ZYX[9:, 1:5, 2:])
    assert list_datasets(tmp_path / "stack") == [""]


@pytest.mark.parametrize("dtype", ["uint8", ">u2", "float32"])
@pytest.mark.parametrize("compression", [None, "lzw", "zlib"])
def test_pages_of_one_tiff(tmp_path, stack_ZYX, dtype, compression):
    data = stack_ZYX.astype(dtype)
    byteorder = ">" if dtype.startswith(">") else None
    tifffile.imwrite(
        tmp_path / "stack.tif", data, photometric="minisblack", compression=compression, byteorder=byteorder
    )
    volume = open_volume(tmp_path / "stack.tif", voxel_size=(40, 4, 4))
    result = volume.read(volume.roi)
    np.testing.assert_array_equal(result, data)
    assert result.dtype == np.dtype(dtype).newbyteorder("=")
    assert result.dtype.isnative


def test_the_published_regular_expression_chooses_files(tmp_path, stack_ZYX):
    save(tmp_path / "stack", stack_ZYX, "cell6_{}_crop.tif", first=0)
    save(tmp_path / "stack", stack_ZYX[:2], "overview-{}.png")
    volume = open_image_stack(tmp_path / "stack", image_regex=r".*_(\d+).*\.tif$")
    np.testing.assert_array_equal(volume.read_voxels(volume.roi_voxels), stack_ZYX)
    again = pickle.loads(pickle.dumps(volume))
    np.testing.assert_array_equal(again.read_voxels(again.roi_voxels), stack_ZYX)


def test_colours_are_channels(tmp_path, rng):
    images = rng.integers(0, 255, (3, 5, 7, 3), dtype=np.uint8)
    volume = open_volume(save(tmp_path / "stack", images))
    assert volume.axes == ("c", "z", "y", "x")
    expected = np.moveaxis(images, -1, 0)
    np.testing.assert_array_equal(volume.read_voxels(volume.roi_voxels), expected)
    np.testing.assert_array_equal(
        volume.read_voxels(Roi((-1, 0, 0), (2, 5, 7)), beyond="reflect"), expected[:, [1, 0]]
    )


def test_each_image_is_decoded_once_for_a_slab(tmp_path, stack_ZYX, monkeypatch):
    volume = open_volume(save(tmp_path / "stack", stack_ZYX))
    decoded = []
    decode = image_stack._decode
    monkeypatch.setattr(image_stack, "_decode", lambda s: decoded.append(s.path.name) or decode(s))
    volume.read_voxels(Roi((2, 0, 0), (4, 5, 7)))
    assert decoded == ["img_3.tif", "img_4.tif", "img_5.tif", "img_6.tif"]


def test_gaps_are_named(tmp_path, stack_ZYX):
    directory = save(tmp_path / "stack", stack_ZYX)
    (directory / "img_4.tif").unlink()
    (directory / "img_9.tif").unlink()
    with pytest.raises(DataError, match=r"stack: section numbers are missing: 4 between .*; 9 between"):
        open_volume(directory)


def test_a_number_given_twice_is_named(tmp_path, stack_ZYX):
    directory = save(tmp_path / "stack", stack_ZYX)
    save(directory, stack_ZYX[:1], "img_{:03d}.tif", first=3)
    with pytest.raises(DataError, match=r"img_003\.tif and img_3\.tif .* both have section number 3"):
        open_volume(directory)


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        (
            np.zeros((5, 8), dtype=np.uint16),
            r"img_12\.tif is \(5, 7\), uint16; .*img_13\.tif is \(5, 8\), uint16",
        ),
        (np.zeros((5, 7), dtype=np.uint8), r"img_13\.tif is \(5, 7\), uint8"),
    ],
)
def test_mixed_sizes_and_dtypes_are_refused(tmp_path, stack_ZYX, odd, message):
    directory = save(tmp_path / "stack", stack_ZYX[-1:], first=12)
    save(directory, [odd], first=13)
    with pytest.raises(DataError, match=message):
        open_volume(directory)


def test_mixed_png_depths_are_refused(tmp_path, stack_ZYX):
    directory = save(tmp_path / "stack", stack_ZYX[:1], "s{}.png")
    save(directory, stack_ZYX[:1].astype(np.uint8), "s{}.png", first=2)
    with pytest.raises(DataError, match=r"PNG of 16 bits.*PNG of 8 bits"):
        open_volume(directory)


def test_unclear_names_are_refused(tmp_path, stack_ZYX):
    directory = save(tmp_path / "a", stack_ZYX[:3])
    save(directory, stack_ZYX[:1], "overview.tif")
    with pytest.raises(DataError, match=r"named in 2 ways, for example img_1\.tif and overview\.tif"):
        open_volume(directory)
    directory = tmp_path / "b"
    for channel in (0, 1):
        save(directory, stack_ZYX[:3], f"c{channel}_z{{}}.tif")
    with pytest.raises(DataError, match="differ in 2 numbers"):
        open_volume(directory)


@pytest.mark.parametrize(
    ("regex", "message"),
    [
        (r"slice_(\d+)\.tif$", r"allowed: an expression that matches .* holds img_1\.tif"),
        (r"img_\d+\.tif$", "one group"),
        (r"img_(\d+\.tif$", "a regular expression"),
        (r"(img)_\d+\.tif$", "a first group of digits"),
    ],
)
def test_regular_expressions_that_do_not_serve(tmp_path, stack_ZYX, regex, message):
    with pytest.raises((ConfigError, DataError), match=message):
        open_image_stack(save(tmp_path / "stack", stack_ZYX[:2]), image_regex=regex)


@pytest.mark.parametrize("suffix", ["tif", "png"])
def test_a_damaged_image_is_named(tmp_path, rng, suffix):
    images = rng.integers(0, 255, (3, 50, 50), dtype=np.uint8)
    directory = save(tmp_path / "stack", images, f"img_{{}}.{suffix}")
    file = directory / f"img_2.{suffix}"
    whole = file.read_bytes()
    volume = open_volume(directory)
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=rf"img_2\.{suffix} cannot be decoded"):
        volume.read_voxels(volume.roi_voxels)
    file.write_bytes(b"not an image")
    with pytest.raises(DataError, match=rf"img_2\.{suffix}"):
        open_volume(directory)


def test_an_image_that_changes_after_opening_is_named(tmp_path, stack_ZYX):
    directory = save(tmp_path / "stack", stack_ZYX[:3])
    volume = open_volume(directory)
    before = volume.fingerprint()
    tifffile.imwrite(directory / "img_2.tif", np.zeros((5, 7), dtype=np.uint8))
    with pytest.raises(DataError, match="changed since"):
        volume.read_voxels(volume.roi_voxels)
    assert volume.fingerprint() != before


def test_stacks_are_read_only(tmp_path, stack_ZYX):
    directory = save(tmp_path / "stack", stack_ZYX[:3])
    with pytest.raises(DataError, match="cannot be opened for writing"):
        open_volume(directory, writable=True)
    with pytest.raises(DataError, match=r"does not exist"):
        open_image_stack(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no TIFF or PNG"):
        open_image_stack(tmp_path / "empty")
