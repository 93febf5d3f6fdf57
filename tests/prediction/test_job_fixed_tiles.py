"""The whole job with a network whose result depends on the tile: the same bytes for any blocks."""

import json

import numpy as np
import pytest
import torch

from incasem.blockwise import run_in_process, run_stage
from incasem.config import DataEntry, load_prediction_config
from incasem.errors import DataError
from incasem.geometry import Roi
from incasem.networks import build_network, initialise, save_checkpoint
from incasem.prediction import output_group, predict_entries
from incasem.volumes import create_volume, open_volume

MODEL = {
    "type": "ResidualUnet", "filters": [4, 8], "downsample_factors": [[1, 2, 2]],
    "kernel_sizes": [[1, 3, 3], [3, 3, 3]], "activation": "elu",
}  # fmt: skip
SMALL = {"input_size_voxels": [22, 58, 58], "output_size_voxels": [16, 28, 28]}
LARGER = {"input_size_voxels": [30, 66, 66], "output_size_voxels": [24, 36, 36]}
"""Sizes of a tile that the network has."""
VOXEL_SIZE = (40.0, 8.0, 8.0)
ROI = Roi((2, 5, 7), (40, 70, 66))


@pytest.fixture
def predict(tmp_path, monkeypatch):
    monkeypatch.setattr("incasem.prediction.job.run_stage", lambda job, *_, **__: run_in_process(job))
    volume = create_volume(
        tmp_path / "cell.zarr/volumes/raw", shape=(44, 80, 80), dtype=np.uint8, voxel_size=VOXEL_SIZE,
        chunk_shape=(44, 80, 80),
    )  # fmt: skip
    grey = np.random.default_rng(0).integers(0, 256, volume.shape, dtype=np.uint8)
    volume.write_voxels(volume.roi_voxels, grey)
    entry = DataEntry(
        nickname="cell", file=tmp_path / "cell.zarr", voxel_size=VOXEL_SIZE, offset=tuple(ROI.begin),
        shape=tuple(ROI.shape), raw="volumes/raw", file_as_given="cell.zarr",
    )  # fmt: skip

    def predict(norm, number, **prediction):
        torch.manual_seed(0)
        network = build_network(MODEL | {"norm": norm})
        initialise(network)
        with torch.no_grad():
            network.conv_out.weight.mul_(20)
        save_checkpoint(tmp_path / "checkpoint", network, None, {})
        chosen = {"precision": "fp32", "torch.device": "cpu"} | prediction
        words = [f"prediction.{key}={json.dumps(value)}" for key, value in chosen.items()]
        words += [f"model.{key}={json.dumps(value)}" for key, value in (MODEL | {"norm": norm}).items()]
        words += [f"directories.data={tmp_path}", "data.voxel_size=[40,8,8]"]
        (result,) = predict_entries(
            load_prediction_config(None, words), [entry], checkpoint=tmp_path / "checkpoint",
            output_group=output_group(1, number), num_workers=1, progress=False,
        )  # fmt: skip
        stored = open_volume(result.others[0])
        return result, stored.read_voxels(stored.roi_voxels)

    return predict


@pytest.mark.parametrize("norm", ["none", "channel", "group"])
def test_bytes_do_not_depend_on_blocks(predict, norm):
    _, whole = predict(norm, 1, **SMALL)
    result, blocks = predict(norm, 2, block_size_voxels=[40, 64, 64], **SMALL)
    assert result.report.blocks_done == 4
    assert whole.std() > 1
    difference = np.abs(whole.astype(int) - blocks)
    assert difference.max() <= (0 if norm == "group" else 1)


def test_the_size_of_the_tile_is_part_of_the_result(predict):
    small, first = predict("group", 1, **SMALL)
    larger, second = predict("group", 2, **LARGER)
    assert (small.plan.tile_shape, larger.plan.tile_shape) == ((16, 28, 28), (24, 36, 36))
    assert (first != second).mean() > 0.1


def test_a_job_of_another_tile_is_not_continued(predict, monkeypatch):
    monkeypatch.setattr("incasem.prediction.job.run_stage", run_stage)
    predict("group", 1, **SMALL)
    with pytest.raises(DataError, match="output_size_voxels"):
        predict("group", 1, **LARGER)
