"""A pyramid opens in napari, with its public OME-Zarr plugin, at the right place. Headless: no window."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from incasem.formatting import PyramidOptions, make_pyramid
from incasem.volumes import create_volume, open_volume

NAPARI = Path(os.environ.get("INCASEM_NAPARI_PYTHON", Path(__file__).parents[2] / ".venv-napari/bin/python"))


def layers(tmp_path, *groups):
    if not NAPARI.exists():
        pytest.skip(f"{NAPARI} is missing: `make test-all` creates it")
    environment = os.environ | {"XDG_CONFIG_HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [NAPARI, Path(__file__).with_name("napari_layers.py"), *map(str, groups)],
        capture_output=True, text=True, timeout=500, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout.partition("LAYERS ")[2])


@pytest.mark.slow
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_napari_shows_it_at_the_right_place(tmp_path, zarr_format):
    cell = tmp_path / "cell.zarr"
    rng = np.random.default_rng(0)
    for dataset, dtype in (("volumes/raw", np.uint8), ("volumes/labels/er", np.uint32)):
        volume = create_volume(
            cell / dataset, shape=(20, 24, 28), dtype=dtype, voxel_size=(8, 4, 4), offset_nm=(24, 4, 12),
            chunk_shape=(8, 8, 8), zarr_format=zarr_format,
        )  # fmt: skip
        volume.write_voxels(volume.roi_voxels, rng.integers(0, 99, volume.shape).astype(dtype))
        make_pyramid(PyramidOptions(cell, dataset, [(1, 2, 2), (2, 2, 2)]), num_workers=1, progress=False)
    shown = layers(tmp_path, cell / "volumes/raw", cell / "volumes/labels/er")
    raw, labels = shown[0], shown[-1]
    assert (raw["kind"], labels["kind"]) == ("Image", "Labels")
    for layer, dataset in ((raw, "volumes/raw"), (labels, "volumes/labels/er")):
        assert layer["levels"] == [[20, 24, 28], [20, 13, 15], [11, 7, 8]]
        assert layer["scale"] == [8, 4, 4]
        # napari puts a translation at the first voxel's centre, and so does NGFF.
        assert layer["translate"] == [24, 4, 12]
        level = open_volume(cell / dataset / "s2")
        assert layer["corner"] == level.read_voxels(level.roi_voxels).reshape(-1)[:3].tolist()
