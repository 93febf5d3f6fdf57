"""The real Omniboard on a real MongoDB shows a training that our own commands recorded.

Omniboard comes from INCASEM_OMNIBOARD (its program), the PATH, or the npm registry, installed once into a
cache folder. Its pictures go to INCASEM_SCREENSHOTS, where somebody may look at them.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pymongo
import pytest

from incasem.tracking import TRAININGS
from tests.end_to_end.spheres import training, write_spheres
from tests.viewing import chromium

VERSION = "2.16.1"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "incasem" / f"omniboard-{VERSION}"
F1 = "f1_class_1_validation_ds_0"
PATIENCE_S = 180
INSTALLATION_S = 420

pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(chromium.PROGRAM is None, reason=chromium.MISSING),
]


@pytest.fixture(scope="module")
def omniboard():
    """The path of Omniboard's program."""
    given = os.environ.get("INCASEM_OMNIBOARD")
    if given:
        assert Path(given).is_file(), f"INCASEM_OMNIBOARD={given} is no file"
        return given
    if shutil.which("node") is None:
        pytest.skip("no node in the PATH")
    if shutil.which("omniboard"):
        return shutil.which("omniboard")
    program = CACHE / "node_modules/.bin/omniboard"
    if not program.exists():
        if shutil.which("npm") is None:
            pytest.skip("no npm in the PATH, and no INCASEM_OMNIBOARD")
        command = [
            "npm",
            "install",
            "--no-audit",
            "--no-fund",
            "--prefix",
            str(CACHE),
            f"omniboard@{VERSION}",
        ]
        CACHE.mkdir(parents=True, exist_ok=True)
        try:
            subprocess.run(command, capture_output=True, text=True, check=True, timeout=INSTALLATION_S)
        except subprocess.TimeoutExpired:
            pytest.skip(f"the npm registry gives no Omniboard within {INSTALLATION_S} s")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"the npm registry gives no Omniboard: {error.stderr.strip().splitlines()[-1:]}")
    return str(program)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = Path(os.environ.get("INCASEM_SCREENSHOTS") or tmp_path_factory.mktemp("pictures"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def trained(mongod, tmp_path_factory):
    """Spheres, learnt for six iterations by `incasem train`, recorded in the database."""
    with pymongo.MongoClient(mongod.url) as client:
        client.drop_database(TRAININGS)
    home = tmp_path_factory.mktemp("home")
    write_spheres(home)
    command = [sys.executable, "-m", "incasem", "train", "--name", "example_training", *training(home)]
    environment = dict(os.environ, INCASEM_RUNS=mongod.url)
    done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return mongod


@pytest.fixture(scope="module")
def address(omniboard, trained):
    """Omniboard, running; it cannot be told to listen on this machine only."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [omniboard, "-m", f"{trained.address}:{TRAININGS}"], env=dict(os.environ, PORT=str(port)),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}/sacred"
    try:
        wait_for(lambda: answers(url), "Omniboard to answer")
        yield url
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(20)


def answers(url):
    try:
        with urllib.request.urlopen(url, timeout=20):
            return True
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return False


def wait_for(condition, what):
    end = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.5)
    return found


def test_the_runs_list_and_the_f1_curve(address, trained, pictures, tmp_path):
    with chromium.Chromium(tmp_path / "profile") as browser:

        def shown(selector, text):
            query = f"[...document.querySelectorAll({selector!r})].map(e => e.textContent).join(' ')"
            return wait_for(
                lambda: text in (page := browser.evaluate(query)) and page, f"{text} in {selector}"
            )

        browser.open(address)
        row = shown(".fixedDataTableRowLayout_main", "example_training")
        assert "COMPLETED" in row
        (pictures / "omniboard_runs.png").write_bytes(browser.screenshot())

        # Only F1; by default Omniboard draws all curves on one axis.
        selection = json.dumps({"metricNameOptions": [{"label": F1, "value": F1, "selected": True}]})
        for database in ("undefined", "default"):  # 2.16.1 forgets the name
            key = f"{database}|MetricsPlotView|default"
            browser.evaluate(f"localStorage.setItem({key!r}, {selection!r})")
        browser.evaluate("document.querySelector('[test-attr=\"cell-row_expander-0\"]').click()")
        wait_for(lambda: browser.evaluate("!!document.querySelector('.js-plotly-plot')?.data"), "the plot")
        drawn = browser.evaluate(
            "[...document.querySelectorAll('.js-plotly-plot')].flatMap(p => p.data)"
            ".map(c => ({name: c.name, x: [...c.x], y: [...c.y]}))"
        )
        time.sleep(2)
        (pictures / "omniboard_f1.png").write_bytes(browser.screenshot())
    with pymongo.MongoClient(trained.url) as client:
        metric = client[TRAININGS]["metrics"].find_one({"run_id": 1, "name": F1})
    (curve,) = [c for c in drawn if c["name"] == F1]
    assert curve["x"] == metric["steps"] == [0, 2, 4, 6]
    assert curve["y"] == pytest.approx(metric["values"])
