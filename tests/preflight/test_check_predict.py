"""Each thing that would stop a prediction, or spoil it, gives its finding; nothing is written."""

import json

import numpy as np
import pytest

from incasem.cli import main
from incasem.preflight.predict import check_prediction
from incasem.runs.predict import PredictionRequest
from incasem.volumes import create_volume
from tests.preflight.test_check_train import files_of, found, the
from tests.runs.test_predict import SHAPE, make_home
from tests.runs.test_predict import overrides as settings
from tests.runs.test_predict import write_data as describe


def write(path, array, **more):
    volume = create_volume(path, shape=array.shape, dtype=array.dtype, voxel_size=(5, 5, 5), **more)
    volume.write_voxels(volume.roi_voxels, array)


@pytest.fixture
def home(tmp_path):
    """A folder with all that a prediction needs, and labels."""
    make_home(tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, SHAPE, dtype=np.uint8)
    write(tmp_path / "cell.zarr/labels", (noise > 200).astype(np.uint32))
    return tmp_path


def check(home, *more, run_id=1):
    return check_prediction(PredictionRequest("p", run_id, overrides=settings(home, *more)))


def test_a_good_prediction_has_no_error_and_nothing_is_written(home):
    before = files_of(home)
    findings = check(home)
    assert found(findings, "error") == []
    assert files_of(home) == before
    the(findings, "ok", "blocks", "1 block", "TFLOP", "in 1 worker")
    the(findings, "ok", "checkpoint", "fits the network")
    the(findings, "ok", "output", "train_0001/predict_0001/segmentation")
    the(findings, "ok", "disk", "free")
    the(findings, "ok", "memory", "needed")
    the(findings, "warning", "context", "100 % of the context of 9×9×9 voxels")


def test_all_errors_are_found_at_once(home):
    describe(home, raw="row", voxel_size=[4, 4, 4])
    findings = check(
        home, f"prediction.checkpoint={home / 'gone'}", "prediction.torch.device=[0,9]",
        "prediction.log_metrics=True",
    )  # fmt: skip
    the(findings, "error", "data", "row")
    the(findings, "error", "checkpoint", "gone")
    the(findings, "error", "device", "torch.device")
    the(findings, "error", "labels", "prediction.log_metrics")
    the(findings, "error", "classes-and-voxels", "voxel_size")


@pytest.mark.parametrize(
    ("changes", "more", "level", "check_name", "parts"),
    [
        ({}, ["prediction.pecision=fp32"], "error", "settings", ["precision"]),
        ({}, ["prediction.data=gone.json"], "error", "paths", ["gone.json"]),
        ({"file": "gone.zarr"}, [], "error", "data", ["gone.zarr"]),
        ({"offset": [0, 0, 20]}, [], "error", "data", ["region of 'cell'"]),
        ({"mask": "musk"}, [], "error", "data", ["musk"]),
        ({}, ["model.num_fmaps=3"], "error", "checkpoint", ["does not fit the network"]),
        ({"voxel_size": [4, 4, 4]}, ["data.voxel_size=[4,4,4]"], "error", "checkpoint", ["trained for"]),
        ({}, ["prediction.block_size_voxels=[30,40,40]"], "error", "blocks", ["block_size_voxels"]),
        ({}, ["prediction.tiling=published"], "error", "checkpoint", ["prediction.output_size_voxels"]),
        ({"shape": [20, 20, 20], "offset": [10, 10, 10]}, [], "ok", "context", ["all of the 9×9×9"]),
        ({"offset": [4, 12, 12], "shape": [16, 16, 16]}, [], "ok", "context", ["are reflected"]),
        ({"labels": {"labels": 1}}, ["prediction.log_metrics=True"], "ok", "labels", ["labels 2"]),
    ],
)  # fmt: skip
def test_findings(home, changes, more, level, check_name, parts):
    describe(home, **changes)
    the(check(home, *more), level, check_name, *parts)


def test_an_unknown_training(home):
    the(check(home, run_id=77), "error", "settings", "run 77 is not in")


def test_missing_chunks(home):
    write(home / "cell.zarr/holed", np.full(SHAPE, 9, np.uint8), chunk_shape=(20, 20, 20))
    chunk = next(
        p for p in (home / "cell.zarr/holed").rglob("*") if p.is_file() and not p.name.startswith(".")
    )
    chunk.unlink()
    describe(home, raw="holed")
    the(check(home), "warning", "data", "1 chunks", "not stored")


def test_outputs_of_a_lost_run_store(home):
    folder = home / "cell.zarr/volumes/predictions/train_0001/predict_0001"
    for name in ("prob_maps/class_1", "segmentation"):
        write(folder / name, np.zeros(SHAPE, np.uint8), chunk_shape=SHAPE)
    the(check(home), "warning", "output", "predict_0001 exists already", "Delete or move")


def test_outputs_of_another_shape(home):
    folder = home / "cell.zarr/volumes/predictions/train_0001/predict_0001"
    for name in ("prob_maps/class_1", "segmentation"):
        write(folder / name, np.zeros((8, 8, 8), np.uint8))
    the(check(home), "error", "output", "prob_maps/class_1")


def test_json_and_exit_code(home, capsys):
    words = ["check", "predict", "--run_id", "1", "--json", "with", *settings(home)]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["what"] == "predict"
    describe(home, file="gone.zarr")
    assert main(words) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["passed"] is False
    assert document["counts"]["error"] >= 1
