"""What several rooms' tests need."""

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import settings

from incasem.garbage import collect_rarely
from tests.mongod import MISSING, Mongod, find_mongod

READERS = Path(__file__).parents[1] / ".venv-readers/bin"

collect_rarely()  # as in commands
# Tests that run side by side share the cores, and so do the commands that they start: threads that wait for a
# core of their own took half of the time of all tests.
_SIDE_BY_SIDE = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if _SIDE_BY_SIDE > 1:
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // _SIDE_BY_SIDE)))

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


@pytest.fixture
def reader():
    """Runs a program of the environment with zarr-python 3 and the OME-NGFF validator, or skips."""

    def run(program, *arguments):
        path = READERS / program
        if not path.exists():
            pytest.skip(f"{path} is missing: `make test` creates it")
        done = subprocess.run([path, *map(str, arguments)], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run
