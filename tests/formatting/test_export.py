import errno
from pathlib import Path

import numpy as np
import pytest
import tifffile

from incasem.blockwise import run_in_process
from incasem.errors import ConfigError, DataError, FailedBlocksError
from incasem.formatting import ExportOptions, export, export_images, pair_exports
from incasem.volumes import create_volume


def make(tmp_path, array, dataset="volumes/raw", chunks=(4, 8, 8)):
    volume = create_volume(
        tmp_path / "cell.zarr" / dataset,
        shape=array.shape,
        dtype=array.dtype,
        voxel_size=(20, 5, 5),
        offset_nm=(200, 0, 0),
        chunk_shape=chunks,
    )
    volume.write_voxels(volume.roi_voxels, array)
    return array


def grey(shape=(10, 21, 30)):
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


def options(tmp_path, dataset="volumes/raw", **kwargs):
    return ExportOptions(tmp_path / "cell.zarr", dataset, tmp_path / "out", **{"out_dataset": "em", **kwargs})


def images(directory):
    return np.stack([tifffile.imread(p) for p in sorted(directory.glob("*.tif"))])


def exported(opts):
    job, _ = export.prepare_export(opts)
    run_in_process(job)
    return images(opts.images_dir)


def test_by_workers(tmp_path):
    array = make(tmp_path, grey())
    export_images(options(tmp_path), num_workers=2, progress=False)
    names = sorted(p.name for p in (tmp_path / "out/em").iterdir())
    assert names == [".incasem", *(f"section_{z:04d}.tif" for z in range(10))]
    np.testing.assert_array_equal(images(tmp_path / "out/em"), array)
    assert export_images(options(tmp_path), num_workers=2, progress=False).already_complete


def test_image_j_finds_its_scale(tmp_path):
    make(tmp_path, grey())
    exported(options(tmp_path))
    with tifffile.TiffFile(tmp_path / "out/em/section_0003.tif") as tiff:
        assert tiff.is_imagej
        assert tiff.imagej_metadata["unit"] == "um"
        assert tiff.pages[0].get_resolution()[0] == pytest.approx(200)
        assert tiff.pages[0].shape == (21, 30)


@pytest.mark.parametrize("budget", [0, 10**9])
def test_wide_slabs_go_through_a_file(tmp_path, monkeypatch, budget):
    array = make(tmp_path, grey())
    monkeypatch.setattr(export, "SLAB_BYTES", budget)
    np.testing.assert_array_equal(exported(options(tmp_path)), array)


def test_each_chunk_is_read_once(tmp_path, monkeypatch):
    make(tmp_path, grey())
    job, _ = export.prepare_export(options(tmp_path))
    seen = np.zeros((10, 21, 30), int)
    source = job.start_worker.args[0]
    read = type(source).read_voxels

    def counting(volume, roi, **kwargs):
        begin = roi.begin - volume.roi_voxels.begin
        seen[tuple(slice(b, b + s) for b, s in zip(begin, roi.shape, strict=True))] += 1
        assert all(b % c == 0 for b, c in zip(begin, volume.chunk_shape, strict=True))
        return read(volume, roi, **kwargs)

    monkeypatch.setattr(type(source), "read_voxels", counting)
    run_in_process(job)
    assert (seen == 1).all()


@pytest.mark.parametrize(
    ("array", "dataset", "values", "expected"),
    [
        (np.array([[[0, 1, 70000]]], np.uint32), "labels/er", "auto", [0, 255, 255]),
        (np.array([[[0, 1, 2]]], np.uint8), "train/segmentation", "auto", [0, 255, 255]),
        (np.array([[[0, 1, 2]]], np.uint8), "train/segmentation", "grey", [0, 1, 2]),
        (np.array([[[0, 1, 2]]], np.uint8), "volumes/raw", "auto", [0, 1, 2]),
        (np.array([[[0, 1, 300]]], np.uint64), "labels/er", "labels", [0, 255, 255]),
        (np.array([[[0, 7, 255]]], np.int64), "volumes/raw", "auto", [0, 7, 255]),
        (np.array([[[0, 0.5, 1]]], np.float32), "prob_maps/class_1", "auto", [0, 128, 255]),
    ],
)
def test_values(tmp_path, array, dataset, values, expected):
    make(tmp_path, array, dataset)
    result = exported(options(tmp_path, dataset, values=values))
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result.ravel(), expected)


@pytest.mark.parametrize(
    "array",
    [
        np.full((2, 3, 4), 256, np.uint16),
        np.full((2, 3, 4), -1, np.int32),
        np.full((2, 3, 4), 1.5, np.float32),
        np.full((2, 3, 4), np.nan, np.float32),
    ],
)
def test_values_that_do_not_fit(tmp_path, array):
    make(tmp_path, array)
    with pytest.raises(DataError, match=r"the values of .*volumes/raw is .*; allowed: 0 to"):
        exported(options(tmp_path))


def test_failed_blocks_name_the_reason(tmp_path):
    make(tmp_path, np.full((2, 3, 4), 256, np.uint16))
    with pytest.raises(FailedBlocksError, match="256 to 256"):
        export_images(options(tmp_path), num_workers=1, progress=False)


def test_images_of_others_are_not_overwritten(tmp_path):
    make(tmp_path, grey())
    theirs = tmp_path / "out/em/section_0002.tif"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"precious")
    with pytest.raises(DataError, match="did not export"):
        export_images(options(tmp_path), num_workers=1, progress=False)
    assert theirs.read_bytes() == b"precious"


def test_other_files_may_lie_in_the_directory(tmp_path):
    array = make(tmp_path, grey())
    (tmp_path / "out").mkdir()
    (tmp_path / "out/notes.txt").write_text("mine")
    np.testing.assert_array_equal(exported(options(tmp_path, out_dataset="")), array)
    assert (tmp_path / "out/notes.txt").read_text() == "mine"


def test_another_dataset_into_the_same_directory(tmp_path):
    make(tmp_path, grey())
    make(tmp_path, grey()[::-1].copy(), "volumes/other")
    export_images(options(tmp_path), num_workers=1, progress=False)
    with pytest.raises(DataError, match="with other settings"):
        export_images(options(tmp_path, "volumes/other"), num_workers=1, progress=False)


def test_deleted_images_come_back(tmp_path, caplog):
    array = make(tmp_path, grey())
    export_images(options(tmp_path), num_workers=1, progress=False)
    (tmp_path / "out/em/section_0005.tif").unlink()
    export_images(options(tmp_path), num_workers=1, progress=False)
    np.testing.assert_array_equal(images(tmp_path / "out/em"), array)
    assert "1 images are gone" in caplog.text


def test_a_full_disk_leaves_no_half_image(tmp_path, monkeypatch):
    make(tmp_path, grey())
    job, output = export.prepare_export(options(tmp_path))

    def full(stream, *args, **kwargs):
        stream.write(b"half an ima")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tifffile, "imwrite", full)
    with pytest.raises(DataError, match=r"section_0000\.tif cannot be written: .*No space left"):
        run_in_process(job)
    assert [p.name for p in output.path.iterdir()] == [".incasem"]


def test_missing_dataset_and_no_workers(tmp_path):
    make(tmp_path, grey())
    with pytest.raises(DataError, match="volumes/raw"):
        export_images(options(tmp_path, "volumes/row"), num_workers=1)
    with pytest.raises(ConfigError, match="num_workers"):
        export_images(options(tmp_path), num_workers=0)


def test_pairs(tmp_path):
    pairs = pair_exports(
        [Path("a.zarr"), Path("b.zarr")], [["x", "y"], ["x"]], tmp_path, [["ax", "ay"], ["bx"]]
    )
    assert [p.images_dir.name for p in pairs] == ["ax", "ay", "bx"]
    assert pair_exports([Path("a.zarr")], [["v/x"]], tmp_path)[0].images_dir == tmp_path / "v/x"
    with pytest.raises(ConfigError, match="different directories"):
        pair_exports([Path("a.zarr"), Path("b.zarr")], [["x"], ["x"]], tmp_path)
    with pytest.raises(ConfigError, match="one name for each"):
        pair_exports([Path("a.zarr")], [["x", "y"]], tmp_path, [["x"]])
    with pytest.raises(ConfigError, match="one list"):
        pair_exports([Path("a.zarr")], [["x"], ["y"]], tmp_path)


def test_all_are_checked_before_the_first_is_exported(tmp_path):
    make(tmp_path, grey())
    both = [options(tmp_path), options(tmp_path, "volumes/nix", out_dataset="nix")]
    with pytest.raises(DataError, match="volumes/nix"):
        list(export.export_stacks(both, num_workers=1, progress=False))
    assert not (tmp_path / "out").exists()


def test_a_file_in_the_place_of_the_output(tmp_path):
    make(tmp_path, grey())
    (tmp_path / "out").write_text("mine")
    with pytest.raises(DataError, match="allowed: a directory"):
        exported(options(tmp_path))
    assert (tmp_path / "out").read_text() == "mine"
