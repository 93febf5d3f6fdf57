"""Predicted affinities: the same whatever the blocks, with masks, marks and what tells them apart."""

import json
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from incasem.blockwise import Grid, Job, run_in_process
from incasem.config import DataEntry, load_prediction_config
from incasem.errors import CheckpointError, ConfigError, DataError
from incasem.geometry import Coordinate, Roi
from incasem.networks import save_checkpoint
from incasem.prediction import AlignedTiling, Predictor, output_group, predict_entries
from incasem.prediction.outputs import OutputSet
from incasem.prediction.worker import PredictionWorker
from incasem.tasks.affinities import Affinities
from incasem.tasks.stored import require_finished
from incasem.volumes import create_volume, open_volume

OFFSETS = ((-1, 0, 0), (0, -1, 0), (0, 0, -1), (0, 0, -5))
VOXEL_SIZE = (5.0, 5.0, 5.0)
BEGIN = (-2, 3, 5)
SHAPE = (70, 60, 72)
ROI = Roi((0, 6, 5), (60, 57, 70))
TASK = Affinities(OFFSETS)


def store(path, array, begin=BEGIN):
    volume = create_volume(
        path, shape=array.shape, dtype=array.dtype, voxel_size=VOXEL_SIZE,
        offset_nm=tuple(o * v for o, v in zip(begin, VOXEL_SIZE, strict=True)), chunk_shape=(32, 32, 32),
    )  # fmt: skip
    volume.write_voxels(volume.roi_voxels, array)
    return volume


def read(path):
    volume = open_volume(path)
    return volume.read_voxels(volume.roi_voxels)


@pytest.fixture(scope="module")
def model(small_model):
    return small_model | {"num_fmaps_out": len(OFFSETS)}


@pytest.fixture(scope="module")
def edges_network(make_network):
    return make_network(num_fmaps_out=len(OFFSETS))


@pytest.fixture(scope="module")
def checkpoint(edges_network, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "model_checkpoint_1"
    save_checkpoint(path, edges_network, None, {})
    return path


@pytest.fixture(scope="module")
def grey_values():
    return np.random.default_rng(0).integers(0, 256, SHAPE, dtype=np.uint8)


class OneChannel(torch.nn.Module):
    """A channel against 0: their softmax is the sigmoid of the channel."""

    def __init__(self, network, channel):
        super().__init__()
        self.network, self.channel = network, channel
        self.stride, self.context_voxels = network.stride, network.context_voxels
        self.input_shape_for = network.input_shape_for

    def forward(self, raw):
        logits = self.network(raw)[:, self.channel, None]
        return torch.cat([logits, torch.zeros_like(logits)], dim=1)


@pytest.fixture(scope="module")
def probabilities(edges_network, grey_values, memory_raw, reference):
    """One pass over the whole region, (K, z, y, x)."""
    raw = memory_raw(grey_values, BEGIN)
    return np.stack([reference(OneChannel(edges_network, c), raw, ROI)[0] for c in range(len(OFFSETS))])


@settings(deadline=None, max_examples=8)
@given(data=st.data())
def test_no_cut_into_blocks_and_tiles_shows_in_the_result(
    data, tmp_path_factory, grey_values, checkpoint, model, probabilities
):
    file = tmp_path_factory.mktemp("cut") / "cell.zarr"
    raw = store(file / "volumes/raw", grey_values)
    begin = [data.draw(st.integers(b, e - 1)) for b, e in zip(ROI.begin, ROI.end, strict=True)]
    roi = Roi(begin, [data.draw(st.integers(1, e - b)) for b, e in zip(begin, ROI.end, strict=True)])
    target = file if data.draw(st.booleans(), label="Zarr v2") else file.with_name("sharded.zarr")
    if target != file:
        create_volume(target / "x", shape=(2, 2, 2), dtype=np.uint8, voxel_size=VOXEL_SIZE, zarr_format=3)
    output_type = data.draw(st.sampled_from(["float32", "uint8"]))
    outputs = OutputSet(target / "prediction", roi, VOXEL_SIZE, TASK, output_type)
    worker = PredictionWorker(
        model=model, checkpoint=checkpoint, devices=["cpu"], precision="fp32",
        tile_shape=Coordinate(data.draw(st.tuples(*[st.integers(16, 90)] * 3))),
        published=None, raw=raw, mask=None, outputs=outputs.open(), task=TASK, output_dtype=output_type,
    )  # fmt: skip
    block = outputs.write_shape * Coordinate(data.draw(st.tuples(*[st.integers(1, 2)] * 3)))
    job = Job("predict", Grid(roi, block), worker, identity={}, state_dir=file / "state")
    run_in_process(job)

    place = (roi - ROI.begin).to_slices()
    scale, tolerance = (1, 1e-6) if output_type == "float32" else (255, 0.5 + 1e-3)
    stored = read(target / "prediction/affinities")
    np.testing.assert_allclose(stored, probabilities[(slice(None), *place)] * scale, rtol=0, atol=tolerance)
    shutil.rmtree(file.parent)


@pytest.fixture
def cell(tmp_path, grey_values):
    store(tmp_path / "cell.zarr/volumes/raw", grey_values)
    return tmp_path / "cell.zarr"


@pytest.fixture
def predict(tmp_path, model, checkpoint, monkeypatch):
    monkeypatch.setattr("incasem.prediction.job.run_stage", lambda job, *_, **__: run_in_process(job))

    def predict(file, *overrides, checkpoint=checkpoint, **fields):
        words = ["prediction.precision=fp32", "prediction.torch.device=cpu", "task.type=affinities"]
        words += [f"task.offsets={json.dumps(OFFSETS)}", f"directories.data={tmp_path}"]
        words += [f"model.{key}={json.dumps(value)}" for key, value in model.items()]
        entry = DataEntry(
            nickname="cell", file=file, voxel_size=VOXEL_SIZE, offset=tuple(ROI.begin),
            shape=tuple(ROI.shape), raw="volumes/raw", file_as_given=file.name, **fields,
        )  # fmt: skip
        config = load_prediction_config(None, [*words, *overrides])
        (result,) = predict_entries(
            config, [entry], checkpoint=checkpoint, output_group=output_group(1, 2), progress=False
        )
        return result

    return predict


def test_the_array_says_what_its_channels_are(cell, predict, probabilities):
    result = predict(cell)
    assert result.main == cell / output_group(1, 2) / "affinities"
    assert result.others == ()
    volume = open_volume(result.main)
    assert volume.axes == ("c", "z", "y", "x")
    assert volume.dtype == np.uint8
    assert volume.attributes["offsets"] == [list(offset) for offset in OFFSETS]
    assert volume.chunk_shape == (4, 60, 57, 64)
    assert volume.roi_voxels == ROI
    np.testing.assert_allclose(read(result.main), probabilities * 255, rtol=0, atol=0.5 + 1e-3)


def test_edges_outside_the_mask_are_0_and_whole_blocks_of_them_are_left_out(cell, predict, probabilities):
    mask = np.zeros(SHAPE, np.uint8)
    mask[:, 20:, :30] = 1
    store(cell / "volumes/mask", mask)
    result = predict(cell, "prediction.block_size_voxels=[60,57,64]", mask="volumes/mask")
    inside = mask[tuple(slice(b - o, e - o) for b, e, o in zip(ROI.begin, ROI.end, BEGIN, strict=True))] != 0
    found = read(result.main)
    assert not found[:, ~inside].any()
    np.testing.assert_allclose(found[:, inside], probabilities[:, inside] * 255, rtol=0, atol=0.5 + 1e-3)
    assert result.report.blocks_skipped == 1


def test_descriptors_are_stored_beside_them(cell, predict, make_network, tmp_path):
    network = make_network(num_fmaps_out=len(OFFSETS) + 10)
    save_checkpoint(tmp_path / "model_checkpoint_2", network, None, {})
    more = ("task.descriptors=True", f"model.num_fmaps_out={len(OFFSETS) + 10}")
    result = predict(cell, *more, checkpoint=tmp_path / "model_checkpoint_2")
    assert [path.name for path in result.others] == ["descriptors"]
    assert open_volume(result.others[0]).shape == (10, *ROI.shape)
    assert open_volume(result.main).shape == (len(OFFSETS), *ROI.shape)
    require_finished(open_volume(result.others[0]))
    (result.main / ".incasem/marks").mkdir(parents=True)
    with pytest.raises(DataError, match="is not finished"):
        require_finished(open_volume(result.others[0]))


def test_what_was_learnt_must_be_what_is_asked_for(cell, predict, edges_network, tmp_path):
    trained = {"task": "affinities", "task_settings": {"offsets": [[0, 0, -1]] * 4}}
    save_checkpoint(tmp_path / "model_checkpoint_3", edges_network, None, trained)
    with pytest.raises(CheckpointError, match=r"offsets that .* was trained for is \[\[0, 0, -1\]"):
        predict(cell, checkpoint=tmp_path / "model_checkpoint_3")
    save_checkpoint(tmp_path / "model_checkpoint_4", edges_network, None, {"task": "semantic"})
    with pytest.raises(CheckpointError, match=r"was trained for is semantic; allowed: affinities"):
        predict(cell, checkpoint=tmp_path / "model_checkpoint_4")
    with pytest.raises(ConfigError, match=r"num_fmaps_out is 4; allowed: 14 .*task.descriptors"):
        predict(cell, "task.descriptors=True")
    assert not (cell / "volumes/predictions").exists()


def test_other_offsets_are_another_prediction(cell, predict):
    predict(cell, "prediction.output_dtype=float32")
    with pytest.raises(DataError, match="float32"):
        predict(cell)


def test_views_are_averaged_edge_by_edge_whatever_the_blocks(
    cell, predict, edges_network, grey_values, memory_raw
):
    result = predict(cell, "prediction.tta=8", "prediction.block_size_voxels=[60,57,64]")
    assert result.report.blocks_done == 2
    network = Predictor(
        edges_network, "cpu", "fp32", tta=8, task=TASK, tiling=AlignedTiling(edges_network, (64, 32, 80))
    )
    mean = network.probabilities(memory_raw(grey_values, BEGIN), ROI)
    np.testing.assert_allclose(read(result.main), mean * 255, rtol=0, atol=0.5 + 1e-3)


def test_views_that_edges_do_not_have_are_refused_before_anything_is_written(cell, predict):
    with pytest.raises(ConfigError, match=r"prediction\.tta is 16; .* lacks \[0, -5, 0\]"):
        predict(cell, "prediction.tta=16")
    published = ("tiling=published", "input_size_voxels=[36,52,52]", "output_size_voxels=[10,10,10]")
    with pytest.raises(ConfigError, match=r"prediction\.tta is 8 or 16 with prediction\.tiling=published"):
        predict(cell, "prediction.tta=8", *(f"prediction.{setting}" for setting in published))
    assert not (cell / "volumes/predictions").exists()
