"""What `incasem check volume` says of bad data, and that it reads little of large ones."""

import json

import numpy as np
import pytest

from incasem.cli import main
from incasem.geometry import Roi
from incasem.preflight.sampling import choose_sample, look_at_grey_values
from incasem.preflight.volume import check_volumes
from incasem.volumes import create_volume, open_volume
from tests.preflight.test_check_train import found, the

SHAPE = (24, 48, 48)


def write(path, array, **more):
    more = {"voxel_size": (5, 5, 5), "chunk_shape": (16, 16, 16)} | more
    volume = create_volume(path, shape=array.shape, dtype=array.dtype, **more)
    volume.write_voxels(volume.roi_voxels, array)
    return str(path)


def tissue(dtype=np.uint8):
    """Sections that resemble their neighbours."""
    rng = np.random.default_rng(0)
    picture = rng.integers(40, 200, SHAPE[1:])
    return (picture + rng.integers(-10, 10, SHAPE)).astype(dtype)


def test_a_good_volume(tmp_path):
    findings = check_volumes([write(tmp_path / "a.zarr/volumes/raw", tissue())])
    assert {f.level for f in findings.found} == {"ok"}
    the(findings, "ok", "open", "uint8, 24×48×48 (z, y, x)")
    the(findings, "ok", "voxel-size", "5, 5, 5 nm")


def with_section(z, values):
    array = tissue()
    array[z] = values(array[z])
    return array


def with_nan():
    array = tissue(np.float32) / 255
    array[3, 4, 5] = np.nan
    return array.astype(np.float32)


@pytest.mark.parametrize(
    ("array", "level", "parts"),
    [
        (tissue(np.uint16), "error", ["uint16", "65535", "all black", "ScaleToUint8"]),
        (np.full(SHAPE, 7, np.uint8), "error", ["are 7", "nothing to see"]),
        (with_section(9, np.zeros_like), "warning", ["1 section is empty", "z = 9"]),
        (with_section(16, lambda s: 255 - s), "warning", ["1 section is inverted", "z = 16"]),
        (with_nan(), "error", ["1 voxels are NaN"]),
        (tissue(np.float32), "error", ["allowed for floats: 0 to 1"]),
        ((tissue() // 16 + 90).astype(np.uint8), "warning", ["low contrast", "incasem equalize"]),
        (tissue(np.int32), "error", ["data type of the raw data"]),
    ],
)  # fmt: skip
def test_bad_grey_values_give_their_message(tmp_path, array, level, parts):
    path = write(tmp_path / "a.zarr/volumes/raw", array)
    the(check_volumes([path], "raw"), level, "grey-values", *parts)


def test_missing_chunks_and_no_voxel_size(tmp_path):
    path = write(tmp_path / "a.zarr/volumes/raw", tissue())
    next(p for p in (tmp_path / "a.zarr/volumes/raw").rglob("*") if p.name == "0" and p.is_file()).unlink()
    the(check_volumes([path]), "warning", "chunks", "1 chunks", "not stored")
    for attributes in (tmp_path / "a.zarr").rglob(".zattrs"):
        attributes.write_text("{}")
    the(check_volumes([path]), "warning", "voxel-size", "no voxel size is stored")


def test_labels_masks_and_whole_containers(tmp_path):
    write(tmp_path / "a.zarr/volumes/labels/er", (tissue() > 150).astype(np.uint32))
    write(tmp_path / "a.zarr/volumes/mask", np.zeros(SHAPE, np.uint8))
    write(tmp_path / "a.zarr/volumes/raw", tissue(), voxel_size=(4, 4, 4))
    findings = check_volumes([str(tmp_path / "a.zarr")])
    the(findings, "ok", "labels", "% nonzero, largest value 1")
    the(findings, "warning", "masks", "0 everywhere")
    the(findings, "warning", "voxel-size", "but", "Datasets of one entry")


def test_what_is_not_there(tmp_path, capsys):
    path = write(tmp_path / "a.zarr/volumes/raw", tissue())
    assert main(["check", "volume", f"{path}s", path]) == 1
    text = capsys.readouterr().out
    assert "volumes/raws" in text
    assert "grey-values  uint8" in text, "the other one is checked all the same"
    assert main(["check", "volume", "--json", path]) == 0
    assert json.loads(capsys.readouterr().out)["what"] == "volume"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "Did you mean 'train'?"),
        (["volumes", "--json", "cell.zarr/raw"], "Did you mean 'volume'?"),
        (["--json"], "allowed: train, predict, volume"),
        (["--jsn"], "--json"),
        (["--json", "volume", "gone.zarr/raw"], "gone.zarr"),
    ],
)
def test_what_cannot_be_checked(capsys, words, message):
    assert main(["check", *words]) != 0
    said = capsys.readouterr()
    assert message in said.err + said.out


def test_of_a_large_volume_little_is_read(tmp_path):
    """A volume of a terabyte: only its metadata and two sections exist."""
    volume = create_volume(
        tmp_path / "big.zarr/raw", shape=(10_000, 10_000, 10_000), dtype=np.uint8, voxel_size=(5, 5, 5),
        chunk_shape=(128, 128, 128),
    )  # fmt: skip
    sample = choose_sample(volume, volume.roi_voxels)
    assert sum(box.size for box in sample.boxes) <= 2**26
    assert len({box.begin[1:] for box in sample.boxes}) == 4
    assert not sample.whole
    assert sample.boxes[0].begin[0] < 1500
    assert sample.boxes[-1].end[0] > 8500


def test_sections_of_a_stack_are_compared_with_their_neighbours(tmp_path):
    array = np.repeat(tissue()[:1], 64, axis=0)
    array[40] = 255 - array[40]
    write(tmp_path / "a.zarr/raw", array, chunk_shape=(1, 48, 48))
    volume = open_volume(tmp_path / "a.zarr/raw")
    assert look_at_grey_values(volume, volume.roi_voxels).inverted == [40]
    part = choose_sample(volume, Roi((0, 0, 0), array.shape), most_voxels=16 * 48 * 48)
    assert len(part.boxes) == 16
    assert all(part.runs.count(run) >= 3 for run in part.runs)


def test_levels_in_the_text(tmp_path):
    findings = check_volumes([write(tmp_path / "a.zarr/volumes/raw", np.full(SHAPE, 7, np.uint8))])
    lines = findings.as_text(80).splitlines()
    assert lines[2] == str(tmp_path / "a.zarr/volumes/raw"), "what a group of findings is about"
    assert max(len(line) for line in lines[3:]) <= 80
    assert sum(line.startswith("  error    grey-values  all voxels") for line in lines) == 1
    assert lines[-1].startswith("1 error; ")
    assert len(found(findings, "error")) == 1
