"""A home directory as the guide describes it, and a shell to type its commands in."""

import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Shell:
    """Types command lines in bash, with `python` and `incasem` of the tested environment."""

    home: Path

    def environment(self) -> dict[str, str]:
        """Return the variables of this shell: a home of its own, and the tested environment's tools first."""
        tools = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        variables = os.environ | {"HOME": str(self.home), "PATH": tools, "PYTHONWARNINGS": "default"}
        variables.pop("INCASEM_RUNS", None)
        return variables

    def run(
        self, command: str, cwd: Path | None = None, *, timeout_s: float = 400, **environment: str
    ) -> subprocess.CompletedProcess:
        return subprocess.run(
            ["bash", "-c", command],
            cwd=cwd or self.home,
            env=self.environment() | environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )

    def must(
        self, command: str, cwd: Path | None = None, *, timeout_s: float = 400, **environment: str
    ) -> str:
        """Run a command that has to succeed; return what it printed on both channels."""
        done = self.run(command, cwd, timeout_s=timeout_s, **environment)
        output = done.stdout + done.stderr
        assert done.returncode == 0, f"{command}\nexit code {done.returncode}\n{output}"
        assert "Traceback" not in output, f"{command}\n{output}"
        return output

    def must_fail(self, command: str, cwd: Path | None = None, **environment: str) -> str:
        """Run a command that has to end in one clear message; return that message."""
        done = self.run(command, cwd, **environment)
        assert done.returncode != 0, f"{command}\nexit code 0\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stdout + done.stderr, f"{command}\n{done.stderr}"
        return done.stderr

    def serve(self, command: str, expected: str, cwd: Path | None = None, timeout_s: float = 120) -> str:
        """Run a command that serves until it is ended, wait until it prints ``expected``, and end it."""
        log = self.home / ".served.log"
        with log.open("w") as output, subprocess.Popen(
            ["bash", "-c", f"exec {command}"], cwd=cwd or self.home, env=self.environment(),
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
        ) as process:  # fmt: skip
            deadline = time.monotonic() + timeout_s
            while expected not in log.read_text() and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.2)
            process.terminate()
        assert expected in log.read_text(), f"{command}\n{log.read_text()}"
        return log.read_text()


# What the guide takes from the machine: the environment is active in a test, and the editor is the test.
_PRELUDE = """
conda() { [ "$*" = "activate incasem" ] || { echo "conda $*: not in the guide" >&2; return 1; }; }
vim() { [ -f "$1" ]; }
"""


class Terminal:
    """A terminal in which a guide is typed: it stays in the folder that the last command went to."""

    def __init__(self, shell: Shell) -> None:
        self.shell = shell
        self.home = shell.home
        self.cwd = shell.home

    def type(self, command: str, *overrides: str) -> str:
        """Run a command as printed, with what only this test adds; it has to succeed."""
        folder = self.home / ".cwd"
        line = " ".join([command, *overrides])
        output = self.shell.must(f"{_PRELUDE}\n{line} || exit $?\npwd > {folder}", self.cwd)
        self.cwd = Path(folder.read_text().strip())
        return output

    def mistype(self, command: str, *overrides: str) -> str:
        """Run a command that has to end in one clear message; return that message."""
        return self.shell.must_fail(" ".join([command, *overrides]), self.cwd)


@pytest.fixture
def shell(tmp_path):
    """A shell in a fresh home with the clone at ~/incasem, as the guide has it."""
    return make_home(tmp_path / "home")


def make_home(home: Path) -> Shell:
    clone = home / "incasem"
    clone.mkdir(parents=True)
    for folder in ("scripts", "models"):
        shutil.copytree(ROOT / folder, clone / folder)
    (clone / "data").mkdir()
    return Shell(home)
