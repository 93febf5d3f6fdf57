"""Commands killed in the middle and run again: the same bytes as undisturbed ones."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from incasem.networks import Unet, save_checkpoint
from incasem.volumes import create_volume, open_volume

ROOT = Path(__file__).parents[2]
INCASEM = [sys.executable, "-c", "import sys; from incasem.cli import main; sys.exit(main())"]
MODEL = {
    "type": "Unet", "num_fmaps": 6, "num_fmaps_out": 2, "fmap_inc_factor": 2,
    "downsample_factors": [[2, 2, 2]], "constant_upsample": True,
}  # fmt: skip


def run(*words, check=True):
    done = subprocess.run([*INCASEM, *map(str, words)], capture_output=True, text=True, timeout=300)
    assert not check or done.returncode == 0, done.stderr
    return done


def kill_when(condition, *words):
    """Start a command in its own group and kill -9 the master as soon as the condition holds."""
    process = subprocess.Popen(
        [*INCASEM, *map(str, words)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, "the command ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def chunk_files(dataset):
    return [
        p
        for p in dataset.rglob("*")
        if p.is_file() and not p.name.startswith(".") and ".incasem" not in p.parts
    ]


def files(folder):
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in folder.rglob("*") if p.is_file() and p.name != ".zattrs"
    }  # fmt: skip


def test_a_killed_conversion_continues(tmp_path):
    sections = np.random.default_rng(0).integers(0, 256, (96, 256, 256)).astype(np.uint8)
    (tmp_path / "stack").mkdir()
    for z, section in enumerate(sections):
        tifffile.imwrite(tmp_path / f"stack/s_{z}.tif", section)
    words = ["convert", "-i", tmp_path / "stack", "--chunks", 4, 64, 64, "--num_workers", 1]
    run(*words, "-f", tmp_path / "whole.zarr")
    raw = tmp_path / "killed.zarr/volumes/raw"
    kill_when(lambda: len(chunk_files(raw)) >= 32, *words, "-f", tmp_path / "killed.zarr")
    before = len(chunk_files(raw))
    assert before < 24 * 16, "it was killed too late to prove anything"
    done = run(*words, "-f", tmp_path / "killed.zarr")
    assert "done before" in done.stdout
    assert files(raw) == files(tmp_path / "whole.zarr/volumes/raw")
    volume = open_volume(raw)
    np.testing.assert_array_equal(volume.read(volume.roi), sections)
    assert "already complete" in run(*words, "-f", tmp_path / "killed.zarr").stdout


@pytest.fixture
def cell(tmp_path):
    """A volume, a data configuration, a recorded training and its checkpoint."""
    shape = (96, 128, 128)
    raw = create_volume(
        tmp_path / "cell.zarr/volumes/raw", shape=shape, dtype=np.uint8, voxel_size=(5, 5, 5),
        chunk_shape=(64, 64, 64),
    )  # fmt: skip
    raw.write_voxels(raw.roi_voxels, np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8))
    entry = {
        "file": "cell.zarr",
        "offset": [0, 0, 0],
        "shape": shape,
        "voxel_size": [5, 5, 5],
        "raw": "volumes/raw",
    }
    (tmp_path / "cell.json").write_text(json.dumps({"cell": entry}))
    torch.manual_seed(0)
    network = Unet(num_fmaps=6, downsample_factors=((2, 2, 2),))
    save_checkpoint(tmp_path / "checkpoint", network, None, {"model": MODEL})
    training = tmp_path / "runs/sacred/incasem_trainings/1"
    training.mkdir(parents=True)
    (training / "config.json").write_text(json.dumps({"model": MODEL, "data": {"voxel_size": [5, 5, 5]}}))
    (training / "run.json").write_text(
        json.dumps({"status": "COMPLETED", "experiment": {"name": "made by hand"}})
    )
    return tmp_path


def test_a_killed_prediction_continues_under_its_number(cell):
    words = [
        "predict", "--run_id", 1, "with", ROOT / "scripts/03_predict/config_prediction.yaml",
        f"prediction.data={cell / 'cell.json'}", f"directories.data={cell}",
        f"directories.runs={cell / 'runs'}", f"prediction.checkpoint={cell / 'checkpoint'}",
        "prediction.torch.device=cpu", "prediction.precision=fp32",
        "prediction.block_size_voxels=[64,64,64]",
    ]  # fmt: skip
    group = cell / "cell.zarr/volumes/predictions/train_0001"
    killed = group / "predict_0001"
    kill_when(lambda: len(chunk_files(killed / "segmentation")) >= 2, *words)
    assert len(chunk_files(killed / "segmentation")) < 8, "it was killed too late to prove anything"
    done = run(*words)
    assert "prediction 1 goes on" in done.stdout
    assert not (group / "predict_0002").exists()
    assert not (killed / ".incasem").exists(), "marks are removed when all is done"
    run(*words)
    undisturbed = group / "predict_0003"
    for name in ("segmentation", "prob_maps/class_1"):
        assert files(killed / name) == files(undisturbed / name)


@pytest.mark.slow
def test_a_killed_demo_continues(tmp_path):
    words = ["demo", "-o", tmp_path / "demo", "--size", 64, 96, 192, "--iterations", 12]
    models = tmp_path / "demo/training_runs/models/0001"
    kill_when(lambda: (models / "model_checkpoint_3").exists(), *words)
    time.sleep(2)
    done = run(*words)
    assert "going on" in done.stdout
    assert "--continue_run 1" in done.stdout
    assert "1/9" not in done.stdout
    assert (tmp_path / "demo/report/report.html").exists()
    again = run(*words)
    assert "$ incasem" not in again.stdout
