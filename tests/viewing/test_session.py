"""The commands: what they print, where they listen, how they end."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tomllib
import urllib.error
import urllib.request
from importlib.metadata import distribution
from pathlib import Path

import pytest

from incasem.cli import main
from incasem.errors import ConfigError, DataError
from tests.viewing.conftest import PREDICTIONS

ROOT = Path(__file__).parents[2]


def test_without_neuroglancer_the_extra_is_named(monkeypatch, capsys, cell):
    monkeypatch.setitem(sys.modules, "neuroglancer", None)
    assert main(["view", "-f", cell, "-d", "volumes/raw"]) == ConfigError.exit_code
    assert "pip install -c constraints.txt -e '.[viewers]'" in capsys.readouterr().err


def test_the_name_neuroglancer_is_free():
    """Ours is a console script of that name; another package's would replace it, or be replaced."""
    ng = pytest.importorskip("neuroglancer")
    assert not [e for e in distribution(ng.__name__).entry_points if e.group == "console_scripts"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"]["neuroglancer"] == "incasem.cli:neuroglancer"


class Command:
    """A running command, and its lines up to the address."""

    def __init__(self, *words, code="from incasem.cli import neuroglancer; neuroglancer()"):
        program = [sys.executable, "-c", code] if code else [sys.executable]
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(
            [*program, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            stdin=subprocess.DEVNULL, env=environment, start_new_session=True,
        )  # fmt: skip
        self.lines = []

    def url(self):
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            if line.startswith("http://"):
                return line.strip()
        raise AssertionError(self.process.stderr.read())

    def end(self):
        self.process.send_signal(signal.SIGINT)
        out, err = self.process.communicate(timeout=120)
        self.lines += out.splitlines()
        return self.process.returncode, err


@pytest.fixture
def command():
    started = []

    def start(*words, **arguments):
        pytest.importorskip("neuroglancer")
        started.append(Command(*words, **arguments))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
        one.process.communicate()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_the_command_of_the_guide(command, cell):
    """`neuroglancer -f … -d raw labels segmentation`, ended by Ctrl-C."""
    segmentation = f"{PREDICTIONS}/predict_0001/segmentation"
    running = command("-f", cell, "-d", "/volumes/raw", "volumes/labels/mito", segmentation)
    url = running.url()
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/v/[0-9a-f]+/", url)
    with urllib.request.urlopen(url, timeout=20) as page:
        assert b"neuroglancer" in page.read()
    code, errors = running.end()
    assert (code, errors) == (0, "")
    assert running.lines[0].strip() == (
        "volumes/raw: image, uint8, 64 × 72 × 96 voxels of 5 × 5 × 5 nm from voxel 40, 50, 60"
    )
    assert running.lines[2].strip().startswith(f"{segmentation}: segmentation, uint32, 32 × 48 × 56 voxels")
    assert running.lines[-1] == "closed"


def test_serving_for_another_machine_stays_on_this_one(command, cell):
    port = free_port()
    running = command("-f", cell, "-d", "volumes/raw", "--serve", "--port", port)
    running.url()
    lines = [running.process.stdout.readline() for _ in range(3)]
    assert f"ssh -C -N -L {port}:127.0.0.1:{port}" in lines[1]
    addresses = {a[4][0] for a in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    for address in addresses - {"127.0.0.1"}:
        with pytest.raises(OSError, match=r"refused|unreachable|timed out"):
            socket.create_connection((address, port), timeout=5)
    assert running.end()[0] == 0


def test_cloud_credentials_are_not_given_away(command, cell):
    running = command("-f", cell, "-d", "volumes/raw", "-n")
    url = running.url()
    request = urllib.request.Request(url.replace("/v/", "/credentials/").rstrip("/"), b'{"key": "x"}')
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(request, timeout=20)


def test_a_port_that_is_taken(command, cell):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        running = command("-f", cell, "-d", "volumes/raw", "-n", "--port", port)
        _, errors = running.process.communicate(timeout=120)
    assert running.process.returncode == ConfigError.exit_code
    assert f"--port is {port}; allowed: a free port" in errors
    assert "Traceback" not in errors


def test_the_scripts_are_the_verbs(command, cell, tmp_path):
    entry = {
        "file": Path(cell).name,
        "voxel_size": [5, 5, 5],
        "raw": "volumes/raw",
        "offset": [50, 60, 70],
        "shape": [9, 9, 9],
    }
    (tmp_path / "rois.json").write_text(json.dumps({"here": entry}))
    scripts = ROOT / "scripts/05_visualization"
    rois = command(
        scripts / "view_rois.py",
        "-d",
        tmp_path / "rois.json",
        "-p",
        Path(cell).parent,
        "--context",
        5,
        "-n",
        code=None,
    )
    rois.url()
    assert rois.lines[-2].strip() == "here [50:59, 60:69, 70:79]"
    assert rois.end()[0] == 0
    comparison = command(
        scripts / "compare_predictions.py", "--input_file", cell, "--raw_dataset", "volumes/raw",
        "--labels_datasets", "volumes/labels/mito", "--predictions_file", cell,
        "--predictions_series", "train_0001/predict_0003", "--iterations", 1000, 2000, "--serve", code=None,
    )  # fmt: skip
    comparison.url()
    assert comparison.lines[-2].strip().startswith("train_0001/predict_0003/iteration_002000: heat map")
    assert comparison.end()[0] == 0


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["-d", "volumes/raws"], DataError.exit_code, "Did you mean 'volumes/raw'"),
        (["-d", "volumes/raw", "-d", "volumes/mask"], ConfigError.exit_code, "--datasets is given 2 times"),
        (
            ["-d", "volumes/raw", "-s", "mask", "rgb"],
            ConfigError.exit_code,
            "one, or one for each of 1 datasets",
        ),
        (["-d", "volumes/raw", "-s", "rainbow"], ConfigError.exit_code, "rainbow"),
        (["-d", "volumes/raw[900]"], DataError.exit_code, "indices within its shape (64, 72, 96)"),
    ],
)
def test_mistakes_end_in_one_line(cell, capsys, words, code, message):
    pytest.importorskip("neuroglancer")
    assert main(["view", "-n", "-f", cell, *words]) == code
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert error.count("\n") == 1
