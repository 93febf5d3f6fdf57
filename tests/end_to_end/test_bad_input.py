"""What a user gets for bad input: one clear message, an exit code, nothing overwritten, no traceback."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile

from incasem.cli import main
from incasem.volumes import create_volume, exists, list_datasets, open_volume

ROOT = Path(__file__).parents[2]
CONFIG_TRAINING = str(ROOT / "scripts/02_train/config_training.yaml")
CONFIG_PREDICTION = str(ROOT / "scripts/03_predict/config_prediction.yaml")
SMALL = (
    "model.num_fmaps=2", "training.input_size_voxels=[108,108,108]", "training.output_size_voxels=[14,14,14]",
    "validation.input_size_voxels=[108,108,108]", "validation.output_size_voxels=[14,14,14]",
    "training.iterations=0", "training.precache.num_workers=0", "torch.device=cpu",
)  # fmt: skip


@pytest.fixture
def cell(tmp_path):
    """A volume of 40³ voxels with labels, and its data configuration."""
    generator = np.random.default_rng(0)
    for name, dtype, high in (("volumes/raw", np.uint8, 256), ("volumes/labels/er", np.uint32, 2)):
        volume = create_volume(
            tmp_path / "cell.zarr" / name, shape=(40, 40, 40), dtype=dtype, voxel_size=(5, 5, 5),
            chunk_shape=(40, 40, 40),
        )  # fmt: skip
        volume.write_voxels(volume.roi_voxels, generator.integers(0, high, (40, 40, 40)).astype(dtype))
    return tmp_path


def entry(**changes):
    values = {
        "file": "cell.zarr", "offset": [0, 0, 0], "shape": [40, 40, 40], "voxel_size": [5, 5, 5],
        "raw": "volumes/raw", "labels": {"volumes/labels/er": 1},
    } | changes  # fmt: skip
    return {"cell": {key: value for key, value in values.items() if value is not None}}


def train(folder, data, *settings, validation=None):
    (folder / "train.json").write_text(json.dumps(data) if not isinstance(data, str) else data)
    (folder / "validate.json").write_text(json.dumps(validation or entry()))
    return main([
        "train", "--name", "x", "with", CONFIG_TRAINING, f"training.data={folder / 'train.json'}",
        f"validation.data={folder / 'validate.json'}", f"directories.data={folder}",
        f"directories.runs={folder / 'runs'}", *SMALL, *settings,
    ])  # fmt: skip


def message(capsys):
    """The one line on stderr."""
    error = capsys.readouterr().err
    assert "Traceback" not in error
    lines = [line for line in error.splitlines() if "error:" in line]
    assert len(lines) == 1, error
    return lines[0]


@pytest.mark.parametrize(
    ("data", "settings", "parts"),
    [
        (entry(file="missing.zarr"), (), ["missing.zarr"]),
        (entry(raw="volumes/rav"), (), ["volumes/rav", "volumes/raw"]),
        (entry(offset=[0, 0, 20]), (), ["cell", "0:40"]),
        (entry(voxel_size=[4, 4, 4]), (), ["voxel_size", "4", "5"]),
        (entry(labels={"volumes/labels/er": 2}), (), ["labels", "2", "1"]),
        (entry(), ("data.num_classes=3",), ["num_classes", "num_fmaps_out"]),
        (entry(), ("model.num_fmaps_out=3",), ["num_fmaps_out"]),
        (entry(), ("loss.weight=[1,1,1]",), ["loss.weight"]),
        (entry(), ("training.reject.probability=0.5",), ["reject.probability", "reject_probability"]),
        (entry(), ("training.iteration=5",), ["training.iteration", "iterations"]),
        (entry(), ("training.input_size_voxels=[110,108,108]",), ["input_size_voxels", "110", "108"]),
        (entry(), ("training.output_size_voxels=[20,14,14]",), ["output_size_voxels", "14"]),
        ({}, (), ["train.json"]),
        (entry(laybels={}), (), ["laybels", "labels"]),
        ('{"a": ', (), ["train.json", "line"]),
    ],
    ids=lambda value: None if isinstance(value, dict) else "-".join(value)[:60] or "defaults",
)  # fmt: skip
def test_training(cell, capsys, data, settings, parts):
    assert train(cell, data, *settings) != 0
    text = message(capsys)
    for part in parts:
        assert part in text, text
    assert not (cell / "runs/models").exists()


def test_labels_that_do_not_overlap_raw(cell, capsys):
    far = create_volume(
        cell / "cell.zarr/volumes/labels/far", shape=(8, 8, 8), dtype=np.uint8, voxel_size=(5, 5, 5),
        offset_nm=(5000, 5000, 5000), chunk_shape=(8, 8, 8),
    )  # fmt: skip
    far.write_voxels(far.roi_voxels, np.ones((8, 8, 8), np.uint8))
    assert train(cell, entry(labels={"volumes/labels/far": 1})) != 0
    assert "volumes/labels/far" in message(capsys)


def test_a_missing_setting_file(cell, capsys):
    assert main(["train", "with", str(cell / "nowhere.yaml")]) != 0
    assert "nowhere.yaml" in message(capsys)


def test_no_training_data(capsys):
    assert main(["train", "with", CONFIG_TRAINING, "torch.device=cpu"]) != 0
    assert "training.data" in message(capsys)


def test_no_message_shows_the_insides_of_a_library(cell, capsys):
    assert train(cell, entry(labels={"volumes/labels/er": "1"})) != 0
    text = message(capsys)
    assert "Undefined" not in text
    assert "cell.labels is {'volumes/labels/er': '1'}" in text


def test_an_unknown_verb(capsys):
    assert main(["trian"]) != 0
    assert "'train'" in message(capsys)


def test_an_unknown_option(capsys):
    assert main(["equalize", "--filname", "x.zarr"]) != 0
    assert "-h" in message(capsys)


def test_predict_without_the_run(cell, capsys):
    (cell / "data.json").write_text(json.dumps(entry(labels=None)))
    code = main([
        "predict", "--run_id", "7", "with", CONFIG_PREDICTION, f"prediction.data={cell / 'data.json'}",
        f"directories.data={cell}", f"directories.runs={cell / 'runs'}", "prediction.torch.device=cpu",
    ])  # fmt: skip
    assert code != 0
    assert "7" in message(capsys)
    assert not exists(cell / "cell.zarr/volumes/predictions")


def test_output_of_another_shape_is_kept(cell, capsys):
    output = create_volume(
        cell / "cell.zarr/volumes/raw_equalized_0.02", shape=(8, 8, 8), dtype=np.uint8, voxel_size=(5, 5, 5),
        chunk_shape=(8, 8, 8),
    )  # fmt: skip
    output.write_voxels(output.roi_voxels, np.full((8, 8, 8), 3, np.uint8))
    assert main(["equalize", "-f", str(cell / "cell.zarr"), "-d", "volumes/raw"]) != 0
    text = message(capsys)
    assert "raw_equalized_0.02" in text
    assert "another output dataset" in text
    kept = open_volume(cell / "cell.zarr/volumes/raw_equalized_0.02")
    assert (kept.read(kept.roi) == 3).all()


def test_convert_refuses_to_wrap_16_bits(tmp_path, capsys):
    (tmp_path / "stack").mkdir()
    for z in range(3):
        tifffile.imwrite(tmp_path / f"stack/s_{z}.tif", np.full((8, 8), 1000 + z, np.uint16))
    assert main(["convert", "-i", str(tmp_path / "stack"), "-f", str(tmp_path / "x.zarr")]) != 0
    text = message(capsys)
    assert "uint16" in text
    assert "--conversion" in text
    assert not (tmp_path / "x.zarr").exists() or list_datasets(tmp_path / "x.zarr") == []


def test_convert_names_an_unreadable_image(tmp_path, capsys):
    (tmp_path / "stack").mkdir()
    for z in range(3):
        tifffile.imwrite(tmp_path / f"stack/s_{z}.tif", np.zeros((8, 8), np.uint8))
    (tmp_path / "stack/s_1.tif").write_bytes(b"II*\x00 not an image")
    assert main(["convert", "-i", str(tmp_path / "stack"), "-f", str(tmp_path / "x.zarr")]) != 0
    assert "s_1.tif" in message(capsys)
