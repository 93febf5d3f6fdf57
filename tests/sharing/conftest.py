"""A small trained network, as a training leaves it."""

import pytest
import torch

from incasem.networks import build_network, initialise, save_checkpoint

MODEL = {"type": "Unet", "num_fmaps": 2, "downsample_factors": [[2, 2, 2]]}


def make_checkpoint(path, *, model=MODEL, sidecar=None, change=None):
    """Write a checkpoint with random weights; return its network."""
    torch.manual_seed(0)
    network = build_network(model)
    initialise(network)
    if change is not None:
        change(network)
    described = {
        "run_id": 5, "name": "mito training", "iteration": 40, "model": model,
        "data": {"voxel_size": [4, 4, 4]}, "classes": ["mito"],
        "scores": {"validation": {"f1_class_1": 0.75, "f1_class_0": None}},
    } if sidecar is None else sidecar  # fmt: skip
    save_checkpoint(path, network, None, described)
    return network


@pytest.fixture
def checkpoint(tmp_path):
    make_checkpoint(tmp_path / "model_checkpoint_40")
    return tmp_path / "model_checkpoint_40"
