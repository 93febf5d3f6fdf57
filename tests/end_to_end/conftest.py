"""A home directory as the guide describes it, and a shell to type its commands in."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Shell:
    """Types command lines in bash, with `python` and `incasem` of the tested environment."""

    home: Path

    def run(self, command: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess:
        tools = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        variables = os.environ | {"HOME": str(self.home), "PATH": tools, "PYTHONWARNINGS": "default"}
        variables.pop("INCASEM_RUNS", None)
        return subprocess.run(
            ["bash", "-c", command],
            cwd=cwd or self.home,
            env=variables | environment,
            capture_output=True,
            text=True,
            timeout=400,
        )

    def must(self, command: str, cwd: Path | None = None, **environment: str) -> str:
        """Run a command that has to succeed; return what it printed on both channels."""
        done = self.run(command, cwd, **environment)
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
