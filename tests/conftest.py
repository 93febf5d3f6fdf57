"""What several rooms' tests need."""

import pytest
from hypothesis import settings

from tests.mongod import MISSING, Mongod, find_mongod

# No deadline an example: on a shared machine it says more about the neighbours than about the code.
settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")


@pytest.fixture(scope="session")
def mongod(tmp_path_factory):
    """A server for the whole session. Who needs an empty database empties it."""
    if find_mongod() is None:
        pytest.skip(MISSING)
    server = Mongod(tmp_path_factory.mktemp("mongod")).start()
    yield server
    server.stop()
