"""Fragments whose command is killed in either pass, and run again: the same bytes as undisturbed ones."""

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from incasem.phantom.affinities import AffinityPhantom
from incasem.segmentation.affinity_map import open_affinities
from incasem.segmentation.fragments import write_fragments
from tests.segmentation.plain import store

SHAPE, CHUNK = (48, 64, 64), (16, 16, 16)
SCRIPT = """
import sys
from incasem.segmentation.affinity_map import open_affinities
from incasem.segmentation.fragments import write_fragments
if __name__ == "__main__":
    write_fragments(open_affinities(sys.argv[1]), sys.argv[2], num_workers=1, progress=False,
                    block_shape=(16, 16, 16), chunk_shape=(16, 16, 16))
"""


@pytest.fixture(scope="module")
def cell(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cell") / "cell.zarr"
    affinities = AffinityPhantom(seed=6, spacing_voxels=14).block((0, 0, 0), SHAPE)[0]
    store(folder / "affinities", affinities, chunk_shape=CHUNK)
    write_fragments(
        open_affinities(folder / "affinities"), folder / "whole", num_workers=0, chunk_shape=CHUNK
    )
    return folder


def chunks(dataset):
    """The chunk files of an array that are there."""
    places = itertools.product(*(range(-(-s // c)) for s, c in zip(SHAPE, CHUNK, strict=True)))
    return [name for z, y, x in places if (dataset / (name := f"{z}/{y}/{x}")).exists()]


def content(dataset):
    return {name: (dataset / name).read_bytes() for name in chunks(dataset)}


def start(cell, output):
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(cell / "affinities"), str(output)], start_new_session=True
    )


def kill_when(condition, process):
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.parametrize("labelled", [True, False], ids=["while labelling", "while writing"])
def test_killed_fragments_continue(cell, labelled):
    output = cell / f"killed_{labelled}"
    half_done = output / ".incasem/16x16x16/labels.zarr" if labelled else output
    number = len(chunks(cell / "whole"))
    kill_when(lambda: len(chunks(half_done)) >= number // 4, start(cell, output))
    assert len(chunks(half_done)) < number, "it was killed too late to prove anything"
    before = {name: (half_done / name).stat().st_mtime_ns for name in chunks(half_done)}
    scratch = output / ".incasem/16x16x16/labels.zarr"
    labels_before = {name: (scratch / name).stat().st_mtime_ns for name in chunks(scratch)}
    process = start(cell, output)
    kept = 0
    while process.poll() is None:  # what was done before is not done again: its files keep their times
        if scratch.exists():
            kept = max(kept, sum(_time(scratch / name) == t for name, t in labels_before.items()))
        time.sleep(0.02)
    assert process.returncode == 0
    assert content(output) == content(cell / "whole")
    assert kept >= len(labels_before) - 2
    if not labelled:
        same = sum((output / name).stat().st_mtime_ns == t for name, t in before.items())
        assert same >= len(before) - 2
    assert not (output / ".incasem").exists()


def _time(path: Path):
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return None


def test_tables_lost_between_the_passes_are_noticed(cell):
    """Whoever deletes scratch gets an error or the right bytes, never others."""
    output = cell / "deleted"
    kill_when(lambda: len(chunks(output)) >= 4, start(cell, output))
    for table in (output / ".incasem/16x16x16/pieces").glob("*.npz"):
        table.unlink()
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(cell / "affinities"), str(output)], capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "DataError" in done.stderr
    assert "Delete" in done.stderr
