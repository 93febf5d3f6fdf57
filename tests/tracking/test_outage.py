"""Stores that go away during a run: it ends as it would, and the record is complete or said not to be."""

import json
import logging
import os
import signal
import time

import pytest

from incasem.errors import DataError, TrackingError
from incasem.tracking import TRAININGS, DirectoryStore, experiment, observers, open_store, run_experiment
from tests.mongod import MISSING, Mongod, find_mongod

pytestmark = pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")


@pytest.fixture
def server(tmp_path):
    """A server that a test may stop and kill."""
    if find_mongod() is None:
        pytest.skip(MISSING)
    server = Mongod(tmp_path / "mongod").start()
    yield server
    server.stop(signal.SIGKILL)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Heartbeats and patience of fractions of the real ones."""
    from incasem.tracking.sacred_library import sacred

    monkeypatch.setitem(sacred.SETTINGS, "DEFAULT_BEAT_INTERVAL", 0.2)
    monkeypatch.setattr(experiment, "PATIENCE_S", 1.0)


def open_mongo(server, tmp_path, extra=""):
    url = f"{server.url}/?serverSelectionTimeoutMS=300&connectTimeoutMS=300{extra}"
    return open_store(url, tmp_path / "training_runs", TRAININGS, {})


def wait_for(condition, timeout_s=30.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def start(store, main):
    return run_experiment(name="t", kind="train", config={"seed": 1}, store=store, main=main)


def test_a_server_that_comes_back_misses_nothing(server, tmp_path, caplog):
    late = tmp_path / "late.txt"
    late.write_text("made during the outage")

    def main(run):
        run.log_scalar("loss", 0.0, 0)
        with open_mongo(server, tmp_path) as reader:
            wait_for(lambda: reader.metrics(1))
        server.stop()
        for step in range(1, 5):
            run.log_scalar("loss", float(step), step)
            run.log_scalar("other", float(step), step)
            time.sleep(0.3)
        wait_for(lambda: "cannot be written" in caplog.text)
        run.add_artifact(late)
        server.start()
        return "done"

    with caplog.at_level(logging.WARNING), open_mongo(server, tmp_path) as store:
        outcome = start(store, main)
        assert outcome.result == "done"
        assert store.metrics(1)["loss"].values == (0, 1, 2, 3, 4)
        assert store.metrics(1)["other"].steps == (1, 2, 3, 4)
        assert store.info(1).status == "COMPLETED"
        assert store.artifact(1, "late.txt") == b"made during the outage"
        assert set(store.info(1).artifacts) == {"late.txt", "log.txt"}
        assert caplog.text.count("cannot be written") == 1
        assert "can be written again" in caplog.text
    assert not (tmp_path / "training_runs/sacred/unsent").exists()


def run_with_a_server_that_stays_away(server, tmp_path, main_after=lambda: None, how=signal.SIGTERM):
    def main(run):
        run.log_scalar("loss", 0.0, 0)
        with open_mongo(server, tmp_path) as reader:
            wait_for(lambda: reader.metrics(1))
        server.stop(how)
        run.log_scalar("loss", 1.0, 1)
        logging.getLogger("incasem").warning("still at work")
        main_after()
        return "done"

    with open_mongo(server, tmp_path) as store:
        start(store, main)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_server_that_stays_away_makes_the_end_an_error_and_gets_the_rest_later(
    server, tmp_path, how, caplog
):
    with pytest.raises(TrackingError) as caught:
        run_with_a_server_that_stays_away(server, tmp_path, how=how)
    kept = tmp_path / "training_runs/sacred/unsent/incasem_trainings_0001"
    for part in (
        "run 1 has ended and its results are complete",
        f"mongodb://127.0.0.1:{server.port}",
        str(kept),
    ):
        assert part in str(caught.value)
    content = json.loads((kept / "run.json").read_text())
    assert content["metrics"]["loss"]["values"][-1] == 1.0
    assert "log.txt" in content["files"]
    server.start()
    with open_mongo(server, tmp_path) as store:
        info = store.info(1)
        assert info.status == "COMPLETED"
        assert info.result == "done"
        assert info.stopped is not None
        assert store.config(1) == {"seed": 1}
        # A crash may take from the server what it had not yet written to its disk.
        assert store.metrics(1)["loss"].values in ([(0, 1)] if how == signal.SIGTERM else [(0, 1), (1,)])
        assert b"still at work" in store.artifact(1, "log.txt")
    assert not kept.exists()
    assert "is complete now" in caplog.text
    with open_mongo(server, tmp_path) as store:
        assert store.metrics(1)["loss"].values[-1] == 1.0
        assert store.metrics(1)["loss"].steps.count(1) == 1


def test_the_runs_own_error_wins_over_the_stores(server, tmp_path, caplog):
    error = DataError("the volume ends here")

    def fail():
        raise error

    with pytest.raises(DataError) as caught:
        run_with_a_server_that_stays_away(server, tmp_path, fail)
    assert caught.value is error
    assert "lacks the end of the record" in caplog.text
    server.start()
    with open_mongo(server, tmp_path) as store:
        assert store.info(1).status == "FAILED"
        assert store.info(1).failure == "incasem.errors.DataError: the volume ends here"


def test_the_rest_of_a_record_is_not_sent_to_another_run_or_server(server, tmp_path, caplog):
    with pytest.raises(TrackingError):
        run_with_a_server_that_stays_away(server, tmp_path)
    kept = tmp_path / "training_runs/sacred/unsent/incasem_trainings_0001"
    other = Mongod(tmp_path / "other").start()
    try:
        with open_mongo(other, tmp_path) as store:
            assert store.list_runs() == []
    finally:
        other.stop()
    assert kept.exists()
    server.start()
    import pymongo

    with pymongo.MongoClient(server.url) as client:
        client[TRAININGS].drop_collection("runs")
        client[TRAININGS].drop_collection("metrics")
        client[TRAININGS]["runs"].insert_one({"_id": 1, "start_time": None, "status": "COMPLETED"})
    with open_mongo(server, tmp_path) as store:
        assert store.info(1).result is None
    assert kept.exists()
    assert "is another one by now" in caplog.text


def test_a_server_that_is_not_there(tmp_path, server):
    server.stop()
    begin = time.monotonic()
    with pytest.raises(TrackingError) as caught:
        open_store(f"mongodb://me:secret@{server.address}", tmp_path, TRAININGS, {})
    assert time.monotonic() - begin < 15
    text = str(caught.value)
    assert f"MongoDB at mongodb://{server.address} does not answer" in text
    assert "secret" not in text
    assert "INCASEM_RUNS" in text
    assert "service mongod start" in text
    assert caught.value.__suppress_context__


def test_a_server_that_wants_a_user(tmp_path, server):
    import pymongo

    with pymongo.MongoClient(server.url) as client:
        client["admin"].command("createUser", "lab", pwd="se/cret", roles=["readWriteAnyDatabase"])
    server.stop()
    server.start("--auth")
    for user in ("", "lab:wrong@"):
        with pytest.raises(TrackingError, match="a user who may read and write") as caught:
            open_store(f"mongodb://{user}{server.address}", tmp_path, TRAININGS, {})
        assert "wrong" not in str(caught.value)
    with open_store(f"mongodb://lab:se%2Fcret@{server.address}", tmp_path, TRAININGS, {}) as store:
        start(store, lambda run: run.log_scalar("loss", 1, 0))
        assert store.info(1).status == "COMPLETED"
        assert store.location == server.url


def test_a_full_disk_is_outlived(tmp_path, monkeypatch, caplog):
    store = DirectoryStore(tmp_path / "runs", TRAININGS)
    write = observers._Files.save_json

    def full(self, obj, filename):
        raise OSError(28, "No space left on device")

    def main(run):
        run.log_scalar("loss", 0.0, 0)
        wait_for(lambda: store.metrics(1))
        monkeypatch.setattr(observers._Files, "save_json", full)
        run.log_scalar("loss", 1.0, 1)
        wait_for(lambda: "cannot be written" in caplog.text)
        monkeypatch.setattr(observers._Files, "save_json", write)
        run.log_scalar("loss", 2.0, 2)

    start(store, main)
    assert store.metrics(1)["loss"].values == (0, 1, 2)
    assert store.info(1).status == "COMPLETED"


def test_a_disk_that_stays_full_makes_the_end_an_error(tmp_path, monkeypatch):
    store = DirectoryStore(tmp_path / "runs", TRAININGS)

    def full(self, obj, filename):
        raise OSError(28, "No space left on device")

    with pytest.raises(TrackingError, match="run 1 has ended and its results are complete, but its record"):
        start(store, lambda run: monkeypatch.setattr(observers._Files, "save_json", full))
    # The files are those of the last complete write.
    assert store.info(1).status == "RUNNING"


def test_a_store_that_cannot_be_written_ends_the_run_before_it_begins(tmp_path):
    (tmp_path / "runs").write_text("a file where a folder should be")
    began = []
    with pytest.raises(TrackingError, match=r"cannot be made: .*INCASEM_RUNS"):
        start(DirectoryStore(tmp_path / "runs", TRAININGS), began.append)
    assert began == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path):
    (tmp_path / "runs" / TRAININGS).mkdir(parents=True)
    (tmp_path / "runs" / TRAININGS).chmod(0o500)
    with pytest.raises(TrackingError, match="cannot be recorded"):
        start(DirectoryStore(tmp_path / "runs", TRAININGS), lambda run: None)
