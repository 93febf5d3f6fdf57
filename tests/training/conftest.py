"""A small labelled volume, and trainings on it that take seconds."""

import json
from dataclasses import replace

import numpy as np
import pytest

from incasem.config import load_training_config
from incasem.training.run import TrainingRequest, train
from incasem.volumes import create_volume

SHAPE = (32, 32, 64)
SETTINGS = (
    "model.num_fmaps=2", "model.downsample_factors=[[2,2,2]]", "training.input_size_voxels=[28,28,28]",
    "training.output_size_voxels=[10,10,10]", "validation.input_size_voxels=[28,28,28]",
    "validation.output_size_voxels=[10,10,10]", "training.precache.num_workers=0", "torch.device=cpu",
    "training.precision=fp32", "validation.precision=fp32", "sacred.log_every=1", "training.save_every=2",
    "validation.validate_every=4", "training.snapshot.every=4", "training.iterations=4", "seed=7",
    "training.optimizer.lr=0.01",
)  # fmt: skip


def write_volume(path, array):
    volume = create_volume(
        path, shape=array.shape, dtype=array.dtype, voxel_size=(5, 5, 5), chunk_shape=(32, 32, 32)
    )
    volume.write_voxels(volume.roi_voxels, array)


@pytest.fixture
def project(tmp_path):
    """A folder with a volume of bright balls, their labels, and data configurations."""
    return make_project(tmp_path)


def make_project(tmp_path):
    generator = np.random.default_rng(1)
    z, y, x = np.indices(SHAPE)
    labels_ZYX = np.zeros(SHAPE, bool)
    for _ in range(14):
        cz, cy, cx = (generator.integers(0, n) for n in SHAPE)
        labels_ZYX |= (z - cz) ** 2 + (y - cy) ** 2 + (x - cx) ** 2 < 36
    raw_ZYX = np.clip(90 + 80 * labels_ZYX + generator.normal(0, 25, SHAPE), 0, 255).astype(np.uint8)
    write_volume(tmp_path / "cell.zarr/volumes/raw", raw_ZYX)
    write_volume(tmp_path / "cell.zarr/volumes/labels/ball", labels_ZYX.astype(np.uint32))
    for name, offset, width in (("train", 0, 40), ("validate", 40, 24)):
        entry = {
            "file": "cell.zarr", "offset": [0, 0, offset], "shape": [32, 32, width], "voxel_size": [5, 5, 5],
            "raw": "volumes/raw", "labels": {"volumes/labels/ball": 1},
        }  # fmt: skip
        (tmp_path / f"{name}.json").write_text(json.dumps({name: entry}))
    return tmp_path


def request(project, *settings, runs="runs", **changes):
    overrides = (
        f"directories.data={project}", f"directories.runs={project / runs}",
        f"training.data={project / 'train.json'}", f"validation.data={project / 'validate.json'}",
        *SETTINGS, *settings,
    )  # fmt: skip
    return replace(TrainingRequest(name="test", overrides=overrides), **changes)


def run(project, *settings, **changes):
    """Train; return the run id and the lines told to the user."""
    lines = []
    return train(request(project, *settings, **changes), lines.append), lines


def config(project, *settings):
    return load_training_config(None, request(project, *settings).overrides)
