"""A training from its settings to its files: what it leaves, what it repeats, what it continues."""

import json

import numpy as np
import pytest
import torch

from incasem.config import load_data_config
from incasem.errors import CheckpointError, ConfigError, DataError, TrackingError
from incasem.networks import Unet, load_checkpoint, load_into
from incasem.tasks import semantic_loss
from incasem.tracking import TRAININGS, open_store
from incasem.training.feed import SampleFeed
from incasem.training.run import TrainingRequest, train
from incasem.volumes import create_volume, open_volume
from tests.training.conftest import config, run


def losses(project, run_id, runs="runs"):
    with open_store(None, project / runs, TRAININGS, {}) as store:
        metric = store.metrics(run_id)["loss_train_0"]
    return dict(zip(metric.steps, metric.values, strict=True))


def weights(project, run_id, iteration, runs="runs"):
    return load_checkpoint(project / runs / f"models/{run_id:04d}/model_checkpoint_{iteration}").model_state


def test_what_a_training_leaves(project):
    run_id, lines = run(project)
    assert run_id == 1
    runs = project / "runs"
    assert {p.name for p in (runs / "models/0001").iterdir()} == {
        f"model_checkpoint_{i}{suffix}" for i in (0, 2, 4) for suffix in ("", ".json")
    }
    sidecar = json.loads((runs / "models/0001/model_checkpoint_4.json").read_text())
    assert sidecar["classes"] == ["ball"]
    assert sidecar["run_id"] == 1
    assert sidecar["iteration"] == 4
    assert 0 <= sidecar["scores"]["validate"]["f1_class_1"] <= 1
    assert sidecar["model"]["num_fmaps"] == 2
    with open_store(None, runs, TRAININGS, {}) as store:
        metrics = store.metrics(1)
        assert store.info(1).status == "COMPLETED"
        assert "train.json" in store.info(1).artifacts
    assert {
        "num_params", "loss_train_0", "pct_class_0", "pct_class_1", "dice_class_1_train",
        "loss_val_ds_0_type_0", "dice_class_1_validation_ds_0", "f1_class_1_validation_ds_0",
    } <= set(metrics)  # fmt: skip
    assert metrics["f1_class_1_validation_ds_0"].values == metrics["dice_class_1_validation_ds_0"].values
    assert metrics["loss_train_0"].steps == (0, 1, 2, 3, 4)
    for name in ("raw", "labels", "mask", "metric_mask", "loss_scalings", "predictions"):
        open_volume(runs / f"snapshots/0001/training/4.zarr/{name}")
    raw = open_volume(runs / "snapshots/0001/training/4.zarr/raw")
    labels = open_volume(runs / "snapshots/0001/training/4.zarr/labels")
    assert raw.shape == (28, 28, 28)
    assert raw.roi_voxels.contains(labels.roi_voxels)
    assert list((runs / "tensorboard/0001/validation/validate").glob("events*"))
    assert "waiting for samples" in (runs / "reports/0001/report.html").read_text()
    assert any("F1" in line for line in lines)


def test_validation_snapshot_is_the_ground_truth(project):
    run(project, "training.iterations=0")
    stored = open_volume(project / "runs/snapshots/0001/validation/validate/0.zarr/labels")
    labels = open_volume(project / "cell.zarr/volumes/labels/ball")
    assert (stored.read(stored.roi) == (labels.read(stored.roi) > 0)).all()


def test_the_same_seed_gives_the_same_run(project):
    run(project, runs="a")
    run(project, "training.precache.num_workers=1", runs="b")
    run(project, "seed=8", runs="c")
    assert losses(project, 1, "a") == losses(project, 1, "b")
    assert losses(project, 1, "a") != losses(project, 1, "c")
    for name, value in weights(project, 1, 4, "a").items():
        assert torch.equal(value, weights(project, 1, 4, "b")[name])


@pytest.mark.parametrize(
    "settings",
    [
        [],
        pytest.param(["training.ema_decay=0.9"], marks=pytest.mark.slow),
        pytest.param(["training.weight_standardization=true"], marks=pytest.mark.slow),
        ["training.ema_decay=0.9", "training.weight_standardization=true"],
        ["training.swa_start=2", "training.accumulate=2", "training.precision=fp16"],
    ],
)
def test_a_continued_run_equals_an_uninterrupted_one(project, settings):
    whole, _ = run(project, *settings, "training.iterations=6", runs="whole")
    run(project, *settings, "training.iterations=3")
    checkpoint = project / "runs/models/0001/model_checkpoint_3"
    assert checkpoint.exists(), "the last iteration is saved although it is no multiple of save_every"
    second, _ = run(project, *settings, "training.iterations=6", continue_run=1)
    assert second == 2
    assert not (project / "runs/models/0002").exists(), "a continued run writes to the folder of the first"
    expected = losses(project, whole, "whole")
    assert losses(project, second) == {step: expected[step] for step in (4, 5, 6)}
    for name, value in weights(project, whole, 6, "whole").items():
        assert torch.equal(value, weights(project, 1, 6)[name])


def test_a_continued_run_can_be_continued_again(project):
    whole, _ = run(project, "training.iterations=5", runs="whole")
    run(project, "training.iterations=3")
    run(project, "training.iterations=4", continue_run=1)
    third, _ = run(project, "training.iterations=5", continue_run=2)
    assert losses(project, third) == {5: losses(project, whole, "whole")[5]}
    for name, value in weights(project, whole, 5, "whole").items():
        assert torch.equal(value, weights(project, 1, 5)[name])


def test_repeating_a_fine_tuned_run_starts_from_the_same_weights(project):
    run(project)
    start = project / "runs/models/0001/model_checkpoint_4"
    run(project, "training.iterations=1", start_from=(1, start))
    run(project, "training.iterations=1", repeat_run=2)
    assert losses(project, 3) == losses(project, 2)


@pytest.mark.parametrize("what", ["labels", "mask"])
def test_nothing_to_learn_from(project, what):
    """It used to train to the end, without a sign."""
    path = project / "train.json"
    entries = json.loads(path.read_text())
    for entry in entries.values():
        container = project / entry["file"]
        like = open_volume(container / entry["raw"])
        empty = create_volume(
            container / f"volumes/empty_{what}",
            shape=like.shape,
            dtype=np.uint8,
            voxel_size=like.voxel_size,
            offset_nm=like.offset_nm,
        )
        empty.write_voxels(empty.roi_voxels, np.zeros(like.shape, np.uint8))
        entry |= (
            {"labels": {"volumes/empty_labels": 1}} if what == "labels" else {"mask": "volumes/empty_mask"}
        )
    path.write_text(json.dumps(entries))
    with pytest.raises(DataError, match=rf"the {what} .*(background everywhere|is 0 in all)"):
        run(project)
    assert not list((project / "runs").glob("sacred/*/1")), "nothing is recorded"


def test_a_checkpoint_that_does_not_fit_is_found_before_the_run_is_recorded(project):
    run(project)
    start = project / "runs/models/0001/model_checkpoint_4"
    with pytest.raises(CheckpointError):
        run(project, "model.num_fmaps=7", start_from=(1, start))
    assert not list((project / "runs").glob("sacred/*/2"))


def test_a_torn_checkpoint_is_passed_over(project):
    run(project)
    torn = project / "runs/models/0001/model_checkpoint_4"
    torn.write_bytes(torn.read_bytes()[:1000])
    _, lines = run(project, "training.iterations=6", continue_run=1)
    assert any("iterations 3 to 6" in line for line in lines)


def test_the_scaler_goes_on_where_it_was(project):
    settings = ["training.precision=fp16", "training.accumulate=2"]
    run(project, *settings, "training.iterations=3")
    run(project, *settings, "training.iterations=5", continue_run=1)
    for iteration in (3, 5):
        checkpoint = load_checkpoint(project / f"runs/models/0001/model_checkpoint_{iteration}")
        assert checkpoint.scaler_state["_growth_tracker"] == iteration + 1


def test_equal_averages_are_saved_from_their_beginning_on(project):
    settings = ["training.swa_start=3", "training.save_every=1", "training.iterations=6"]
    run(project, *settings)
    whole = [load_checkpoint(project / f"runs/models/0001/model_checkpoint_{i}") for i in range(7)]
    for iteration, checkpoint in enumerate(whole):
        members = [c.training_state for c in whole[3 : iteration + 1]] or [checkpoint.training_state]
        for name, value in checkpoint.model_state.items():
            mean = torch.stack([state[name] for state in members]).mean(dim=0)
            torch.testing.assert_close(value, mean, rtol=1e-5, atol=1e-7)


def test_accumulated_batches_are_one_large_batch(project):
    run(project, "training.batch_size=4", runs="large")
    run(
        project,
        "training.batch_size=2",
        "training.accumulate=2",
        "training.precache.num_workers=1",
        runs="parts",
    )
    expected = losses(project, 1, "large")
    assert losses(project, 1, "parts") == pytest.approx(expected, rel=1e-5)
    assert len(set(expected.values())) == len(expected)


def checkpoints(project, run_id=1):
    folder = project / f"runs/models/{run_id:04d}"
    return sorted(int(p.name.rpartition("_")[2]) for p in folder.iterdir() if p.suffix != ".json")


@pytest.mark.parametrize(("best", "kept"), [(2, [2, 6, 7]), (6, [6, 7])])
def test_kept_are_the_newest_and_the_best(project, monkeypatch, best, kept):
    monkeypatch.setattr(
        "incasem.networks.selection.mean_f1",
        lambda sidecar: None if "scores" not in sidecar else 0.9 if sidecar["iteration"] == best else 0.1,
    )
    leftover = project / "runs/models/0001/.model_checkpoint_1.abc.tmp"
    leftover.parent.mkdir(parents=True)
    leftover.touch()
    settings = ["training.save_every=1", "validation.validate_every=1", "training.iterations=7"]
    run(project, *settings, "training.checkpoints.keep=2")
    assert checkpoints(project) == kept
    names = {f"model_checkpoint_{i}{suffix}" for i in kept for suffix in ("", ".json")}
    assert {p.name for p in leftover.parent.iterdir()} == names


def test_a_torn_newest_checkpoint_does_not_push_out_a_new_one(project):
    settings = ["training.save_every=1", "validation.data=none", "training.checkpoints.keep=2"]
    run(project, *settings)
    assert checkpoints(project) == [3, 4]
    torn = project / "runs/models/0001/model_checkpoint_4"
    torn.write_bytes(torn.read_bytes()[:-100])
    whole, _ = run(project, *settings, "training.iterations=6", runs="whole")
    _, lines = run(project, *settings, "training.iterations=6", continue_run=1)
    assert any("iterations 4 to 6" in line for line in lines)
    assert checkpoints(project) == [5, 6]
    for name, value in weights(project, whole, 6, "whole").items():
        assert torch.equal(value, weights(project, 1, 6)[name])


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (["training.ema_decay=0.9", "training.swa_start=3"], r"training\.swa_start"),
        (["training.swa_start=5"], r"training\.swa_start is 5.*iterations = 4"),
        (["loss.cross_entropy_weight=0"], r"loss\.cross_entropy_weight"),
        (["training.checkpoints.keep=0"], r"training\.checkpoints\.keep"),
        (["training.accumulate=0"], r"training\.accumulate"),
    ],
)
def test_settings_that_make_no_sense_are_found_before_the_run_is_recorded(project, settings, named):
    with pytest.raises(ConfigError, match=named):
        run(project, *settings)
    assert not (project / "runs/sacred").exists()


@pytest.mark.parametrize("weights_of_losses", [(1, 0, 0), (0.5, 0.25, 0.25), (0, 1, 0)])
def test_fine_tuning_begins_with_the_loss_of_the_loaded_network(project, weights_of_losses):
    names = ("cross_entropy_weight", "bce_weight", "dice_weight")
    settings = [f"loss.{name}={value}" for name, value in zip(names, weights_of_losses, strict=True)]
    run(project)
    start = project / "runs/models/0001/model_checkpoint_4"
    second, _ = run(project, *settings, "seed=11", "training.iterations=1", start_from=(1, start))
    network = Unet(num_fmaps=2, downsample_factors=((2, 2, 2),))
    load_into(network, load_checkpoint(start))
    used = config(project, "seed=11")
    entries = load_data_config(project / "train.json", project)
    with SampleFeed(entries, used, (28, 28, 28), (10, 10, 10), seed=11) as feed, torch.inference_mode():
        batch = next(feed.batches())
        logits = network(batch.raw.contiguous(memory_format=torch.channels_last_3d))
        loss = semantic_loss.loss(
            logits, batch.labels, batch.loss_scale, (1, 1), semantic_loss.Terms(*weights_of_losses)
        )
    assert losses(project, second)[0] == pytest.approx(float(loss), rel=1e-6)


def test_fine_tuning_takes_the_settings_of_that_run_but_neither_its_folder_nor_its_start(project):
    run(project, "loss.dice_weight=0.25", "training.iterations=2")
    run(project, "loss.dice_weight=0.25", "training.iterations=3", continue_run=1)
    start = project / "runs/models/0001/model_checkpoint_3"
    own = ("training.iterations=0", f"directories.runs={project / 'runs'}", "training.optimizer.lr=0.002")
    third = train(TrainingRequest(name="tuned", overrides=own, start_from=(2, start)), lambda line: None)
    with open_store(None, project / "runs", TRAININGS, {}) as store:
        recorded = store.config(third)
    assert recorded["loss"]["dice_weight"] == 0.25
    assert recorded["model"]["num_fmaps"] == 2
    assert recorded["training"]["optimizer"]["lr"] == 0.002
    assert recorded["training"]["start_from"] == [2, str(start)]
    assert recorded["training"]["continue_id"] is None
    assert checkpoints(project, third) == [0]


def test_fine_tuning_starts_from_exactly_those_weights(project):
    """Also for a run id below 1000, where the published code began from scratch."""
    run(project)
    start = project / "runs/models/0001/model_checkpoint_4"
    second, _ = run(project, "training.iterations=0", "training.optimizer.lr=1e-9", start_from=(1, start))
    assert second == 2
    for name, value in weights(project, 2, 0).items():
        assert torch.allclose(value, weights(project, 1, 4)[name], atol=1e-7)


def test_fine_tuning_goes_on_with_standardised_filters(project):
    settings = ["training.weight_standardization=true", "training.ema_decay=0.5"]
    run(project, *settings)
    start = project / "runs/models/0001/model_checkpoint_4"
    run(project, *settings, "training.iterations=0", "training.optimizer.lr=1e-9", start_from=(1, start))
    for name, value in weights(project, 2, 0).items():
        assert torch.allclose(value, weights(project, 1, 4)[name], atol=1e-5)


def test_standardising_a_network_that_was_trained_without_is_refused(project):
    run(project)
    start = project / "runs/models/0001/model_checkpoint_4"
    with pytest.raises(ConfigError, match=r"training\.weight_standardization"):
        run(project, "training.weight_standardization=true", start_from=(1, start))


def test_fine_tuning_honours_the_learning_rate(project):
    run(project)
    start = project / "runs/models/0001/model_checkpoint_4"
    run(project, "training.optimizer.lr=0.5", "training.iterations=0", start_from=(1, start))
    moved = max(
        float((value - weights(project, 1, 4)[name]).abs().max())
        for name, value in weights(project, 2, 0).items()
    )
    assert moved > 0.1


def test_repeat_run_takes_settings_and_seed(project):
    run(project, "seed=null")
    second, _ = run(project, "seed=null", repeat_run=1)
    assert losses(project, 1) == losses(project, second)


def test_an_unknown_run(project):
    with pytest.raises(TrackingError, match="99"):
        run(project, continue_run=99)
    assert not (project / "runs/models").exists()


def test_two_runs_to_build_on(project):
    with pytest.raises(ConfigError, match="--continue_run"):
        run(project, continue_run=1, repeat_run=1)


def test_a_run_without_checkpoints_cannot_continue(project):
    run(project, "training.iterations=0")
    for path in (project / "runs/models/0001").iterdir():
        path.unlink()
    with pytest.raises(CheckpointError, match="continue_run"):
        run(project, continue_run=1)


def test_a_loss_that_is_not_finite_stops_the_run(project):
    with pytest.raises(DataError, match=r"the loss is (nan|inf).*'train'.*voxel"):
        run(project, "training.optimizer.lr=1e30", "training.iterations=30")
    assert load_checkpoint(project / "runs/models/0001/model_checkpoint_0").model_state


def test_check_commit(project, monkeypatch):
    run(project, "training.iterations=0")
    run(project, "training.iterations=0", repeat_run=1, check_commit=True)
    monkeypatch.setattr("incasem.training.preparation.git_state", lambda: {"commit": "0123abc"})
    with pytest.raises(ConfigError, match=r"0123abc.*--check_commit"):
        run(project, "training.iterations=0", repeat_run=1, check_commit=True)
