"""What a segmentation survives: it is killed in each of its stages, and gives the same bytes in the end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from incasem.cli import main
from incasem.segmentation.edge_store import open_edge_store
from incasem.segmentation.region_graph import summed_edges
from incasem.volumes import open_volume
from tests.segmentation.maps import phantom, store

SHAPE = (32, 32, 40)
NAME = "hist_quant_50_0.5"

# Dies as a machine would that loses its power while it stores the table.
KILLED_IN_AGGLOMERATION = """
import os, signal, sys
import numpy as np
from incasem.cli import main
save = np.save
def die(file, arr, **kwargs):
    if "lookup" not in str(file.name):
        return save(file, arr, **kwargs)
    file.write(b"half of it")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
np.save = die
main(sys.argv[1:])
"""


def words_for(folder, out):
    return [
        "segment", "-f", str(folder / "a.zarr"), "-d", "affinities", "--out_filename", str(out), "-o", "",
        "--low", "0.05", "--high", "0.995", "-s", "hist_quant_50", "-t", "0.5", "-n", "1",
        "-c", "4", "4", "4",
    ]  # fmt: skip


def blocks_done(state):
    """Lines that workers wrote about blocks they have done, in any folder of marks that matches."""
    return sum(len(path.read_bytes().splitlines()) for path in state)


def kill_when(command, begun, has_died):
    """Start a command; kill it without notice once it is within the wanted stage."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while process.poll() is None and not begun() and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL, errors.decode()
    assert has_died(), "the stage was over before the kill"


def is_complete(out):
    """Whether the region graph of an output is."""
    edge_store = open_edge_store(out / "edges_histograms.sqlite", str(out / "edges_histograms"))
    complete = "cut" in edge_store.attributes
    edge_store.database.disconnect()
    return complete


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("segment")
    values, _ = phantom(SHAPE)
    store(folder / "a.zarr/affinities", values, chunks=(8, 8, 8))
    return folder


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="kills by the process's id")
def test_killed_in_every_stage_it_gives_the_same_bytes(source, tmp_path):
    assert main([*words_for(source, tmp_path / "whole.zarr"), "-b", "32", "32", "40"]) == 0

    out = tmp_path / "out.zarr"
    command = [*words_for(source, out), "-b", "4", "4", "8"]  # many blocks, to be killed between two of them
    run = [sys.executable, "-m", "incasem", *command]
    segmentation = out / "segmentation" / NAME

    def times(pattern):
        return lambda: blocks_done(out.glob(f"{pattern}/logs/times.*/*.jsonl")) > 3

    scratch = "fragments/.incasem/4x4x8_histograms"
    kill_when(run, times(f"{scratch}/labelling"), lambda: not (out / scratch / "matching").exists())
    kill_when(run, times(f"{scratch}/matching"), lambda: not (out / scratch / "first_piece.npy").exists())
    kill_when(run, times(".edges_histograms.incasem.*"), lambda: not is_complete(out))
    dying = subprocess.run([sys.executable, "-c", KILLED_IN_AGGLOMERATION, *command], capture_output=True)
    assert dying.returncode == -signal.SIGKILL, dying.stderr.decode()
    assert (out / "lookup" / NAME / "fragments.npy").read_bytes() == b"half of it"
    writing = "fragments/.incasem/together/*"
    kill_when(run, times(writing), lambda: is_complete(out) and (segmentation / ".incasem").exists())
    assert subprocess.run(run, capture_output=True).returncode == 0

    for name in ("fragments", f"segmentation/{NAME}"):
        found, wanted = (open_volume(tmp_path / place / name) for place in ("out.zarr", "whole.zarr"))
        np.testing.assert_array_equal(
            found.read_voxels(found.roi_voxels), wanted.read_voxels(wanted.roi_voxels)
        )
    graphs = []
    for place in (out, tmp_path / "whole.zarr"):
        edge_store = open_edge_store(place / "edges_histograms.sqlite", str(place / "edges_histograms"))
        graphs.append(summed_edges(edge_store.edges()))
        edge_store.database.disconnect()
    for column, values in vars(graphs[0]).items():
        np.testing.assert_array_equal(values, getattr(graphs[1], column))
    left = [path for path in out.rglob("*") if path.name in (".incasem", "lock") or "-wal" in path.name]
    assert left == []
    assert os.listdir(out / "lookup" / NAME)
