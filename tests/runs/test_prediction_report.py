"""What a prediction's page shows, that it is made of failures too, and that little is read for it."""

import re

import numpy as np
import pytest

from incasem.errors import FailedBlocksError
from incasem.geometry import Roi
from incasem.runs.prediction_report import _affordable_window, decoded_voxels, middle_window
from incasem.volumes import create_volume
from tests.evaluation.test_report import Page
from tests.runs.test_predict import SHAPE, home, start, write_data

__all__ = ["home"]  # a fixture


def page(home, number=1):
    text = (home / f"runs/reports/predict_{number:04d}/report.html").read_text()
    return text, " ".join(Page(text).text)


def test_a_prediction_leaves_a_page(home):
    labels = create_volume(home / "cell.zarr/labels", shape=SHAPE, dtype=np.uint8, voxel_size=(5, 5, 5))
    labels.write_voxels(labels.roi_voxels, np.random.default_rng(0).integers(0, 2, SHAPE, dtype=np.uint8))
    write_data(home, labels={"labels": 1})
    start(home, "prediction.log_metrics=True")
    html, text = page(home)
    for wanted in (
        "Prediction 1 (p) with training run 1", "cell, z = 19", "cell, y = 19", "cell, x = 19", "probability",
        "overlay", "cell, class 1", "average precision", "block (voxels)", "× the ideal", "expected time",
        "throughput of this run", "slowest blocks", "compute", "1 done", "incasem view", "incasem export",
        "prediction.tiling", "exclusion zone",
    ):  # fmt: skip
        assert wanted in text, wanted
    assert re.search(r"https?://|<script|<link|src=\"(?!data:)", html) is None
    run = home / "runs/sacred/incasem_predictions/1"
    assert (run / "report.html").read_text() == html, "the page is recorded with the run"


def test_without_labels_there_are_no_scores(home):
    start(home)
    _, text = page(home)
    assert "Scores" not in text
    assert "overlay" not in text
    assert "probability" in text


def test_failed_blocks_are_shown(home, monkeypatch):
    chunk = next(p for p in (home / "cell.zarr/raw").rglob("*") if p.is_file() and not p.name.startswith("."))
    chunk.write_bytes(b"torn")
    with pytest.raises(FailedBlocksError):
        start(home)
    _, text = page(home)
    assert "1 of 1 block failed" in text
    assert "cell: failed blocks" in text
    assert "[0:40, 0:40, 0:40] voxels" in text
    assert "1 failed" in text
    assert "probability" not in text.split("Settings")[0].replace("probabilities", ""), "nothing to look at"


def test_a_stack_of_large_images_is_not_read_for_a_section_across_it(tmp_path):
    stack = create_volume(
        tmp_path / "a.zarr/raw", shape=(3000, 20_000, 20_000), dtype=np.uint8, voxel_size=(5, 5, 5),
        chunk_shape=(1, 20_000, 20_000),
    )  # fmt: skip
    assert decoded_voxels(stack, Roi((7, 5, 5), (3, 10, 10))) == 3 * 20_000**2
    assert _affordable_window(stack, stack.roi_voxels, 1) is None
    cubes = create_volume(
        tmp_path / "a.zarr/cubes", shape=(3000, 20_000, 20_000), dtype=np.uint8, voxel_size=(5, 5, 5),
        chunk_shape=(128, 128, 128),
    )  # fmt: skip
    assert _affordable_window(cubes, cubes.roi_voxels, 1).shape == (512, 1, 512)


def test_sections_of_a_terabyte_are_windows():
    roi = Roi((5, 0, 0), (10_000, 20_000, 300))
    assert middle_window(roi, 0) == Roi((5004, 9744, 0), (1, 512, 300))
    assert middle_window(roi, 2) == Roi((4749, 9744, 149), (512, 512, 1))


def test_a_prediction_interrupted_while_it_was_scored_still_knows_its_block_times(home, monkeypatch):
    labels = create_volume(home / "cell.zarr/labels", shape=SHAPE, dtype=np.uint8, voxel_size=(5, 5, 5))
    labels.write_voxels(labels.roi_voxels, np.random.default_rng(0).integers(0, 2, SHAPE, dtype=np.uint8))
    write_data(home, labels={"labels": 1})

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("incasem.runs.predict.score_predictions", interrupt)
        with pytest.raises(KeyboardInterrupt):
            start(home, "prediction.log_metrics=True")
    assert not (home / "runs/reports/predict_0001/report.html").exists()
    start(home, "prediction.log_metrics=True")
    html, text = page(home)
    assert "cell: slowest blocks" in text
    assert "1 done before" in text
    assert "nothing was left to do" in text
    assert "<h2>Blocks</h2>" in html
    assert not (home / "runs/reports/predict_0001/block_times").exists()


@pytest.mark.parametrize("damage", [b"", b"PK torn", None])
def test_damaged_block_times_are_no_obstacle(home, monkeypatch, damage):
    times = home / "runs/reports/predict_0001/block_times/cell.npz"

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("incasem.runs.predict.score_predictions", interrupt)
        with pytest.raises(KeyboardInterrupt):
            start(home)
    if damage is None:
        np.savez(times, grid=np.zeros((4, 3), np.int64), state=np.zeros(3), seconds=np.zeros(3))
    else:
        times.write_bytes(damage)
    start(home)
    _, text = page(home)
    assert "slowest" not in text
    assert "nothing was left to do" in text
