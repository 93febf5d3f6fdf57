"""A series of checkpoints: predicted, scored, compared, and gone on with after a kill."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from incasem.errors import CheckpointError, ConfigError
from incasem.networks import Unet, save_checkpoint
from incasem.runs.checkpoint_series import CheckpointSeries
from incasem.runs.predict import PredictionRequest, predict
from incasem.runs.predict_multiple import predict_multiple
from incasem.tracking import PREDICTIONS, open_store
from incasem.volumes import create_volume, open_volume
from tests.evaluation.test_report import Page
from tests.runs.test_predict import MODEL, SHAPE, home, overrides, recorded, write_data

__all__ = ["home"]
SCRIPT = Path(__file__).parents[2] / "scripts/03_predict/predict_multiple.py"
ITERATIONS = (0, 100, 1000)


@pytest.fixture
def trained(home):
    """The home with labels and a training of three checkpoints, the second of which is right."""
    labels = create_volume(home / "cell.zarr/ball", shape=SHAPE, dtype=np.uint8, voxel_size=(5, 5, 5))
    labels.write_voxels(labels.roi_voxels, np.random.default_rng(1).integers(0, 2, SHAPE, dtype=np.uint8))
    write_data(home, labels={"ball": 1})
    folder = home / "runs/models/0001"
    for iteration in ITERATIONS:
        torch.manual_seed(iteration)
        network = Unet(num_fmaps=2, downsample_factors=((2, 2, 2),))
        with torch.no_grad():  # says background, structure, background
            last = list(network.parameters())[-1]
            last.copy_(torch.tensor([-9.0, 9.0] if iteration == 100 else [9.0, -9.0]))
        save_checkpoint(folder / f"model_checkpoint_{iteration}", network, None, {})
    return home


def settings(home, *more):
    return [word for word in overrides(home, *more) if not word.startswith("prediction.checkpoint")]


def start(home, *more, series=None):
    lines = []
    request = PredictionRequest("series", 1, overrides=settings(home, *more))
    return predict_multiple(request, series or CheckpointSeries(), lines.append), lines


def test_all_checkpoints_are_predicted_scored_and_compared(trained):
    number, lines = start(trained)

    group = trained / f"cell.zarr/volumes/predictions/train_0001/predict_{number:04d}"
    for iteration in ITERATIONS:
        segmentation = open_volume(group / f"iteration_{iteration:06d}/segmentation")
        expected = 1 if iteration == 100 else 0
        assert (segmentation.read(segmentation.roi) == expected).all()
    report = trained / "runs/reports/predict_0001"
    with (report / "scores.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["class"] == "1"]
    assert [int(row["iteration"]) for row in rows] == [0, 100, 1000]
    assert [float(row["f1"]) > 0.6 for row in rows] == [False, True, False]
    stored = json.loads((report / "scores.json").read_text())
    assert stored["best"]["iteration"] == 100
    assert len(stored["scores"]) == 2 * len(ITERATIONS)
    assert (report / "f1.png").read_bytes().startswith(b"\x89PNG")
    html = (report / "report.html").read_text()
    text = " ".join(Page(html).text)
    for wanted in (
        "iteration 100, best", "cell, z = 19", "Time of each checkpoint", "iteration 1000", "slowest",
        "cell: slowest blocks", "compute", "model.num_fmaps",
    ):  # fmt: skip
        assert wanted in text, wanted
    assert not (report / "block_times").exists(), "kept until the page is there"
    assert any(line.startswith("the best: iteration 100, F1 0.6") for line in lines)


@pytest.mark.slow
def test_the_record_holds_the_metrics_by_iteration(trained):
    number, _ = start(trained)
    with open_store(None, trained / "runs", PREDICTIONS, {}) as store:
        info, metrics, config = store.info(number), store.metrics(number), store.config(number)

    assert info.status == "COMPLETED"
    assert {"cell.json", "scores.csv", "scores.json", "f1.png"} <= set(info.artifacts)
    for name in ("f1_class_1_ds_0", "dice_class_1_ds_0", "jaccard_class_0_ds_0", "precision_1_ds_0",
                 "average_precision_class_1_ds_0"):  # fmt: skip
        assert metrics[name].steps == ITERATIONS
    assert info.result["best"]["iteration"] == 100
    single = info.result["iterations"]["100"]
    assert single["scores"]["cell"][1]["f1"] == metrics["f1_class_1_ds_0"].values[1]
    assert single["folders"][0].endswith("predict_0001/iteration_000100")
    assert config["prediction"]["run_id_training"] == 1


def test_a_single_prediction_has_the_same_scores(trained):
    start(trained, series=CheckpointSeries(iterations=(100,)))
    checkpoint = trained / "runs/models/0001/model_checkpoint_100"
    words = [*settings(trained, "prediction.log_metrics=True"), f"prediction.checkpoint={checkpoint}"]
    number = predict(PredictionRequest("one", 1, overrides=words), lambda line: None)
    with open_store(None, trained / "runs", PREDICTIONS, {}) as store:
        series, one = store.info(1).result["iterations"]["100"], store.info(number).result

    assert one["scores"] == series["scores"]
    assert 0 < one["scores"]["cell"][1]["average_precision"] < 1


@pytest.mark.slow
def test_scores_can_be_left_out(trained):
    write_data(trained)
    with pytest.raises(ConfigError, match=r"prediction\.log_metrics"):
        start(trained)
    _, lines = start(trained, "prediction.log_metrics=False")
    assert not any("best" in line for line in lines)
    report = trained / "runs/reports/predict_0001"
    text = " ".join(Page((report / "report.html").read_text()).text)
    assert "3 checkpoints predicted, not scored. Shown is iteration 1000." in text
    assert "cell: slowest blocks" in text
    assert not (report / "scores.csv").exists()


@pytest.mark.parametrize("damage", ["torn", "other network"])
def test_a_bad_checkpoint_is_found_before_anything_is_recorded(trained, damage):
    path = trained / "runs/models/0001/model_checkpoint_1000"
    if damage == "torn":
        path.write_bytes(path.read_bytes()[:500])
    else:
        save_checkpoint(path, Unet(num_fmaps=3, downsample_factors=((2, 2, 2),)), None, {"model": MODEL})
    with pytest.raises(CheckpointError, match=r"model_checkpoint_1000|does not fit"):
        start(trained)
    assert recorded(trained) == []
    assert not (trained / "cell.zarr/volumes").exists()


@pytest.mark.slow
def test_the_script_goes_on_after_a_kill(trained):
    command = [
        sys.executable, str(SCRIPT), "--run_id", "1", "--checkpoint_dir", "runs/models/0001",
        "--start", "0", "--stop", "100", "--step", "100", "with", *settings(trained),
    ]  # fmt: skip
    group = trained / "cell.zarr/volumes/predictions/train_0001"
    killed = subprocess.Popen(
        command, cwd=trained, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 300
    while not (group / "predict_0001/iteration_000100").exists():
        assert killed.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not (trained / "runs/reports/predict_0001/report.html").exists()
    first = open_volume(group / "predict_0001/iteration_000000/segmentation").attributes["incasem"]

    done = subprocess.run(command, cwd=trained, capture_output=True, text=True, timeout=300, check=False)

    assert done.returncode == 0, done.stderr
    assert "prediction 1 goes on" in done.stdout
    assert "already complete" in done.stdout.split("iteration 100 ")[0]
    assert "the best: iteration 100" in done.stdout
    assert not (group / "predict_0002").exists()
    again = open_volume(group / "predict_0001/iteration_000000/segmentation").attributes["incasem"]
    assert again == first
    assert (trained / "runs/reports/predict_0001/scores.csv").exists()
    assert not (group / "predict_0001/iteration_001000").exists()
