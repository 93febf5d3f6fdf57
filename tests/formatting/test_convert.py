import logging
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from incasem.blockwise import run_in_process
from incasem.errors import ConfigError, DataError
from incasem.formatting import ConvertOptions, convert, convert_stack, pair_inputs
from incasem.volumes import create_volume, open_volume
from incasem.volumes.sections import find_sections


def write_stack(directory, stack, name="img_{}.tif", first=0, **kwargs):
    directory.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(stack, first):
        tifffile.imwrite(directory / name.format(number), image, **kwargs)
    return directory


def grey(shape=(12, 20, 30), dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def options(tmp_path, **kwargs):
    defaults = {
        "input_dir": tmp_path / "images", "output_file": tmp_path / "cell.zarr", "chunks": (4, 8, 16)
    }  # fmt: skip
    return ConvertOptions(**{**defaults, **kwargs})


def converted(opts):
    job, output = convert.prepare_conversion(opts)
    run_in_process(job)
    return output


def whole(volume):
    return volume.read_voxels(volume.roi_voxels)


def test_a_stack_in_natural_order_by_workers(tmp_path):
    stack = grey()
    write_stack(tmp_path / "images", stack, first=7)  # img_7, …, img_18: text order differs
    opts = options(tmp_path, resolution=(4.0, 5.9, 5.9))
    report = convert_stack(opts, num_workers=2, progress=False)
    volume = open_volume(tmp_path / "cell.zarr/volumes/raw")
    np.testing.assert_array_equal(whole(volume), stack)
    assert volume.voxel_size == (4.0, 5.9, 5.9)
    assert volume.chunk_shape == (4, 8, 16)
    assert report.blocks_done == 3
    assert convert_stack(opts, num_workers=2, progress=False).already_complete


def test_each_image_is_decoded_once(tmp_path, monkeypatch):
    write_stack(tmp_path / "images", grey())
    decodes = Counter()
    decode = tifffile.TiffPage.asarray

    def counting(page, *args, **kwargs):
        decodes[page.parent.filename] += 1
        return decode(page, *args, **kwargs)

    monkeypatch.setattr(tifffile.TiffPage, "asarray", counting)
    converted(options(tmp_path))
    assert decodes == {f"img_{n}.tif": 1 for n in range(12)}


@pytest.mark.parametrize("budget", [0, 1000, 10**9])
def test_a_slab_above_the_budget_goes_through_a_file(tmp_path, monkeypatch, budget):
    stack = grey((7, 21, 33), np.uint16)
    write_stack(tmp_path / "images", stack)
    monkeypatch.setattr(convert, "SLAB_BYTES", budget)
    output = converted(options(tmp_path, dtype="uint16"))
    np.testing.assert_array_equal(whole(output), stack)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_crop_is_the_crop_and_its_offset_is_stored(tmp_path_factory, data):
    tmp_path = tmp_path_factory.mktemp("crop")
    whole_shape = data.draw(st.tuples(*[st.integers(1, 12)] * 3))
    offset = tuple(data.draw(st.integers(0, n - 1)) for n in whole_shape)
    shape = tuple(
        data.draw(st.none() | st.integers(1, n - o)) for n, o in zip(whole_shape, offset, strict=True)
    )
    chunks = data.draw(st.tuples(*[st.integers(1, 7)] * 3))
    stack = grey(whole_shape)
    write_stack(tmp_path / "images", stack)
    output = converted(options(tmp_path, offset=offset, shape=shape, chunks=chunks, resolution=(5, 4, 4)))
    region = tuple(slice(o, None if s is None else o + s) for o, s in zip(offset, shape, strict=True))
    np.testing.assert_array_equal(whole(output), stack[region])
    assert output.offset_nm == tuple(o * r for o, r in zip(offset, (5, 4, 4), strict=True))


@pytest.mark.parametrize("name", ["section{}.tif", "{}.TIFF", "x3_s{}b.tiff", "a{}.png"])
def test_names_that_the_default_regex_does_not_match(tmp_path, name, caplog):
    stack = grey((11, 5, 6))
    if name.endswith("png"):
        import imagecodecs

        (tmp_path / "images").mkdir()
        for n, image in enumerate(stack):
            (tmp_path / "images" / name.format(n)).write_bytes(imagecodecs.png_encode(image))
    else:
        write_stack(tmp_path / "images", stack, name)
    with caplog.at_level(logging.INFO):
        np.testing.assert_array_equal(whole(converted(options(tmp_path))), stack)
    assert "the number in which their names differ" in caplog.text


def test_images_that_the_regex_leaves_out_are_named(tmp_path, caplog):
    write_stack(tmp_path / "images", grey((3, 5, 6)))
    tifffile.imwrite(tmp_path / "images/overview.tif", grey((50, 60)))
    assert converted(options(tmp_path)).shape == (3, 5, 6)
    assert "is left out: overview.tif" in caplog.text
    assert "overview.tif" in caplog.text


def test_one_tiff_with_many_pages(tmp_path):
    stack = grey((9, 10, 11))
    tifffile.imwrite(tmp_path / "stack.tif", stack, photometric="minisblack")
    np.testing.assert_array_equal(
        whole(converted(options(tmp_path, input_dir=tmp_path / "stack.tif"))), stack
    )


@pytest.mark.parametrize("compression", ["lzw", "zlib"])
def test_compressed_and_white_is_zero(tmp_path, compression):
    stack = grey((3, 30, 30))
    write_stack(tmp_path / "images", 255 - stack, compression=compression, photometric="miniswhite")
    np.testing.assert_array_equal(whole(converted(options(tmp_path))), stack)


def test_labels_become_uint32(tmp_path):
    stack = grey((5, 6, 7), np.uint16)
    write_stack(tmp_path / "images", stack)
    output = converted(options(tmp_path, output_dataset="volumes/labels/er", dtype="uint32"))
    assert output.dtype == np.uint32
    np.testing.assert_array_equal(whole(output), stack)


def test_wider_input_is_never_wrapped(tmp_path):
    write_stack(tmp_path / "images", grey((3, 5, 6), np.uint16))
    with pytest.raises(
        DataError, match=r"is uint16, the output uint8 .* --conversion ScaleToUint8, or --dtype"
    ):
        convert_stack(options(tmp_path), num_workers=1, progress=False)
    assert not (tmp_path / "cell.zarr").exists()


@pytest.mark.parametrize(
    ("conversion", "low", "high"),
    [("ScaleToUint8", 0, 65535), ("ScaleToUint8:1000,3000", 1000, 3000), ("ScaleToUint8:0%,100%", 500, 4000)],
)
def test_scale_to_uint8(tmp_path, conversion, low, high):
    stack = np.random.default_rng(0).integers(500, 4001, (6, 40, 40)).astype(np.uint16)
    stack[:, 0, 0], stack[:, 0, 1] = 500, 4000
    write_stack(tmp_path / "images", stack)
    expected = np.rint((np.clip(stack, low, high) - float(low)) * 255 / (high - low))
    np.testing.assert_array_equal(whole(converted(options(tmp_path, conversion=conversion))), expected)


def test_rgb_to_grey_inversion(tmp_path):
    stack = np.full((3, 5, 6, 3), 255, np.uint8)
    stack[:, 1, 1], stack[:, 2, 2] = (255, 0, 0), (0, 0, 0)
    write_stack(tmp_path / "images", stack, photometric="rgb")
    with pytest.raises(DataError, match="holds RGB images and conversion is None"):
        convert.prepare_conversion(options(tmp_path))
    result = whole(converted(options(tmp_path, conversion="RgbToGrayInversion")))
    assert result[0, 0, 0] == 0
    assert result[0, 1, 1] == 255 - 76
    assert result[0, 2, 2] == 255


def test_relabel(tmp_path):
    stack = grey((3, 5, 6)) // 128
    write_stack(tmp_path / "images", stack)
    for conversion, value in (("RelabelTo:7", 7), ("RelabelTo", 1)):
        output = converted(
            options(tmp_path, conversion=conversion, dtype="uint32", output_dataset=f"labels/{value}")
        )
        np.testing.assert_array_equal(whole(output), (stack != 0) * value)
    uids = []
    for name in ("labels/a", "labels/b"):
        opts = options(tmp_path, conversion="RelabelToUid", dtype="uint32", output_dataset=name)
        uids.append(np.unique(whole(converted(opts))))
    np.testing.assert_array_equal(uids[0], uids[1])
    assert len(uids[0]) == 2
    assert uids[0][1] > 1


def test_invert(tmp_path):
    stack = grey()
    write_stack(tmp_path / "images", stack)
    np.testing.assert_array_equal(whole(converted(options(tmp_path, invert=True))), 255 - stack)


def test_a_dataset_keeps_its_place(tmp_path):
    stack = grey((9, 10, 11), np.uint16)
    source = create_volume(
        tmp_path / "scan.h5/em",
        shape=stack.shape,
        dtype=stack.dtype,
        voxel_size=(10, 5, 5),
        offset_nm=(100, 50, 5),
    )
    source.write_voxels(source.roi_voxels, stack)
    output = converted(
        options(
            tmp_path,
            input_dir=tmp_path / "scan.h5/em",
            offset=(2, 0, 1),
            dtype="uint16",
            shape=(4, None, None),
        )
    )
    np.testing.assert_array_equal(whole(output), stack[2:6, :, 1:])
    assert output.voxel_size == (10, 5, 5)
    assert output.offset_nm == (120, 50, 10)


def test_gap_doubled_number_and_mixed_sizes_name_the_files(tmp_path):
    directory = write_stack(tmp_path / "images", grey((6, 5, 6)))
    (directory / "img_3.tif").rename(tmp_path / "kept.tif")
    with pytest.raises(DataError, match=r"missing: 3 between img_2\.tif and img_4\.tif"):
        convert.prepare_conversion(options(tmp_path))
    tifffile.imwrite(directory / "img_3.tif", grey((5, 7)))
    with pytest.raises(
        DataError, match=r"differ in size or type: .*img_0\.tif is 5 x 6 uint8, but .*img_3\.tif: 5 x 7"
    ):
        convert.prepare_conversion(options(tmp_path))
    tifffile.imwrite(directory / "img_03.tif", grey((5, 6)))
    with pytest.raises(DataError, match=r"img_03\.tif and img_3\.tif .* both have section number 3"):
        convert.prepare_conversion(options(tmp_path))
    assert not (tmp_path / "cell.zarr").exists()


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_truncated_image_is_named_before_anything_is_written(tmp_path, compression):
    directory = write_stack(tmp_path / "images", grey((4, 50, 60)), compression=compression)
    content = (directory / "img_2.tif").read_bytes()
    (directory / "img_2.tif").write_bytes(content[: len(content) - 500])
    with pytest.raises(DataError, match=r"img_2\.tif"):
        convert_stack(options(tmp_path), num_workers=1, progress=False)
    assert not (tmp_path / "cell.zarr").exists()


@pytest.mark.parametrize("content", [b"", b"not an image", b"II*\0\xff\xff\xff\x7f"])
def test_an_unreadable_image_is_named(tmp_path, content):
    directory = write_stack(tmp_path / "images", grey((3, 5, 6)))
    (directory / "img_1.tif").write_bytes(content)
    with pytest.raises(DataError, match=r"img_1\.tif"):
        convert.prepare_conversion(options(tmp_path))


def test_damaged_pixels_are_named_and_the_next_run_continues(tmp_path):
    stack = grey((8, 64, 64))
    directory = write_stack(tmp_path / "images", stack, compression="zlib")
    good = (directory / "img_5.tif").read_bytes()
    with tifffile.TiffFile(directory / "img_5.tif") as tiff:
        at = tiff.pages[0].dataoffsets[0]
    (directory / "img_5.tif").write_bytes(good[:at] + bytes(40) + good[at + 40 :])
    job, _ = convert.prepare_conversion(options(tmp_path))
    with pytest.raises(DataError, match=r"img_5\.tif cannot be read as an image"):
        run_in_process(job)


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"image_regex": r"slice(\d+)"}, DataError, r"image_regex is slice.*img_0\.tif"),
        ({"image_regex": r"img_\d+"}, ConfigError, "one group"),
        ({"image_regex": r"(img"}, ConfigError, "regular expression"),
        ({"image_regex": r"(img)"}, ConfigError, "digits"),
        ({"input_dir": Path("/nowhere")}, DataError, "/nowhere"),
        ({"offset": (0, 0, 30)}, DataError, r"crop \(offset, shape\) in x is 30:"),
        ({"offset": (-1, 0, 0)}, DataError, "in z is -1"),
        ({"shape": (13, None, None)}, DataError, r"in z is 0:13; allowed: inside 0:12"),
        ({"resolution": (0, 5, 5)}, ConfigError, "resolution"),
        ({"dtype": "uint9"}, ConfigError, "dtype is uint9"),
        ({"dtype": "str"}, ConfigError, "dtype"),
        ({"chunks": (0, 8, 8)}, ConfigError, "chunk"),
        ({"conversion": "ScaleToUInt8"}, ConfigError, r"Did you mean 'ScaleToUint8'"),
        ({"conversion": "ScaleToUint8:5"}, ConfigError, "LOW,HIGH"),
        ({"conversion": "ScaleToUint8:9,3"}, ConfigError, "LOW,HIGH"),
        ({"conversion": "RelabelTo:300"}, ConfigError, "1 to 255"),
        ({"conversion": "RgbToGrayInversion:3"}, ConfigError, "no argument"),
        ({"dtype": "int16", "invert": True}, ConfigError, "invert"),
        ({"output_file": Path("cell")}, DataError, "NAME.zarr"),
    ],
)
def test_bad_options(tmp_path, kwargs, error, message, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_stack(tmp_path / "images", grey())
    with pytest.raises(error, match=message):
        convert_stack(options(tmp_path, **kwargs), num_workers=1, progress=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["images"]


def test_no_workers(tmp_path):
    with pytest.raises(ConfigError, match="num_workers is 0"):
        convert_stack(options(tmp_path), num_workers=0)


def test_what_others_made_is_not_overwritten(tmp_path):
    write_stack(tmp_path / "images", grey())
    path = tmp_path / "cell.zarr/volumes/raw"
    theirs = create_volume(
        path, shape=(12, 20, 30), dtype=np.uint8, voxel_size=(5, 5, 5), chunk_shape=(4, 8, 16)
    )
    theirs.write_voxels(theirs.roi_voxels, np.full((12, 20, 30), 9, np.uint8))
    with pytest.raises(DataError, match="was not made by incasem"):
        convert_stack(options(tmp_path), num_workers=1, progress=False)
    assert (whole(open_volume(tmp_path / "cell.zarr/volumes/raw")) == 9).all()


def test_another_shape_or_setting_at_the_same_output(tmp_path):
    stack = grey()
    write_stack(tmp_path / "images", stack)
    convert_stack(options(tmp_path), num_workers=1, progress=False)
    with pytest.raises(DataError, match="shape"):
        convert_stack(options(tmp_path, shape=(5, None, None)), num_workers=1, progress=False)
    with pytest.raises(DataError, match="invert"):
        convert_stack(options(tmp_path, invert=True), num_workers=1, progress=False)
    np.testing.assert_array_equal(whole(open_volume(tmp_path / "cell.zarr/volumes/raw")), stack)


def test_pairs_of_inputs(tmp_path):
    inputs = [tmp_path / "em", tmp_path / "er"]
    pairs = pair_inputs(
        inputs, tmp_path / "c.zarr", ["volumes/raw", "volumes/er"], ["uint8", "uint32"], chunks=(1, 2, 3)
    )
    assert [(p.input_dir.name, p.output_dataset, p.dtype) for p in pairs] == [
        ("em", "volumes/raw", "uint8"), ("er", "volumes/er", "uint32")
    ]  # fmt: skip
    assert pairs[1].chunks == (1, 2, 3)
    with pytest.raises(ConfigError, match="2 names"):
        pair_inputs(inputs, tmp_path / "c.zarr")
    with pytest.raises(ConfigError, match="different names"):
        pair_inputs(inputs, tmp_path / "c.zarr", ["a", "a"])
    with pytest.raises(ConfigError, match="dtype"):
        pair_inputs(inputs, tmp_path / "c.zarr", ["a", "b"], ["uint8"] * 3)


def test_hidden_files_are_no_images(tmp_path):
    directory = write_stack(tmp_path / "images", grey((2, 5, 6)), "s_{}.tif")
    (directory / "._s_0.tif").write_bytes(b"resource fork")
    assert [s.path.name for s in find_sections(directory)] == ["s_0.tif", "s_1.tif"]


def test_all_are_checked_before_the_first_is_converted(tmp_path):
    write_stack(tmp_path / "images", grey())
    gap = write_stack(tmp_path / "gap", grey())
    (gap / "img_5.tif").unlink()
    both = [options(tmp_path), options(tmp_path, input_dir=gap, output_dataset="volumes/labels")]
    with pytest.raises(DataError, match="section numbers are missing: 5"):
        list(convert.convert_stacks(both, num_workers=1, progress=False))
    assert not (tmp_path / "cell.zarr").exists()
