"""Lossless export and the single file: every value, the voxel size, and nothing half-written."""

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from incasem.blockwise import run_in_process
from incasem.cli import main
from incasem.errors import DataError
from incasem.formatting import ExportOptions, _tiff, export, export_images
from incasem.volumes import create_volume

RNG = np.random.default_rng(0)


def make(tmp_path, array, dataset="volumes/labels/er", chunks=(4, 8, 8)):
    volume = create_volume(
        tmp_path / "cell.zarr" / dataset, shape=array.shape, dtype=array.dtype, voxel_size=(20, 5, 4),
        offset_nm=(200, 0, 0), chunk_shape=chunks,
    )  # fmt: skip
    volume.write_voxels(volume.roi_voxels, array)
    return array


def labels(largest, dtype=np.uint32, shape=(10, 21, 30)):
    array = RNG.integers(0, largest + 1, shape, dtype=np.uint64).astype(dtype)
    array[0, 0, 0] = largest
    return array


def options(tmp_path, **kwargs):
    fields = {"out_dataset": "er", "values": "lossless", "single_file": True} | kwargs
    return ExportOptions(tmp_path / "cell.zarr", "volumes/labels/er", tmp_path / "out", **fields)


def exported(opts):
    job, output = export.prepare_export(opts)
    run_in_process(job)
    output.complete()
    return opts.images_dir


@pytest.mark.parametrize(
    ("array", "pixels"),
    [
        (labels(255), np.uint8),
        (labels(256), np.uint16),
        (labels(65535, np.uint64), np.uint16),
        (labels(65536), np.uint32),
        (labels(2**32 - 1, np.uint64), np.uint32),
        (labels(9, np.int64), np.uint8),
        (labels(255, np.uint8), np.uint8),
        (RNG.random((10, 21, 30)).astype(np.float32), np.float32),
    ],
)
@pytest.mark.parametrize("single_file", [True, False])
def test_every_value_comes_through(tmp_path, array, pixels, single_file):
    make(tmp_path, array)
    path = exported(options(tmp_path, single_file=single_file))
    files = [path] if single_file else sorted(path.glob("section_*.tif"))
    read = tifffile.imread(path) if single_file else np.stack([tifffile.imread(file) for file in files])
    assert read.dtype == pixels
    np.testing.assert_array_equal(read, array)
    with tifffile.TiffFile(files[0]) as tiff:
        assert tiff.is_imagej
        assert tiff.imagej_metadata["unit"] == "um"
        assert tiff.imagej_metadata["spacing"] == pytest.approx(0.02)
        assert tiff.imagej_metadata["images"] == (10 if single_file else 1)
        assert tiff.pages[0].get_resolution()[:2] == pytest.approx((250, 200))
        assert not tiff.is_bigtiff


@settings(max_examples=10)
@given(data=st.data())
def test_any_chunks_give_the_same_file(tmp_path_factory, data):
    tmp_path = tmp_path_factory.mktemp("tiff")
    shape = data.draw(st.tuples(*[st.integers(1, 15)] * 3))
    chunks = data.draw(st.tuples(*[st.integers(1, 9)] * 3))
    array = make(tmp_path, labels(70000, shape=shape), chunks=chunks)
    np.testing.assert_array_equal(tifffile.imread(exported(options(tmp_path))).reshape(shape), array)


def test_large_files_are_big_tiffs(tmp_path, monkeypatch):
    monkeypatch.setattr(_tiff, "CLASSIC_BYTES", 1000)
    array = make(tmp_path, labels(70000))
    path = exported(options(tmp_path))
    np.testing.assert_array_equal(tifffile.imread(path), array)
    with tifffile.TiffFile(path) as tiff:
        assert tiff.is_bigtiff
        assert len(tiff.pages) == 10


def test_the_command_and_what_it_leaves(tmp_path, capsys):
    array = make(tmp_path, labels(300))
    words = [
        "-f",
        str(tmp_path / "cell.zarr"),
        "-d",
        "volumes/labels/er",
        "-o",
        str(tmp_path / "out"),
        "-n",
        "2",
    ]
    words += ["--out_datasets", "er.tif", "--lossless", "--single_file"]
    assert main(["export", *words]) == 0
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out/er.tif"), array)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [".er.tif.incasem", "er.tif"]
    assert [p.name for p in (tmp_path / "out/.er.tif.incasem").iterdir()] == ["attributes.json"]
    assert main(["export", *words]) == 0
    assert "already complete" in capsys.readouterr().out
    (tmp_path / "out/er.tif").unlink()
    assert main(["export", *words]) == 0
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out/er.tif"), array)


def test_until_it_is_complete_there_is_no_file(tmp_path):
    array = make(tmp_path, labels(300))
    job, output = export.prepare_export(options(tmp_path))
    job.start_worker()(job.grid.block(0))
    assert not output.path.exists()
    again, output = export.prepare_export(options(tmp_path))  # after a kill: what was written stays
    for block in list(again.grid.blocks())[1:]:
        again.start_worker()(block)
    output.complete()
    np.testing.assert_array_equal(tifffile.imread(output.path), array)


def test_labels_beyond_what_imagej_tells_apart(tmp_path, caplog):
    make(tmp_path, labels(2**24 + 1))
    export.prepare_export(options(tmp_path))
    assert "labels above 16777216 look alike" in caplog.text


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (labels(2**32, np.uint64), "0 to 4294967296; allowed: 0 to 4294967295"),
        (np.full((2, 3, 4), -1, np.int32), "-1 to -1; allowed: 0 to"),
        (np.zeros((2, 3, 4), np.float64), "float64; allowed: float32"),
    ],
)
def test_values_that_no_tiff_holds(tmp_path, array, message):
    make(tmp_path, array)
    with pytest.raises(DataError, match=message):
        export_images(options(tmp_path), num_workers=1, progress=False)
    assert not (tmp_path / "out/er.tif").exists()


def test_files_of_others_are_not_overwritten(tmp_path):
    make(tmp_path, labels(9))
    (tmp_path / "out").mkdir()
    (tmp_path / "out/er.tif").write_bytes(b"precious")
    with pytest.raises(DataError, match="not exported by incasem"):
        export_images(options(tmp_path), num_workers=1, progress=False)
    assert (tmp_path / "out/er.tif").read_bytes() == b"precious"


def test_other_values_into_the_same_file(tmp_path):
    make(tmp_path, labels(300))
    export_images(options(tmp_path), num_workers=1, progress=False)
    with pytest.raises(DataError, match="with other settings"):
        export_images(options(tmp_path, values="labels"), num_workers=1, progress=False)
