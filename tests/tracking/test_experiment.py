"""A recorded run, the same on both stores."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from incasem.errors import ConfigError, TrackingError
from incasem.tracking import PREDICTIONS, TRAININGS, run_experiment

# Sacred stamps its times with datetime.utcnow, deprecated from Python 3.12 on.
pytestmark = pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")

CONFIG = {"training": {"iterations": 3, "data": None, "sizes": [204, 204, 204]}, "seed": 11}


def start(store, main=lambda run: None, **changes):
    settings = {"name": "a test", "kind": "train", "config": CONFIG, "store": store, "main": main}
    return run_experiment(**(settings | changes))


def test_a_run_is_recorded(store, tmp_path):
    data = tmp_path / "train.json"
    data.write_text('{"cell": 1}')

    def main(run):
        assert run.run_id == 1
        assert run.config == CONFIG
        for step in range(3):
            run.log_scalar("loss_train_0", 1 / (step + 1), step)
        run.log_scalar("dice_class_1_validation_ds_0", 0.5, 2)
        logging.getLogger("incasem.training").warning("a message for the log")
        return {"best": {"iteration": 2, "f1": 0.5}}

    outcome = start(store, main, artifacts=[data], options={"--start_from": [1847, "x.pt"], "--slack": False})
    assert (outcome.run_id, outcome.result) == (1, {"best": {"iteration": 2, "f1": 0.5}})
    assert store.exists(1)
    assert not store.exists(2)
    assert store.config(1) == CONFIG
    info = store.info(1)
    assert (info.run_id, info.name, info.kind, info.status) == (1, "a test", "train", "COMPLETED")
    assert info.options == {"--name": "a test", "--start_from": [1847, "x.pt"], "--slack": False}
    assert info.result == {"best": {"iteration": 2, "f1": 0.5}}
    assert info.failure is None
    assert info.started is not None
    assert info.stopped is not None
    assert timedelta() <= datetime.now(UTC) - info.started < timedelta(minutes=5)
    assert info.started <= info.stopped
    assert set(info.artifacts) == {"train.json", "log.txt"}
    assert store.artifact(1, "train.json") == b'{"cell": 1}'
    assert b"a message for the log" in store.artifact(1, "log.txt")
    metrics = store.metrics(1)
    assert set(metrics) == {"loss_train_0", "dice_class_1_validation_ds_0"}
    assert metrics["loss_train_0"].steps == (0, 1, 2)
    assert metrics["loss_train_0"].values == (1.0, 0.5, 1 / 3)
    assert len(metrics["loss_train_0"].times) == 3
    assert [run.run_id for run in store.list_runs()] == [1]


def test_ids_count_up_and_trainings_and_predictions_count_for_themselves(make_store):
    trainings, predictions = make_store(TRAININGS), make_store(PREDICTIONS)
    assert [start(trainings).run_id for _ in range(3)] == [1, 2, 3]
    assert start(predictions, kind="predict").run_id == 1
    assert [run.run_id for run in trainings.list_runs()] == [1, 2, 3]
    assert [run.kind for run in predictions.list_runs()] == ["predict"]


def test_a_failure_comes_out_unchanged_and_is_recorded(store):
    error = ConfigError("training.data is not set")

    def main(run):
        run.log_scalar("loss_train_0", 0.5, 0)
        raise error

    with pytest.raises(ConfigError) as caught:
        start(store, main)
    assert caught.value is error
    assert caught.value.exit_code == 2
    info = store.info(1)
    assert info.status == "FAILED"
    assert info.failure == "incasem.errors.ConfigError: training.data is not set"
    assert store.metrics(1)["loss_train_0"].values == (0.5,)
    log = store.artifact(1, "log.txt").decode()
    assert "Traceback" in log
    assert "training.data is not set" in log
    assert start(store).run_id == 2


def test_nothing_of_sacred_reaches_the_terminal(store, capfd):
    def main(run):
        raise ConfigError("no")

    handlers = list(logging.getLogger().handlers)
    with pytest.raises(ConfigError):
        start(store, main)
    start(store)
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger().handlers == handlers


def test_ctrl_c_is_recorded_as_interrupted(store):
    def main(run):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        start(store, main)
    assert store.info(1).status == "INTERRUPTED"


def test_values_that_are_not_finite_are_left_out_and_said_to_be(store, caplog):
    def main(run):
        for step, value in enumerate([1.0, float("nan"), float("inf"), 2.0]):
            run.log_scalar("loss_train_0", value, step)
        return {"loss": float("nan"), "dotted.key": 1}

    start(store, main)
    assert store.metrics(1)["loss_train_0"].steps == (0, 3)
    assert [r.getMessage() for r in caplog.records if "loss_train_0" in r.getMessage()] == [
        "loss_train_0 is nan at step 1; such values are not recorded"
    ]
    assert store.info(1).result == {"loss": None, "dotted,key": 1}


def test_a_seed_is_drawn_recorded_and_used(store):
    import random

    drawn = []

    def main(run):
        drawn.append((run.config["seed"], random.random()))

    start(store, main, config={"seed": None})
    start(store, main, config={"seed": drawn[0][0]})
    assert isinstance(drawn[0][0], int)
    assert store.config(1)["seed"] == drawn[0][0]
    assert drawn[0] == drawn[1]


def test_the_name_defaults_to_the_kind(store):
    start(store, name=None)
    assert store.info(1).name == "train"


def test_options_that_sacred_knows_too_do_nothing(store):
    start(store, options={"--id": 77, "--unobserved": True, "--queue": True, "--debug": True})
    assert [run.run_id for run in store.list_runs()] == [1]
    assert store.info(1).options["--id"] == 77


def test_credentials_are_not_recorded(store):
    start(store, options={"--mongodb": "mongodb://me:secret@host:27017"})
    assert store.info(1).options["--mongodb"] == "mongodb://***@host:27017"


def test_files_of_one_name_are_all_kept(store, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "data.json").write_text(folder)
    files = [tmp_path / "a/data.json", tmp_path / "b/data.json", tmp_path / "a/data.json"]
    start(store, artifacts=files)
    assert store.artifact(1, "data.json") == b"a"
    assert store.artifact(1, "data_2.json") == b"b"
    assert len(store.info(1).artifacts) == 3


def test_an_artifact_that_is_gone_is_said_to_be_and_does_not_end_the_run(store, tmp_path, caplog):
    start(store, artifacts=[tmp_path / "missing.json"])
    assert "missing.json cannot be read and is not stored" in caplog.text
    assert store.info(1).status == "COMPLETED"


def test_what_is_not_there_is_said_with_what_is(store):
    for ask in (store.config, store.info, store.metrics):
        with pytest.raises(TrackingError, match=r"run 5 is not in .*incasem_trainings.*none yet"):
            ask(5)
    for _ in range(3):
        start(store)
    with pytest.raises(TrackingError, match="the runs recorded there, 1-3"):
        store.config(1841)
    with pytest.raises(TrackingError, match=r"no file 'x'; allowed: log\.txt"):
        store.artifact(1, "x")


def test_versions_and_host_are_in_the_record(store, environment):
    start(store)
    if "mongodb" in environment["INCASEM_RUNS"]:
        entry = store.entry(1)
    else:
        entry = json.loads((store.directory / "1/run.json").read_text())
        assert entry["status"] == "COMPLETED"
    assert any(d.startswith("torch==") for d in entry["experiment"]["dependencies"])
    assert entry["experiment"]["name"] == "a test"
    assert entry["meta"]["options"]["--name"] == "a test"
    assert entry["host"]["hostname"]
    assert entry["host"]["gpu_names"] is not None
    root = Path(__file__).parents[2]
    if (root / ".git").exists():
        (repository,) = entry["experiment"]["repositories"]
        assert len(repository["commit"]) == 40
        assert isinstance(repository["dirty"], bool)


PARALLEL = """
import os, sys, time
from pathlib import Path
from incasem.tracking import open_store, run_experiment

Path(sys.argv[2], sys.argv[3]).touch()
while not Path(sys.argv[2], "go").exists():
    time.sleep(0.005)
with open_store(None, Path(sys.argv[1]), "incasem_trainings", os.environ) as store:
    outcome = run_experiment(
        name=sys.argv[3], kind="train", config={"who": sys.argv[3]}, store=store,
        main=lambda run: run.log_scalar("who", int(sys.argv[3]), 0),
    )
print(outcome.run_id)
"""


def test_six_runs_that_start_at_once_have_six_ids(store, subprocess_environment, tmp_path):
    gate = tmp_path / "gate"
    gate.mkdir()
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PARALLEL, str(tmp_path / "training_runs"), str(gate), str(number)],
            env=subprocess_environment, stdout=subprocess.PIPE, text=True,
        )
        for number in range(6)
    ]  # fmt: skip
    deadline = time.monotonic() + 120
    while len(list(gate.iterdir())) < 6:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    (gate / "go").touch()
    ids = [int(p.communicate(timeout=120)[0]) for p in processes]
    assert sorted(ids) == [1, 2, 3, 4, 5, 6]
    for number, run_id in enumerate(ids):
        assert store.config(run_id)["who"] == str(number)
        assert store.metrics(run_id)["who"].values == (number,)
        assert store.info(run_id).status == "COMPLETED"


TERMINATED = """
import os, sys, time, multiprocessing
from pathlib import Path
from incasem.tracking import open_store, run_experiment

def work(began):
    began.set()
    time.sleep(60)

def main(run):
    context = multiprocessing.get_context("fork")
    began = context.Event()
    worker = context.Process(target=work, args=(began,))
    worker.start()
    began.wait(20)
    worker.terminate()
    worker.join(20)
    assert worker.exitcode == -15, worker.exitcode
    run.log_scalar("loss_train_0", 0.25, 0)
    print("ready", flush=True)
    time.sleep(60)

with open_store(None, Path(sys.argv[1]), "incasem_trainings", os.environ) as store:
    run_experiment(name="t", kind="train", config={}, store=store, main=main)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT)])
def test_a_signal_ends_the_run_as_interrupted(store, subprocess_environment, tmp_path, number, code):
    process = subprocess.Popen(
        [sys.executable, "-c", TERMINATED, str(tmp_path / "training_runs")],
        env=subprocess_environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        errors = process.communicate(timeout=60)[1]
    assert process.returncode == code, errors
    if number == signal.SIGTERM:
        assert errors == ""
    info = store.info(1)
    assert info.status == "INTERRUPTED"
    assert info.stopped is not None
    assert store.metrics(1)["loss_train_0"].values == (0.25,)
    assert "log.txt" in info.artifacts


def test_the_callers_handler_of_sigterm_stays(store):
    seen = []
    old = signal.signal(signal.SIGTERM, lambda *_: seen.append(1))
    try:
        start(store, lambda run: os.kill(os.getpid(), signal.SIGTERM))
    finally:
        signal.signal(signal.SIGTERM, old)
    assert seen == [1]
    assert store.info(1).status == "COMPLETED"


def test_a_run_in_another_thread_works(store):
    outcomes = []
    thread = threading.Thread(target=lambda: outcomes.append(start(store)))
    thread.start()
    thread.join(60)
    assert outcomes[0].run_id == 1


def test_a_killed_run_stays_readable(store, subprocess_environment, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", TERMINATED, str(tmp_path / "training_runs")],
        env=subprocess_environment, stdout=subprocess.PIPE,
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.kill()
    assert store.info(1).status == "RUNNING"
    assert store.config(1)["seed"] >= 0
    assert store.metrics(1) == {}
    assert start(store).run_id == 2
