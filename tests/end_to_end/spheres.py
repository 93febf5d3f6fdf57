"""Spheres, and a training that learns them in a few iterations: for tests of what a run leaves behind."""

import json
from pathlib import Path

import numpy as np

from incasem.volumes import create_volume

SHAPE = (56, 56, 80)
SETTINGS = (
    "model.num_fmaps=4 model.downsample_factors=[[2,2,2]] training.input_size_voxels=[42,42,42] "
    "training.output_size_voxels=[24,24,24] training.iterations=6 training.save_every=2 "
    "training.optimizer.lr=0.01 seed=1 "
    "validation.validate_every=2 training.precache.num_workers=0 torch.device=cpu"
)


def write_spheres(home: Path) -> None:
    """Write `cell.zarr` and the data configurations `train.json` and `validate.json` into a folder."""
    z, y, x = np.ogrid[tuple(map(slice, SHAPE))]
    # One lies in the middle of the region that is validated: sections through it show something.
    inside = ((z + 14) % 28 - 14) ** 2 + ((y + 14) % 28 - 14) ** 2 + (x % 28 - 14) ** 2 < 100
    noise = np.random.default_rng(0).integers(0, 60, SHAPE)
    for dataset, values in (("raw", (180 - 100 * inside - noise // 2).astype(np.uint8)),
                            ("labels", inside.astype(np.uint32))):  # fmt: skip
        volume = create_volume(
            home / "cell.zarr" / dataset, shape=SHAPE, dtype=values.dtype, voxel_size=(5, 5, 5)
        )
        volume.write_voxels(volume.roi_voxels, values)
    entry = {"file": "cell.zarr", "voxel_size": [5, 5, 5], "raw": "raw", "labels": {"labels": 1}}
    for name, start, size in (("train", 0, 56), ("validate", 56, 24)):
        roi = {"offset": [0, 0, start], "shape": [56, 56, size]}
        (home / f"{name}.json").write_text(json.dumps({name: entry | roi}))


def training(home: Path) -> list[str]:
    """Return what follows the flags of `incasem train` in that folder."""
    return [
        "with", "training.data=train.json", "validation.data=validate.json", *directories(home),
        *SETTINGS.split(),
    ]  # fmt: skip


def directories(home: Path) -> list[str]:
    """Return the settings that keep a run in that folder."""
    return [f"directories.data={home}", f"directories.runs={home / 'runs'}"]
