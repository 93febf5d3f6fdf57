"""Which store is opened, and what damaged ones answer."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from incasem.errors import ConfigError, TrackingError
from incasem.tracking import (
    PREDICTIONS,
    TRAININGS,
    DirectoryStore,
    find_training_settings,
    open_store,
    run_experiment,
)
from incasem.tracking.environment import git_state, hide_credentials
from incasem.tracking.mongo import MongoStore, without_credentials
from incasem.tracking.stores import id_ranges

pytestmark = pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")
ROOT = Path(__file__).parents[2]


def db_file(tmp_path, **content):
    path = tmp_path / "trainings_db.json"
    path.write_text(json.dumps(content))
    return path


def test_without_any_setting_runs_lie_beside_the_trainings(tmp_path):
    store = open_store(None, tmp_path, TRAININGS, {})
    assert isinstance(store, DirectoryStore)
    assert store.directory == tmp_path / "sacred/incasem_trainings"
    assert store.list_runs() == []
    assert not (tmp_path / "sacred").exists()


@pytest.mark.parametrize(
    ("file", "db_name"),
    [
        ("02_train/trainings_db.json", TRAININGS),
        ("03_predict/predictions_db.json", PREDICTIONS),
    ],
)
def test_the_shipped_files_need_no_server(tmp_path, file, db_name):
    store = open_store(ROOT / "scripts" / file, tmp_path, "something_else", {})
    assert isinstance(store, DirectoryStore)
    assert store.directory == tmp_path / "sacred" / db_name


def test_the_file_wins_over_the_environment_and_that_over_the_default(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    environment = {"INCASEM_RUNS": str(tmp_path / "env")}
    null = db_file(tmp_path, url=None, db_name="mine")
    assert open_store(null, tmp_path, TRAININGS, environment).location == str(tmp_path / "env")
    assert open_store(null, tmp_path, TRAININGS, environment).db_name == "mine"
    given = db_file(tmp_path, url="~/runs")
    store = open_store(given, tmp_path, TRAININGS, environment)
    assert (store.location, store.db_name) == (str(tmp_path / "home/runs"), TRAININGS)
    assert open_store(None, tmp_path, TRAININGS, {"INCASEM_RUNS": ""}).location == str(tmp_path / "sacred")


@pytest.mark.parametrize(
    "form", ["{address}", "mongodb://{address}", "mongodb://{address}/?retryWrites=false"]
)
def test_mongodb_by_file_and_by_environment(mongod, tmp_path, form):
    url = form.format(address=mongod.address)
    for db_json, environment in ((db_file(tmp_path, url=url), {}), (None, {"INCASEM_RUNS": url})):
        with open_store(db_json, tmp_path, TRAININGS, environment) as store:
            assert isinstance(store, MongoStore)
            assert store.location == mongod.url


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("{", ["JSON", "db_name"]),
        ("[]", ["no object"]),
        ('{"ulr": null}', ["'ulr'", "Did you mean 'url'?"]),
        ('{"url": 27017}', ["27017", "localhost:27017"]),
        ('{"url": "runs"}', ["runs", "a folder such as"]),
        ('{"url": "postgres://me:secret@host/x"}', ["postgres://host", "mongodb://"]),
        ('{"url": null, "db_name": "a.b"}', ["'a.b'", "letters, digits"]),
        ('{"url": null, "db_name": 3}', ["letters, digits"]),
    ],
)
def test_a_file_that_is_not_understood(tmp_path, content, parts):
    path = tmp_path / "trainings_db.json"
    path.write_text(content)
    with pytest.raises(ConfigError) as caught:
        open_store(path, tmp_path, TRAININGS, {})
    assert "secret" not in str(caught.value)
    for part in [str(path), *parts]:
        assert part in str(caught.value)


def test_a_file_that_is_missing(tmp_path):
    with pytest.raises(ConfigError, match=r"Looked for .*nowhere\.json"):
        open_store(tmp_path / "nowhere.json", tmp_path, TRAININGS, {})


@pytest.mark.parametrize(
    "url",
    [
        "mongodb://me:sec/ret@host",
        "mongodb://me:sec?ret@host:x",
        "mongodb://host:port",
        "mongodb://me:secret@:99999",
    ],
)
def test_a_url_that_is_not_one(tmp_path, url):
    with pytest.raises(TrackingError, match=r"cannot be used.*mongodb://\[user:password@\]host") as caught:
        open_store(url, tmp_path, TRAININGS, {})
    assert "ret@" not in str(caught.value)
    assert "me:" not in str(caught.value)


def test_credentials_never_show():
    assert (
        without_credentials("mongodb://me:a@b:c@host:1,other:2/db?password=x")
        == "mongodb://host:1,other:2/db"
    )
    assert without_credentials("mongodb+srv://u:p@cluster.example") == "mongodb+srv://cluster.example"
    assert hide_credentials({"a": ["https://token@github.com/x", 3]}) == {
        "a": ["https://***@github.com/x", 3]
    }


def test_a_text_as_id_is_refused_before_it_breaks_the_count(mongod, tmp_path):
    import pymongo

    with pymongo.MongoClient(mongod.url) as client:
        client["strays"]["runs"].insert_one({"_id": "77"})
    with (
        open_store(mongod.url, tmp_path, "strays", {}) as store,
        pytest.raises(TrackingError, match="the text '77'"),
    ):
        run_experiment(name="t", kind="train", config={}, store=store, main=lambda run: None)


def test_after_the_published_dump_ids_go_on_from_its_highest(mongod, tmp_path):
    import pymongo

    with pymongo.MongoClient(mongod.url) as client:
        client.drop_database("dump")
        client["dump"]["runs"].insert_many([{"_id": 1841, "config": {"seed": 1}}, {"_id": 2000}])
    with open_store(mongod.url, tmp_path, "dump", {}) as store:
        outcome = run_experiment(name="t", kind="train", config={}, store=store, main=lambda run: None)
        assert outcome.run_id == 2001
        assert store.config(1841) == {"seed": 1}
        assert store.config(2000) == {}
        assert store.info(2000).status == ""


@pytest.mark.parametrize("file", ["run.json", "config.json", "metrics.json"])
def test_a_damaged_record_is_named(tmp_path, file):
    store = DirectoryStore(tmp_path, TRAININGS)
    run_experiment(
        name="t", kind="train", config={}, store=store, main=lambda run: run.log_scalar("loss", 1, 0)
    )
    path = store.directory / "1" / file
    path.write_text(path.read_text()[:5])
    ask = {"run.json": store.info, "config.json": store.config, "metrics.json": store.metrics}[file]
    with pytest.raises(TrackingError, match=f"{file} cannot be read"):
        ask(1)


def test_folders_that_are_no_runs_are_passed_over(tmp_path):
    store = DirectoryStore(tmp_path, TRAININGS)
    for name in ("_sources", "7", "x"):
        (store.directory / name).mkdir(parents=True)
    assert store.list_runs() == []
    outcome = run_experiment(name="t", kind="train", config={}, store=store, main=lambda run: None)
    assert outcome.run_id == 8


def test_settings_come_from_the_store_before_the_cards(tmp_path):
    store = DirectoryStore(tmp_path, TRAININGS)
    (store.directory / "1840").mkdir(parents=True)
    card = find_training_settings(store, 1841, ROOT / "models")
    assert card["training"]["iterations"] == 90000
    run_experiment(name="t", kind="train", config={"own": 1, "seed": 1}, store=store, main=lambda run: None)
    assert find_training_settings(store, 1841, ROOT / "models") == {"own": 1, "seed": 1}


@pytest.mark.parametrize("run_id", [1837, 1841, 1847])
def test_the_published_models_have_cards(tmp_path, run_id):
    settings = find_training_settings(DirectoryStore(tmp_path, TRAININGS), run_id, ROOT / "models")
    assert settings["model"]["num_fmaps"] == 32
    assert settings["data"]["voxel_size"] == [5, 5, 5]
    assert settings["seed"] == 717968059
    (card,) = (ROOT / "models").glob(f"{run_id}_*.json")
    assert json.loads(card.read_text())["checkpoint"] == f"model_checkpoint_{card.stem}.pt"


def test_an_id_that_nobody_knows(tmp_path):
    models = "1669, 1675, 1837, 1841, 1847, 1986, 2000"
    known = rf"run 1842 is not in .*none yet, and the published models {models} \(in "
    with pytest.raises(TrackingError, match=known):
        find_training_settings(DirectoryStore(tmp_path, TRAININGS), 1842, ROOT / "models")


@pytest.mark.parametrize("content", ["{", '{"run_id": 9}', '{"config": 3}', "[]"])
def test_a_damaged_card(tmp_path, content):
    (tmp_path / "9_x.json").write_text(content)
    with pytest.raises(TrackingError, match=r"9_x\.json"):
        find_training_settings(DirectoryStore(tmp_path / "runs", TRAININGS), 9, tmp_path)


def test_ids_in_messages():
    assert id_ranges([1, 2, 3, 7, 9, 10]) == "1-3, 7, 9-10"
    assert id_ranges([5]) == "5"
    assert id_ranges(list(range(0, 100, 2))).startswith("0, 2, 4, …, 84")


def test_the_git_state_is_that_of_the_packages_own_checkout(tmp_path):
    package = tmp_path / "checkout/incasem"
    package.mkdir(parents=True)
    assert git_state(package) is None

    def git(*command):
        identity = ["-c", "user.name=n", "-c", "user.email=e@x"]
        subprocess.run(
            ["git", "-C", str(package.parent), *identity, *command], check=True, capture_output=True
        )

    git("init")
    assert git_state(package) is None, "nothing is committed yet"
    (package / "a.py").write_text("")
    git("add", ".")
    git("commit", "-m", "x")
    clean = git_state(package)
    assert clean is not None
    assert (len(clean["commit"]), clean["dirty"]) == (40, False)
    (package / "a.py").write_text("1")
    git("remote", "add", "origin", "https://token@example.org/x.git")
    assert git_state(package) == clean | {"dirty": True, "url": "https://***@example.org/x.git"}
    installed = package / "venv/site-packages/incasem"
    installed.mkdir(parents=True)
    assert git_state(installed) is None


def test_the_room_is_imported_without_sacred_and_pymongo_and_sacred_without_its_warning():
    code = (
        "import sys, incasem.tracking\n"
        "assert not {'sacred', 'pymongo', 'torch'} & set(sys.modules)\n"
        "import incasem.tracking.sacred_library\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
