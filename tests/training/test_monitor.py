"""What a training writes for TensorBoard and the run store, read back as TensorBoard reads it."""

import json

import numpy as np
import pytest

from incasem.config import load_training_config
from incasem.metrics import PrecisionRecallAccumulator
from incasem.tracking import TRAININGS, open_store
from incasem.training.directories import RunDirectories
from incasem.training.monitor import COMPARED_SETTINGS, Monitor, compared_settings
from tests.training.conftest import run

SCORES = {f"{name}_class_{c}" for c in (0, 1) for name in ("f1", "jaccard", "precision", "recall",
                                                           "average_precision")}  # fmt: skip


def events(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0, "images": 0})
    return found.Reload()


def curve_of(found, tag):
    """The six rows that the dashboard of the curves reads, a list of (step, array)."""
    from tensorboard.util import tensor_util

    return [(event.step, tensor_util.make_ndarray(event.tensor_proto)) for event in found.Tensors(tag)]


def session(found):
    """What the dashboard of the settings reads."""
    from tensorboard.plugins.hparams import metadata

    content = found.PluginTagToContent(metadata.PLUGIN_NAME)
    start = metadata.parse_session_start_info_plugin_data(content[metadata.SESSION_START_INFO_TAG])
    shown = metadata.parse_experiment_plugin_data(content[metadata.EXPERIMENT_TAG])
    return {name: value.number_value or value.string_value for name, value in start.hparams.items()}, shown


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    from tests.training.conftest import make_project

    project = make_project(tmp_path_factory.mktemp("trained"))
    _, lines = run(project)
    return project, lines


def test_a_training_shows_all_there_is(trained):
    project, _ = trained
    board = project / "runs/tensorboard/0001"
    training, validation = events(board / "training"), events(board / "validation/validate")

    assert {"loss_0", "learning_rate", "feed_wait_s", "best/f1"} <= set(training.Tags()["scalars"])
    assert set(validation.Tags()["scalars"]) == SCORES | {"loss_0"}
    assert [event.step for event in training.Scalars("loss_0")] == [0, 1, 2, 3, 4]
    assert [event.step for event in validation.Scalars("average_precision_class_1")] == [0, 4]
    assert all(event.value == pytest.approx(0.01) for event in training.Scalars("learning_rate"))
    assert all(event.value >= 0 for event in training.Scalars("feed_wait_s"))
    for found in (training, validation):
        assert set(found.Tags()["images"]) == {"raw", "labels", "predictions"}
        assert {event.step for event in found.Images("raw")} == {0, 4}


def test_the_dashboard_has_no_other_runs(trained):
    project, _ = trained
    board = project / "runs/tensorboard"
    folders = {str(path.parent.relative_to(board)) for path in board.rglob("events.out.*")}
    assert folders == {"0001/training", "0001/validation/validate"}


def test_settings_and_best_scores(trained):
    project, _ = trained
    training = events(project / "runs/tensorboard/0001/training")
    settings, shown = session(training)

    assert set(settings) == set(COMPARED_SETTINGS)
    assert settings["training.optimizer.lr"] == 0.01
    assert settings["model.num_fmaps"] == 2
    assert settings["training.input_size_voxels"] == "[28, 28, 28]"
    assert settings["training.start_from"] == "none"
    metrics = {info.name.tag for info in shown.metric_infos}
    assert metrics == {"best/iteration", "best/f1", "best/average_precision"}
    assert metrics <= set(training.Tags()["scalars"])
    sidecars = [
        json.loads((project / f"runs/models/0001/model_checkpoint_{i}.json").read_text()) for i in (0, 4)
    ]
    best = max(sidecars, key=lambda s: (s["scores"]["validate"]["f1_class_1"], s["iteration"]))
    for tag, value in (
        ("best/iteration", best["iteration"]),
        ("best/f1", best["scores"]["validate"]["f1_class_1"]),
        ("best/average_precision", best["scores"]["validate"]["average_precision_class_1"]),
    ):
        assert training.Scalars(tag)[-1].value == pytest.approx(value)


def test_the_average_precision_is_recorded_everywhere_alike(trained):
    project, _ = trained
    with open_store(None, project / "runs", TRAININGS, {}) as store:
        metric = store.metrics(1)["average_precision_class_1_validation_ds_0"]
    sidecar = json.loads((project / "runs/models/0001/model_checkpoint_4.json").read_text())
    board = events(project / "runs/tensorboard/0001/validation/validate")

    assert metric.steps == (0, 4)
    assert metric.values[-1] == sidecar["scores"]["validate"]["average_precision_class_1"]
    assert board.Scalars("average_precision_class_1")[-1].value == pytest.approx(metric.values[-1])


def test_the_curve_of_a_training(trained):
    project, _ = trained
    found = events(project / "runs/tensorboard/0001/validation/validate")

    assert set(found.PluginTagToContent("pr_curves")) == {
        "precision_recall_class_0",
        "precision_recall_class_1",
    }
    curves = curve_of(found, "precision_recall_class_1")
    assert [step for step, _ in curves] == [0, 4]
    tp, fp, tn, fn, precision, recall = curves[-1][1]
    assert (tp + fp + tn + fn == 32 * 32 * 24).all()
    assert recall[0] == 1
    assert precision[0] == pytest.approx(tp[0] / (32 * 32 * 24), rel=1e-5)
    assert (np.diff(recall) <= 0).all()


def test_a_continued_training_keeps_the_best_of_its_earlier_part(project):
    run(project, "training.iterations=2")
    path = project / "runs/models/0001/model_checkpoint_0.json"
    sidecar = json.loads(path.read_text())
    sidecar["scores"]["validate"]["f1_class_1"] = 0.9999
    path.write_text(json.dumps(sidecar))

    _, lines = run(project, "training.iterations=3", continue_run=1)

    training = events(project / "runs/tensorboard/0001/training")
    assert training.Scalars("best/iteration")[-1].value == 0
    assert training.Scalars("best/f1")[-1].value == pytest.approx(0.9999)
    assert "  the best:    model_checkpoint_0, validated F1 0.9999" in lines
    assert (
        "model_checkpoint_0, validated F1 0.9999" in (project / "runs/reports/0001/report.html").read_text()
    )


def test_a_curve_is_that_of_the_histograms(tmp_path):
    rng = np.random.default_rng(0)
    one = rng.integers(0, 256, 5000, dtype=np.uint8)
    truth = rng.random(5000) < one / 255
    accumulator = PrecisionRecallAccumulator(3)  # class 2 is nowhere
    accumulator.add([255 - one, one, np.zeros_like(one)], truth)
    with Monitor(RunDirectories(tmp_path, 1), lambda *_: None, ["cell"]) as monitor:
        monitor.validation(0, 7, {"loss_0": 1.0, "f1_class_2": float("nan")}, accumulator)
    found = events(tmp_path / "tensorboard/0001/validation/cell")

    assert found.Tags()["scalars"] == ["loss_0"]
    assert set(found.PluginTagToContent("pr_curves")) == {
        "precision_recall_class_0",
        "precision_recall_class_1",
    }
    ((step, rows),) = curve_of(found, "precision_recall_class_1")
    assert step == 7
    for index, threshold in enumerate(np.linspace(0, 1, rows.shape[1])):
        chosen = one >= round(255 * threshold)
        assert rows[0, index] == (chosen & truth).sum()
        assert rows[1, index] == (chosen & ~truth).sum()
        assert rows[4, index] == pytest.approx(truth[chosen].mean() if chosen.any() else 0, rel=1e-5)


def test_without_a_validated_checkpoint_the_settings_stand_alone(tmp_path):
    with Monitor(RunDirectories(tmp_path, 1), lambda *_: None, []) as monitor:
        monitor.outcome(load_training_config(None), 3, {})
    settings, shown = session(events(tmp_path / "tensorboard/0001/training"))
    assert settings["training.iterations"] == 200_000
    assert not shown.metric_infos


def test_compared_settings_have_one_type_each():
    plain = compared_settings(load_training_config(None))
    changed = compared_settings(
        load_training_config(
            None,
            ["training.start_from=[1, '/a']", "training.ema_decay=0.9", "training.gradient_clip=1", "seed=3"],
        )
    )
    assert [type(value) for value in plain.values()] == [type(value) for value in changed.values()]
    assert (changed["training.ema_decay"], plain["training.ema_decay"]) == (0.9, 0.0)
