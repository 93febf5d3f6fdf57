"""Which earlier run a repeated command goes on with."""

import contextlib
import os
import signal
import subprocess
import sys

import pytest

from incasem.runs.interrupted import at_work, interrupted_run
from incasem.tracking import DirectoryStore, run_experiment

CONFIG = {"prediction": {"data": "cell.json"}}


@pytest.fixture
def store(tmp_path):
    return DirectoryStore(tmp_path / "sacred", "incasem_predictions")


def record(store, config=CONFIG, error=None, artifacts=()):
    def main(run):
        if error is not None:
            raise error
        return "done"

    expected = contextlib.nullcontext() if error is None else pytest.raises(type(error))
    with expected:
        run_experiment(name="p", kind="predict", config=config, store=store, main=main, artifacts=artifacts)
    return store.list_runs()[-1].run_id


def test_nothing_yet(store):
    assert interrupted_run(store, CONFIG) is None


def test_a_finished_run_is_not_gone_on_with(store):
    record(store)
    assert interrupted_run(store, CONFIG) is None


def test_a_failed_run_of_the_same_settings(store):
    failed = record(store, error=ValueError("disk"))
    assert interrupted_run(store, CONFIG | {"seed": 5}) == failed
    assert interrupted_run(store, {"prediction": {"data": "other.json"}}) is None


def test_an_edited_data_configuration_is_another_prediction(store, tmp_path):
    data = tmp_path / "cell.json"
    data.write_text('{"a": 1}')
    failed = record(store, error=ValueError("disk"), artifacts=[data])
    assert interrupted_run(store, CONFIG, data) == failed
    data.write_text('{"a": 2}')
    assert interrupted_run(store, CONFIG, data) is None


def test_interrupted_twice_is_the_first(store):
    first = record(store, error=KeyboardInterrupt())
    assert record(store, error=ValueError("again")) == first + 1
    assert interrupted_run(store, CONFIG) == first


def test_one_that_ended_well_since_breaks_the_chain(store):
    record(store, error=ValueError("disk"))
    record(store)
    assert interrupted_run(store, CONFIG) is None


CHILD = """
import sys, time
from pathlib import Path
from incasem.runs.interrupted import at_work
from incasem.tracking import DirectoryStore, run_experiment

store = DirectoryStore(Path(sys.argv[1]), "incasem_predictions")

def main(run):
    with at_work(store, run.run_id):
        print("at work", flush=True)
        time.sleep(60)

run_experiment(name="p", kind="predict", config={"prediction": {"data": "cell.json"}}, store=store, main=main)
"""


def test_a_run_at_work_is_left_alone_and_a_killed_one_is_gone_on_with(store, tmp_path):
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path / "sacred")], stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout.readline() == "at work\n"
        assert store.list_runs()[0].status == "RUNNING"
        assert interrupted_run(store, CONFIG) is None
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
    assert interrupted_run(store, CONFIG) == 1


def test_the_lock_is_given_back(store):
    record(store, error=ValueError("disk"))
    with at_work(store, 1):
        pass
    assert interrupted_run(store, CONFIG) == 1
