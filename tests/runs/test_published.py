"""The seven published models: their cards, their checkpoints, and how all of it is downloaded."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from incasem.cli import main
from incasem.errors import CheckpointError
from incasem.networks import Unet
from incasem.prediction import prepare_prediction
from incasem.runs.predict import PredictionRequest, look_up, predict
from incasem.runs.published import RECORDS
from incasem.tracking import MODEL_CARDS, TRAININGS, DirectoryStore, published_checkpoint
from incasem.volumes import create_volume
from tests.downloads.conftest import published, s3  # noqa: F401 - fixtures
from tests.tracking import dump

MODELS = {1847: 5, 1837: 5, 1841: 5, 1675: 4, 1669: 4, 1986: 4, 2000: 4}
UNCERTAIN = (1675, 1669, 1986, 2000)
SHAPE = (8, 8, 8)
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Random weights of the published network in the published format."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "checkpoint.pt"
    torch.save({"model_state_dict": Unet().state_dict(), "optimizer_state_dict": {}}, path)
    return path


def write_cell(folder, voxel_size):
    raw = create_volume(folder / "cell.zarr/raw", shape=SHAPE, dtype=np.uint8, voxel_size=(voxel_size,) * 3)
    raw.write_voxels(raw.roi_voxels, np.full(SHAPE, 100, np.uint8))
    entry = {"file": "cell.zarr", "offset": [0, 0, 0], "shape": SHAPE, "raw": "raw"}
    entry["voxel_size"] = [voxel_size] * 3
    (folder / "cell.json").write_text(json.dumps({"cell": entry}))


def overrides(folder, *more):
    return [
        f"prediction.data={folder / 'cell.json'}", f"directories.data={folder}",
        f"directories.runs={folder / 'runs'}", "prediction.torch.device=cpu", *more,
    ]  # fmt: skip


@pytest.mark.parametrize(("run_id", "voxel_size"), MODELS.items())
def test_each_model_is_ready_to_predict_without_a_database(tmp_path, caplog, checkpoint, run_id, voxel_size):
    write_cell(tmp_path, voxel_size)
    asked = look_up(PredictionRequest("p", run_id, overrides=overrides(tmp_path)))
    assert asked.config.model.num_fmaps == 32
    prepare_prediction(asked.config, asked.entries, checkpoint=checkpoint)
    notes = [r.message for r in caplog.records if r.message.startswith(f"model {run_id} ")]
    assert bool(notes) == (run_id in UNCERTAIN)
    assert all("\n" not in note for note in notes)


@pytest.mark.parametrize("run_id", MODELS)
def test_each_card_says_what_it_knows(run_id):
    (path,) = MODEL_CARDS.glob(f"{run_id}_*.json")
    card = json.loads(path.read_text())
    assert card["run_id"] == run_id
    assert card["config"]["data"]["voxel_size"] == card["voxel_size_nm"] == [MODELS[run_id]] * 3
    assert card["voxel_size_claimed_nm"] == [5 if run_id in (1986, 2000) else MODELS[run_id]] * 3
    assert {"organelle", "fixation", "imaging", "sources"} <= set(card)
    uncertain = run_id in UNCERTAIN
    assert bool(card["unknown"]) == bool(card["notes"]) == (card["checkpoint"] is None) == uncertain
    assert ("CF" in card["fixation"]) == path.stem.endswith("_CF")


@pytest.mark.parametrize("run_id", [1986, 2000])
def test_the_disputed_voxel_size_can_be_chosen(tmp_path, caplog, run_id):
    write_cell(tmp_path, 5)
    look_up(PredictionRequest("p", run_id, overrides=overrides(tmp_path, "data.voxel_size=[5,5,5]")))
    assert "the guide says 5 x 5 x 5 nm, the published database 4 x 4 x 4 nm" in caplog.text


def test_the_downloaded_checkpoint_is_found(tmp_path):
    card = tmp_path / "1841_er_CF.json"
    card.write_text((MODEL_CARDS / card.name).read_text())
    assert published_checkpoint(1841, tmp_path) is None
    folder = tmp_path / "pretrained_checkpoints"
    folder.mkdir()
    first = folder / "model_checkpoint_1841_er_CF.pt"
    first.touch()
    (folder / "model_checkpoint_18410_x.pt").touch()
    (folder / "model_checkpoint_7_x.pt").touch()
    assert published_checkpoint(1841, tmp_path) == first
    assert published_checkpoint(7, tmp_path) is None, "not a published model"
    (folder / "model_checkpoint_1841_b.pt").touch()
    with pytest.raises(CheckpointError, match=r"one of model_checkpoint_1841_b.pt, model_checkpoint_1841_er"):
        published_checkpoint(1841, tmp_path)


@pytest.mark.slow
def test_the_guides_command_runs_with_the_downloaded_checkpoint(tmp_path, checkpoint):
    write_cell(tmp_path, 5)
    card = tmp_path / "models/1841_er_CF.json"
    (card.parent / "pretrained_checkpoints").mkdir(parents=True)
    card.write_text((MODEL_CARDS / card.name).read_text())
    downloaded = card.parent / "pretrained_checkpoints/model_checkpoint_1841_er_CF.pt"
    downloaded.write_bytes(checkpoint.read_bytes())
    request = PredictionRequest(
        "p", 1841, overrides=overrides(tmp_path, "prediction.num_workers=1"), models=card.parent
    )
    assert predict(request, lambda line: None) == 1
    assert (tmp_path / "cell.zarr/volumes/predictions/train_1841/predict_0001/segmentation").is_dir()


def test_download_models_brings_checkpoints_and_records(published, tmp_path, monkeypatch):  # noqa: F811
    """The script of the guide, from its folder, against the stand-in; run twice."""
    published.put("asem-project", f"models/{RECORDS}", dump.archive(dump.published_run(1841)))
    monkeypatch.setenv("INCASEM_RUNS", str(tmp_path / "runs"))
    command = [sys.executable, "download_models.py", "--to", str(tmp_path / "models")]
    for times in (1, 2):
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        assert ("1 runs (1841) copied to" in done.stdout) == (times == 1)
    checkpoint = tmp_path / "models/pretrained_checkpoints/model_checkpoint_1841_er_CF.pt"
    assert checkpoint.stat().st_size == 3_000_000
    assert DirectoryStore(tmp_path / "runs", TRAININGS).config(1841)["training"]["iterations"] == 90000


def test_download_of_a_volume_and_the_list(published, tmp_path, capsys):  # noqa: F811
    assert main(["download", "--list"]) == 0
    shown = capsys.readouterr().out
    assert "s3://asem-project" in shown
    assert "models, cell_6" in shown
    assert "cell_3" in shown
    assert main(["download", "cell_6", "--to", str(tmp_path), "--only", "volumes/raw"]) == 0
    assert (tmp_path / "cell_6/cell_6.zarr/volumes/raw/0.0.1").is_file()
    assert not (tmp_path / "cell_6/cell_6.zarr/volumes/labels").exists()
    assert main(["download", "cell_7", "--to", str(tmp_path)]) == 3
    assert "Did you mean 'cell_6'?" in capsys.readouterr().err
    assert main(["download", "--bucket", "s3://a/b"]) == 2
    assert main(["download", "--workers", "0"]) == 2


def test_a_torn_dump_is_one_message(tmp_path, capsys):
    (tmp_path / "dump").write_bytes(dump.archive(dump.published_run(1))[:-30])
    assert main(["import-runs", str(tmp_path / "dump"), "--store", str(tmp_path / "runs")]) == 6
    assert "breaks off at byte" in capsys.readouterr().err
    assert main(["import-runs", str(tmp_path / "nowhere")]) == 6
