"""A: several processes read, changed and wrote the same chunks, and 0.87 % of the voxels were lost."""

import json

import numpy as np
import pytest

from incasem.config import load_data_config, load_prediction_config
from incasem.errors import DataError
from incasem.geometry import Roi
from incasem.prediction import output_group, predict_entries
from incasem.volumes import open_volume
from tests.defects.conftest import MODEL, entry, read, store


def test_no_voxel_of_a_prediction_by_several_workers_is_lost(home):
    raw = np.random.default_rng(1).integers(0, 256, (72, 80, 160)).astype(np.uint8)
    store(home / "large.zarr/volumes/raw", raw)
    region = entry(file="large.zarr", offset=[3, 5, 7], shape=[66, 70, 150])  # 2 × 2 × 3 blocks
    (home / "cell.json").write_text(json.dumps({"cell": region}))
    config = load_prediction_config(
        None,
        [
            f"directories.data={home}",
            "prediction.torch.device=cpu",
            "prediction.precision=fp32",
            "prediction.block_size_voxels=[64,64,64]",
        ],
        {"model": MODEL},
    )
    (result,) = predict_entries(
        config, load_data_config(home / "cell.json", home), checkpoint=home / "checkpoint",
        output_group=output_group(1, 1), num_workers=4, progress=False,
    )  # fmt: skip
    for path in result.others:
        probability = read(path)
        assert probability.shape == (66, 70, 150)
        assert probability.min() > 0, "a lost voxel is 0"


def test_a_part_of_a_chunk_cannot_be_written(tmp_path):
    """What made it possible: a write of less than a chunk is a read, a change and a write."""
    store(tmp_path / "cell.zarr/raw", np.ones((16, 16, 16), np.uint8), chunk=8)
    volume = open_volume(tmp_path / "cell.zarr/raw", writable=True)
    with pytest.raises(DataError, match="chunk"):
        volume.write_voxels(Roi((0, 0, 4), (8, 8, 8)), np.zeros((8, 8, 8), np.uint8))
    assert read(tmp_path / "cell.zarr/raw").all()
