"""Which checkpoint is predicted with."""

import json

import pytest
import torch

from incasem.networks import best_checkpoint, best_scored_checkpoint, remove_old_checkpoints
from incasem.networks.selection import mean_f1


def write(folder, iteration, scores):
    folder.mkdir(exist_ok=True)
    path = folder / f"model_checkpoint_{iteration}"
    torch.save({"model_state_dict": {}}, path)
    path.with_name(path.name + ".json").write_text(json.dumps({"iteration": iteration, "scores": scores}))
    return path


def test_the_best_validated_one(tmp_path):
    write(tmp_path, 1000, {"a": {"f1_class_1": 0.7, "f1_class_0": 1.0}})
    best = write(tmp_path, 2000, {"a": {"f1_class_1": 0.9}, "b": {"f1_class_1": 0.8}})
    write(tmp_path, 3000, {"a": {"f1_class_1": 0.95}, "b": {"f1_class_1": 0.7}})
    write(tmp_path, 10000, {})
    assert best_checkpoint(tmp_path) == best
    assert best_scored_checkpoint(tmp_path) == (pytest.approx(0.85), 2000, best)


def test_of_equals_the_newest(tmp_path):
    write(tmp_path, 900, {"a": {"f1_class_1": 0.7}})
    newest = write(tmp_path, 1000, {"a": {"f1_class_1": 0.7}})
    assert best_checkpoint(tmp_path) == newest


def test_none_validated_takes_the_newest(tmp_path):
    write(tmp_path, 900, {})
    newest = write(tmp_path, 1000, {})
    assert best_checkpoint(tmp_path) == newest


def test_a_sidecar_alone_is_no_checkpoint(tmp_path):
    kept = write(tmp_path, 1, {"a": {"f1_class_1": 0.1}})
    write(tmp_path, 2, {"a": {"f1_class_1": 0.9}}).unlink()
    assert best_checkpoint(tmp_path) == kept


def test_no_checkpoints(tmp_path):
    assert best_checkpoint(tmp_path) is None
    assert best_scored_checkpoint(tmp_path) is None
    assert best_checkpoint(tmp_path / "missing") is None


def test_mean_f1_leaves_out_the_background_and_what_was_not_defined():
    assert mean_f1(None) is None
    assert mean_f1({"scores": {"a": {"f1_class_0": 0.5}}}) is None
    scores = {"a": {"f1_class_1": 0.5, "f1_class_2": None}, "b": {"f1_class_12": 0.7, "loss_0": 9}}
    assert mean_f1({"scores": scores}) == pytest.approx(0.6)


def left(folder):
    return sorted(int(p.name.rpartition("_")[2]) for p in folder.glob("model_checkpoint_*[0-9]"))


def test_old_checkpoints_go_but_for_the_best(tmp_path):
    for iteration, score in ((1000, 0.3), (2000, 0.8), (3000, 0.5), (9000, None), (10000, 0.1)):
        write(tmp_path, iteration, {} if score is None else {"a": {"f1_class_1": score}})
    (tmp_path / ".model_checkpoint_4000.ab12.tmp").touch()
    (tmp_path / "notes.txt").touch()
    remove_old_checkpoints(tmp_path, 2, newest=10000)
    assert left(tmp_path) == [2000, 9000, 10000]
    assert not (tmp_path / "model_checkpoint_1000.json").exists()
    assert not list(tmp_path.glob(".*"))
    assert (tmp_path / "notes.txt").exists()
    remove_old_checkpoints(tmp_path, 5, newest=10000)
    assert left(tmp_path) == [2000, 9000, 10000]


def test_later_checkpoints_do_not_count(tmp_path):
    """They are damaged ones that a continued training has passed over."""
    for iteration in (1, 2, 3):
        write(tmp_path, iteration, {})
    (tmp_path / "model_checkpoint_4").write_bytes(b"torn")
    remove_old_checkpoints(tmp_path, 1, newest=3)
    assert left(tmp_path) == [3, 4]
