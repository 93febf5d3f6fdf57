"""5.2: code for one version of Python that none of today's runs. Ours compiles without a warning on each one
that is here; that it runs is what all other tests show, which take warnings of libraries for errors."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMPILE = """
import pathlib, sys
for folder in ("incasem", "scripts", "tests", "benchmarks"):
    for path in sorted(pathlib.Path(sys.argv[1], folder).rglob("*.py")):
        compile(path.read_bytes(), str(path), "exec")
"""
ALLOWED = ("3.11", "3.12", "3.13")


def python_of(version):
    """An interpreter of this version, also where pyenv keeps one that is not switched on."""
    kept = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    for python in (sys.executable, shutil.which(f"python{version}"), *kept):
        if python and version in subprocess.run([python, "--version"], capture_output=True, text=True).stdout:
            return python
    return None


@pytest.mark.parametrize("version", ALLOWED)
def test_all_code_compiles_without_a_warning(version):
    python = python_of(version)
    if python is None:
        pytest.skip(f"there is no python{version} here")
    done = subprocess.run([python, "-W", "error", "-c", COMPILE, ROOT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
