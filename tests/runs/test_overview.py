"""The tables of `incasem runs`."""

import json
import os
from datetime import UTC, datetime, timedelta

import pytest

from incasem.cli import main
from incasem.runs.overview import flat, status_of, table
from incasem.runs.scored import Best, best_f1, lowest_validation_loss
from incasem.tracking import TRAININGS, DirectoryStore, Metric, RunInfo, run_experiment

pytestmark = pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")


def metric(steps, values):
    return Metric(tuple(steps), tuple(values), (datetime.now(UTC),) * len(values))


def test_the_best_f1_is_a_mean_over_classes_and_datasets_at_one_iteration():
    metrics = {
        "f1_class_0_validation_ds_0": metric([0, 10], [0.99, 0.99]),
        "f1_class_1_validation_ds_0": metric([0, 10, 20], [0.1, 0.9, 0.95]),
        "dice_class_1_validation_ds_0": metric([0, 10, 20], [1, 1, 1]),
        "f1_class_2_validation_ds_0": metric([0, 10, 20], [0.1, 0.7, 0.2]),
        "f1_class_1_validation_ds_1": metric([0, 10], [0.1, 0.8]),
        "loss_val_ds_0_type_0": metric([0, 10, 20], [3.0, 2.0, 1.0]),
    }
    assert best_f1(metrics) == Best(pytest.approx(0.8), 10)
    assert lowest_validation_loss(metrics) == Best(1.0, 20)
    published = {"dice_class_1_validation_ds_0": metric([0, 5], [0.2, 0.2])}
    assert best_f1(published) == Best(0.2, 0), "the earlier of equals"
    assert best_f1({"jaccard_class_1_ds_0": metric([0], [1])}) is None
    assert best_f1({"f1_class_1_ds_0": metric([0], [0.5])}) == Best(0.5, 0)


def test_a_run_without_a_sign_of_life_is_not_called_running():
    old = datetime.now(UTC) - timedelta(minutes=6)
    assert status_of(RunInfo(1, "", "", "RUNNING", old, heartbeat=datetime.now(UTC))) == "RUNNING"
    assert status_of(RunInfo(1, "", "", "RUNNING", old, heartbeat=old)) == "SILENT"
    assert status_of(RunInfo(1, "", "", "COMPLETED", old, heartbeat=old)) == "COMPLETED"


def test_tables_align():
    rows = [
        {"id": 9, "name": "a", "F1": 0.91234, "flag": True},
        {"id": 10, "name": "x" * 60, "F1": None, "flag": False},
    ]
    lines = list(table(rows))
    assert lines[0].startswith("id  name ")
    assert lines[1] == f" 9  a{' ' * 47}  0.9123  True"
    assert lines[2] == f"10  {'x' * 47}…          False"
    assert list(table([])) == []


def test_nested_settings_by_their_names():
    assert flat({"a": {"b": 1, "c": {}}, "d": [1, {"e": 2}]}) == {"a.b": 1, "a.c": {}, "d": [1, {"e": 2}]}


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """A folder with two recorded trainings; commands find it by INCASEM_RUNS."""
    store = DirectoryStore(tmp_path / "runs", TRAININGS)

    def train(run):
        for step in (0, 100):
            run.log_scalar("f1_class_1_validation_ds_0", 0.5 + step / 1000 + run.config["seed"] / 100, step)
        return "done"

    for name, seed in (("first", 1), ("second", 2)):
        config = {"training": {"iterations": 100 * seed}, "seed": seed}
        run_experiment(name=name, kind="train", config=config, store=store, main=train)
    monkeypatch.setenv("INCASEM_RUNS", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)
    return store


def test_the_commands(recorded, tmp_path, capsys):
    assert main(["runs", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["id", "name", "kind", "status", "started", "took", "F1", "loss", "at"]
    assert lines[1].split()[:4] == ["1", "first", "train", "COMPLETED"]
    assert lines[2].split()[-2:] == ["0.6200", "100"]
    assert main(["runs", "list", "--last", "1", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["id"], row["F1"]) == (2, pytest.approx(0.62))
    assert main(["runs", "show", "2"]) == 0
    shown = capsys.readouterr().out
    for part in (
        "run 2 of", "status   COMPLETED", "result   done", "files    log.txt", "f1_class_1_validation_ds_0",
        "training.iterations  200",
    ):  # fmt: skip
        assert part in shown
    assert main(["runs", "show", "2", "--metric", "f1_class_1_validation_ds_0"]) == 0
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines()[1:]] == [
        ["0", "0.5200"], ["100", "0.6200"],
    ]  # fmt: skip
    assert main(["runs", "compare", "1", "2"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["training.iterations", "100", "200"] in lines
    assert ["F1", "0.6100", "0.6200"] in lines
    assert main(["runs", "compare", "1", "2", "--picture", str(tmp_path / "f1.png")]) == 0
    assert str(tmp_path / "f1.png") in capsys.readouterr().out
    assert (tmp_path / "f1.png").exists()
    assert main(["runs", "export", "--to", str(tmp_path / "copy")]) == 0
    assert "2 runs (1-2) copied to" in capsys.readouterr().out
    assert DirectoryStore(tmp_path / "copy", TRAININGS).info(2).name == "second"


@pytest.mark.parametrize("place", ["runs", f"runs/{TRAININGS}", "training_runs"])
def test_a_store_is_found_by_any_folder_that_one_would_name(recorded, tmp_path, monkeypatch, capsys, place):
    monkeypatch.delenv("INCASEM_RUNS")
    if place == "training_runs":
        (tmp_path / place).mkdir()
        os.rename(tmp_path / "runs", tmp_path / place / "sacred")
    assert main(["runs", "list", "--store", str(tmp_path / place)]) == 0
    assert "second" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["show"], "`runs show` is given 0 runs; allowed: one run"),
        (["compare", "1"], "two runs or more"),
        (["show", "7"], "run 7 is not in"),
        (["show", "1", "--metric", "f1_class_1"], "has no metric 'f1_class_1'"),
        (["export"], "--to is not given"),
        (["list", "--last", "0"], "--last is 0"),
        (["lits"], "invalid choice: 'lits'"),
    ],
)
def test_errors_are_one_line(recorded, words, message, capsys):
    assert main(["runs", *words]) != 0
    assert message in capsys.readouterr().err


def test_no_runs_yet(tmp_path, capsys):
    assert main(["runs", "list", "-s", str(tmp_path)]) == 0
    assert "no runs in" in capsys.readouterr().out
