"""A small cell, a recorded training and its checkpoint: what the published commands were given."""

import json

import numpy as np
import pytest
import torch

from incasem.cli import main
from incasem.networks import Unet, initialise, save_checkpoint
from incasem.volumes import create_volume, open_volume

MODEL = {
    "type": "Unet", "num_fmaps": 2, "num_fmaps_out": 2, "fmap_inc_factor": 2,
    "downsample_factors": [[2, 2, 2]], "constant_upsample": True,
}  # fmt: skip
SHAPE = (48, 48, 96)


def store(path, array, chunk=16):
    volume = create_volume(
        path, shape=array.shape, dtype=array.dtype, voxel_size=(5, 5, 5), chunk_shape=(chunk,) * 3
    )
    volume.write_voxels(volume.roi_voxels, array)
    return volume


def read(path):
    volume = open_volume(path)
    return volume.read_voxels(volume.roi_voxels)


def entry(**changes):
    return {
        "file": "cell.zarr", "offset": [0, 0, 0], "shape": list(SHAPE), "voxel_size": [5, 5, 5],
        "raw": "volumes/raw",
    } | changes  # fmt: skip


def make_network():
    torch.manual_seed(0)
    network = Unet(num_fmaps=2, downsample_factors=((2, 2, 2),))
    initialise(network)
    return network


def record_training(home, run_id, **training):
    """Record a training in the run store as one that was done."""
    folder = home / f"runs/sacred/incasem_trainings/{run_id}"
    folder.mkdir(parents=True)
    settings = {"model": MODEL, "data": {"voxel_size": [5, 5, 5]}, "training": training}
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "run.json").write_text(json.dumps({"status": "COMPLETED", "experiment": {"name": "by hand"}}))


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder with raw data, labels, a recorded training 1 and a checkpoint of it."""
    monkeypatch.delenv("INCASEM_RUNS", raising=False)
    generator = np.random.default_rng(0)
    store(tmp_path / "cell.zarr/volumes/raw", generator.integers(0, 256, SHAPE).astype(np.uint8))
    store(tmp_path / "cell.zarr/volumes/labels/er", generator.integers(0, 2, SHAPE).astype(np.uint32))
    network = make_network()
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-5, weight_decay=3e-5)
    save_checkpoint(tmp_path / "checkpoint", network, optimizer, {"model": MODEL})
    record_training(tmp_path, 1)
    return tmp_path


def predict(home, entries, *settings):
    """Type `incasem predict`; return its exit code."""
    (home / "cell.json").write_text(json.dumps(entries))
    return main([
        "predict", "--run_id", "1", "with", f"prediction.data={home / 'cell.json'}",
        f"directories.data={home}", f"directories.runs={home / 'runs'}",
        f"prediction.checkpoint={home / 'checkpoint'}", "prediction.torch.device=cpu",
        "prediction.precision=fp32", *settings,
    ])  # fmt: skip


def train(home, *words):
    """Type `incasem train` with a small network; return its exit code. ``words`` may hold ``with``."""
    (home / "train.json").write_text(json.dumps({"cell": entry(labels={"volumes/labels/er": 1})}))
    flags, settings = words, ()
    if "with" in words:
        flags, settings = words[: words.index("with")], words[words.index("with") + 1 :]
    return main([
        "train", *map(str, flags), "with", f"training.data={home / 'train.json'}", "validation.data=none",
        f"directories.data={home}", f"directories.runs={home / 'runs'}", "model.num_fmaps=2",
        "model.downsample_factors=[[2,2,2]]", "training.input_size_voxels=[28,28,28]",
        "training.output_size_voxels=[10,10,10]", "training.precache.num_workers=0",
        "training.iterations=0", "torch.device=cpu", "training.precision=fp32", *settings,
    ])  # fmt: skip
