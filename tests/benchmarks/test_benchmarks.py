"""Every benchmark runs: at a size that takes seconds, all that it measures, and compares with, is a number.

What comes out at such sizes is mostly the start of processes: nothing is said of it here.
"""

import math
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest

from benchmarks import __main__ as every
from benchmarks.table import Row, as_markdown

ROOT = Path(__file__).parents[2]
SMALL = {
    "blocks": "--blocks 10000 --repeats 1",
    "clahe": "--size 192 --plain_size 192 --workers 1",
    "feed": "--samples 1 --size 160 --workers 1 --steps 1 --output 14 --small_output 14",
    "neurons": "--size 128 --workers 1",
    "prediction": "--size 204 --num_fmaps 2 --turns 1",
}
# blocks: what it measures is a difference of two times, which a busy machine may turn around.
SLOW = {"blocks", "feed", "neurons", "prediction"}
# Rows that stand for themselves; every other one has a baseline.
ALONE = re.compile(
    r"… (wall time|memory of all|fragments|pairs|VOI|\w+, wall time)|.*largest difference of a probability"
)
MAY_BE_ZERO = re.compile(r"VOI|difference|waits|agglomeration, wall")


class Figure(NamedTuple):
    """One line of the table."""

    what: str
    ours: float
    baseline: float | None


def figures(table: str) -> list[Figure]:
    found = []
    for line in table.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 5 and cells[0] != "what" and not cells[1].startswith("--"):
            found.append(
                Figure(cells[0], float(cells[1]), float(cells[2].split(" (")[0]) if cells[2] else None)
            )
    return found


def module(name: str, *words: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", name, *words], cwd=ROOT, capture_output=True, text=True, timeout=550
    )


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in SMALL])
def test_runs(name):
    done = module(f"benchmarks.{name}", *SMALL[name].split())
    assert done.returncode == 0, done.stdout + done.stderr
    rows = figures(done.stdout)
    assert rows, done.stdout
    for row in rows:
        for value in (row.ours, row.baseline or 0.0):
            assert math.isfinite(value), row
            assert value >= 0, row
        assert row.ours > 0 or MAY_BE_ZERO.search(row.what), row
        assert (row.baseline is None) == bool(ALONE.match(row.what)), row
        assert row.baseline != 0 or MAY_BE_ZERO.search(row.what), row
    assert any(row.baseline for row in rows)


def test_each_has_a_test_here():
    done = module("benchmarks", "nonsense")  # imports them all
    assert done.returncode == 2, done.stderr
    assert f"no benchmark nonsense; there are: {', '.join(sorted(SMALL))}" in done.stderr


def test_the_table_is_printed_and_kept(tmp_path, monkeypatch, capsys):
    (tmp_path / "tiny.py").touch()
    tiny = SimpleNamespace(main=lambda: [Row("nothing", 3.0, "s", 6.0, "more", less_is_better=True)])
    monkeypatch.setattr(every, "HERE", tmp_path)
    monkeypatch.setattr(every.importlib, "import_module", {"benchmarks.tiny": tiny}.__getitem__)
    monkeypatch.setattr(sys, "argv", ["benchmarks"])
    assert every.main() == 0
    (kept,) = (tmp_path / "results").glob("*.md")
    assert kept.read_text() in capsys.readouterr().out
    assert figures(kept.read_text()) == [Figure("nothing", 3.0, 6.0)]
    assert "| nothing | 3 | 6 (more) | s | 2 |" in kept.read_text()


@pytest.mark.parametrize(
    ("row", "ratio"),
    [
        (Row("speed", 6.0, "Mvoxel/s", 2.0), 3.0),
        (Row("time", 6.0, "s", 2.0, less_is_better=True), 1 / 3),
        (Row("alone", 6.0, ""), None),
        (Row("nothing measured", 0.0, "s", 2.0, less_is_better=True), None),
    ],
)
def test_ratio(row, ratio):
    assert row.ratio == ratio
    assert as_markdown([row]).endswith(f"| {'' if ratio is None else f'{ratio:.3g}'} |\n")
