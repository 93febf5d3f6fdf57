"""Runs are copied between stores with all that is recorded of them."""

import json

import pymongo
import pytest

from incasem.errors import TrackingError
from incasem.tracking import TRAININGS, DirectoryStore, export_runs, open_store, run_experiment

pytestmark = pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")


@pytest.fixture
def source(tmp_path):
    """A directory store with a run that succeeded and one that failed."""
    store = DirectoryStore(tmp_path / "source", TRAININGS)
    data = tmp_path / "train.json"
    data.write_text('{"cell": {}}')

    def train(run):
        for step in range(3):
            run.log_scalar("f1_class_1_validation_ds_0", step / 4, step * 1000)
            run.log_scalar("loss_train_0", 1 - step / 4, step)
        return {"best": 0.5}

    def fail(run):
        raise ValueError("on purpose")

    run_experiment(name="first", kind="train", config={"training": {"iterations": 5}, "seed": 3}, store=store,
                   main=train, artifacts=[data], options={"--x": 1})  # fmt: skip
    with pytest.raises(ValueError, match="on purpose"):
        run_experiment(name="second", kind="train", config={}, store=store, main=fail)
    (store.directory / "1/cout.txt").write_text("what was printed\n")
    return store


@pytest.fixture
def target(mongod, tmp_path):
    with pymongo.MongoClient(mongod.url) as client:
        client.drop_database(TRAININGS)
    with open_store(mongod.url, tmp_path / "spill", TRAININGS, {}) as store:
        yield store


def assert_same(a, b, run_ids=(1, 2)):
    for run_id in run_ids:
        one, two = a.info(run_id), b.info(run_id)
        for name in (
            "run_id",
            "name",
            "kind",
            "status",
            "host",
            "result",
            "options",
            "artifacts",
            "failure",
            "commit",
        ):
            assert getattr(one, name) == getattr(two, name), name
        for name in ("started", "stopped", "heartbeat"):
            difference = getattr(one, name) - getattr(two, name)
            assert abs(difference.total_seconds()) < 0.001
        assert a.config(run_id) == b.config(run_id)
        for name, metric in a.metrics(run_id).items():
            assert (metric.steps, metric.values) == (
                b.metrics(run_id)[name].steps,
                b.metrics(run_id)[name].values,
            )
        assert set(a.metrics(run_id)) == set(b.metrics(run_id))
        for name in one.artifacts:
            assert a.artifact(run_id, name) == b.artifact(run_id, name)


def test_a_directory_store_goes_to_mongodb_as_omniboard_reads_it(source, target, mongod):
    report = export_runs(source, target)
    assert report.copied == (1, 2)
    assert_same(source, target)
    with pymongo.MongoClient(mongod.url) as client:
        run = client[TRAININGS]["runs"].find_one({"_id": 1})
        assert run["captured_out"] == "what was printed\n"
        by_id = {
            str(metric["_id"]): metric["name"] for metric in client[TRAININGS]["metrics"].find({"run_id": 1})
        }
        assert {metric["id"]: metric["name"] for metric in run["info"]["metrics"]} == by_id
        assert run["format"].startswith("MongoObserver")


def test_again_it_does_nothing_and_stores_no_file_twice(source, target, mongod):
    export_runs(source, target)
    with pymongo.MongoClient(mongod.url) as client:
        files = client[TRAININGS]["fs.files"].count_documents({})
        assert export_runs(source, target).there == (1, 2)
        # A copy that broke off: everything is there but the run itself.
        client[TRAININGS]["runs"].delete_one({"_id": 1})
        assert export_runs(source, target).copied == (1,)
        assert client[TRAININGS]["fs.files"].count_documents({}) == files
        assert client[TRAININGS]["metrics"].count_documents({"run_id": 1}) == 2
    assert_same(source, target)


def test_a_run_that_has_gone_on_is_brought_up_to_date(source, target):
    export_runs(source, target)
    path = source.directory / "1/run.json"
    entry = json.loads(path.read_text())
    path.write_text(json.dumps(entry | {"status": "INTERRUPTED"}))
    assert export_runs(source, target).copied == (1,)
    assert target.info(1).status == "INTERRUPTED"


def test_another_run_of_the_same_number_is_never_replaced(source, target):
    run_experiment(name="theirs", kind="train", config={}, store=target, main=lambda run: None)
    with pytest.raises(TrackingError, match=r"has other runs with the numbers 1; .*Nothing was copied"):
        export_runs(source, target)
    assert [run.name for run in target.list_runs()] == ["theirs"]
    assert export_runs(source, target, [2]).copied == (2,)


def test_there_and_back_again(source, target, tmp_path):
    export_runs(source, target)
    back = DirectoryStore(tmp_path / "back", TRAININGS)
    assert export_runs(target, back).copied == (1, 2)
    assert_same(source, back)
    assert (back.directory / "1/cout.txt").read_text() == "what was printed\n"
    assert export_runs(target, back).there == (1, 2)


def test_what_cannot_be_exported(source, target):
    with pytest.raises(TrackingError, match="run 7 is not in"):
        export_runs(source, target, [7])
    with pytest.raises(TrackingError, match="source and target are both"):
        export_runs(source, source)
