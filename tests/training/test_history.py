"""What a training remembers, and what its report makes of it."""

import math

import numpy as np
import pytest

from incasem.config import load_training_config
from incasem.networks import ScoredCheckpoint, write_sidecar
from incasem.tasks.region_scores import RegionScores
from incasem.training.history import History, scores_of
from incasem.training.report import curves, write_training_report
from incasem.training.validation import Section, Validation

TRUTH = np.repeat([0, 1], 50)


def validation(wrong, nickname="cell", loss=0.5):
    """Of 100 voxels, the first ``wrong`` ones of the structure are missed."""
    found = TRUTH.copy()
    found[50 : 50 + wrong] = 0
    one = np.where(found == 1, 200, 50).astype(np.uint8)
    region = RegionScores(2)
    region.add(found, [255 - one, one], TRUTH, np.ones(100))
    picture = np.zeros((4, 4), np.uint8)
    section = Section(3, picture.astype(np.float32), picture, picture, picture.astype(bool))
    return Validation(nickname, loss, region, section)


def history(*wrong, saved=lambda iteration: True):
    made = History(losses=[(0, 1.0), (1000, 0.5)])
    for number, count in enumerate(wrong):
        made.add(1000 * number, [validation(count)], saved=saved(1000 * number))
    return made


def test_the_best_has_the_highest_f1_and_of_equals_is_the_newest():
    assert history(40, 10, 20).best_iteration == 1000
    assert history(40, 10, 10).best_iteration == 2000
    assert History().best_iteration is None
    assert History().shown() is None


def test_what_has_no_checkpoint_cannot_be_the_best():
    made = history(40, 10, 20, saved=lambda iteration: iteration != 1000)
    assert made.best_iteration == 2000
    unsaved = history(40, 10, saved=lambda iteration: False)
    assert unsaved.best_iteration is None
    assert unsaved.shown()[0] == 1000, "the latest"


def test_only_the_best_and_the_latest_keep_their_pictures():
    made = history(40, 10, 30, 20)
    kept = {iteration for iteration, of in made.validations if of[0].section is not None}
    assert kept == {1000, 3000}
    assert len(made.validations) == 4


def test_scores_of_the_best(tmp_path):
    path = tmp_path / "model_checkpoint_7"
    scores = {"a": {"average_precision_class_0": 0.1, "average_precision_class_1": 0.8},
              "b": {"average_precision_class_1": 0.4, "average_precision_class_2": math.nan}}  # fmt: skip
    write_sidecar(path, {"scores": scores})
    best = ScoredCheckpoint(0.5, 7, path)
    assert scores_of(best) == {"iteration": 7, "f1": 0.5, "average_precision": pytest.approx(0.6)}
    assert scores_of(None) == {}


def test_curves_of_the_report():
    loss, f1, precision_recall = curves(history(40, 10, 20))

    assert loss.lines["cell"][0] == [0, 1000, 2000]
    assert f1.lines["cell, class 1"] == ([0, 1000, 2000], [pytest.approx(v) for v in (1 / 3, 8 / 9, 0.75)])
    assert f1.marks == {"best checkpoint: iteration 1000": [(1000, pytest.approx(8 / 9))]}
    assert "iteration 1000" in precision_recall.title
    ((name, (recall, precision)),) = precision_recall.lines.items()
    assert name.startswith("cell, class 1: AP 0.9")
    assert (recall, precision) == ([0, 0.8, 1.0], [1.0, 1.0, 0.5])
    assert precision_recall.marks == {"segmentation": [(0.8, 1.0)]}, "a point of the curve"


def test_without_validations_there_is_one_curve_less():
    assert [curve.title for curve in curves(History(losses=[(0, 1.0)]))] == ["Loss", "F1"]


def test_the_page_names_the_best(tmp_path):
    best = ScoredCheckpoint(8 / 9, 1000, tmp_path / "model_checkpoint_1000")
    page = write_training_report(tmp_path, "a run", load_training_config(None), history(40, 10, 20), best)
    text = page.read_text()
    for wanted in ("The best checkpoint is model_checkpoint_1000, validated F1 0.8889", "average precision",
                   "cell, class 1 (iteration 1000, best)", "cell, class 1 (iteration 2000)"):  # fmt: skip
        assert wanted in text
    assert "iteration 0)" not in text
