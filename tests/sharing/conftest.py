"""A small trained network, as a training leaves it."""

import pytest
import torch

from incasem.networks import build_network, initialise, save_checkpoint

MODEL = {"type": "Unet", "num_fmaps": 2, "downsample_factors": [[2, 2, 2]]}
RESIDUAL = {
    "type": "ResidualUnet", "filters": [2, 4], "downsample_factors": [[1, 2, 2]],
    "kernel_sizes": [[1, 3, 3], [3, 3, 3]],
}  # fmt: skip
OFFSETS = [[-1, 0, 0], [0, -1, 0], [0, 0, -1], [0, 0, -3], [2, -1, 0]]


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


def make_affinities(path, model=MODEL, descriptors=False, **section):
    """Write a checkpoint of a training of affinities; return its network."""
    channels = len(OFFSETS) + 10 * descriptors
    settings = {"type": "affinities", "offsets": OFFSETS, "descriptors": descriptors}
    sidecar = {
        "run_id": 7, "name": "neurons", "iteration": 40, "model": model | {"num_fmaps_out": channels},
        "data": {"voxel_size": [16, 8, 8]}, "task": "affinities", "task_settings": settings | section,
        "classes": ["boundary"], "scores": {"validation": {"f1_class_1": 0.75}},
    }  # fmt: skip
    return make_checkpoint(path, model=sidecar["model"], sidecar=sidecar)
