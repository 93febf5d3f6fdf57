"""The two run stores, each empty."""

import os
from pathlib import Path

import pytest

from incasem.tracking import TRAININGS, open_store


@pytest.fixture(params=["directory", "mongodb"])
def environment(request, tmp_path):
    """What INCASEM_RUNS says, for each kind of store."""
    if request.param == "directory":
        return {"INCASEM_RUNS": str(tmp_path / "runs")}
    server = request.getfixturevalue("mongod")
    import pymongo

    with pymongo.MongoClient(server.url) as client:
        for name in client.list_database_names():
            if name.startswith("incasem"):
                client.drop_database(name)
    return {"INCASEM_RUNS": server.url}


@pytest.fixture
def make_store(environment, tmp_path):
    """Opens stores and closes them when the test ends."""
    stores = []

    def make(db_name=TRAININGS):
        store = open_store(None, tmp_path / "training_runs", db_name, environment)
        stores.append(store)
        return store

    yield make
    for store in stores:
        store.close()


@pytest.fixture
def store(make_store):
    return make_store()


@pytest.fixture
def subprocess_environment(environment):
    """For processes that open the store by the environment, as a user's commands do."""
    root = str(Path(__file__).parents[2])
    return dict(os.environ) | environment | {"PYTHONPATH": root}
