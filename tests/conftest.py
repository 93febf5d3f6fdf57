"""What several rooms' tests need."""

import pytest

from tests.mongod import MISSING, Mongod, find_mongod


@pytest.fixture(scope="session")
def mongod(tmp_path_factory):
    """A server for the whole session. Who needs an empty database empties it."""
    if find_mongod() is None:
        pytest.skip(MISSING)
    server = Mongod(tmp_path_factory.mktemp("mongod")).start()
    yield server
    server.stop()
