"""A training that learns affinities, from objects to the scores of boundaries."""

import json

import numpy as np
import pytest
import torch

from incasem.errors import ConfigError
from incasem.geometry import Coordinate
from incasem.networks import read_sidecar
from incasem.tasks.affinity_targets import affinity_targets
from incasem.training._gunpowder import gp
from incasem.training.feed import SampleFeed
from incasem.training.locations import index_entry
from incasem.training.pipeline import SampleShape, build_pipeline, sample_request
from incasem.training.run import train
from incasem.training.sources import Keys, open_entry
from incasem.volumes import open_volume
from tests.training.cells import UNCHANGED, cell, small_config
from tests.training.conftest import request, run, write_volume

OFFSETS = ((-1, 0, 0), (0, -1, 0), (0, 0, -1), (0, -3, 0))
AFFINITIES = (
    "task.type=affinities", f"task.offsets={json.dumps(OFFSETS)}", "model.num_fmaps_out=4",
    "data.num_classes=9", "loss.dice_weight=0.5",
)  # fmt: skip
LARGE = 2**41
SHAPE = (32, 32, 64)


def boxes(shape, block=8, seed=0):
    """Objects that fill the volume, with ids beyond 32 bits, and some background."""
    rng = np.random.default_rng(seed)
    coarse = rng.permutation(np.prod([-(-size // block) for size in shape])).astype(np.uint64)
    coarse = coarse.reshape([-(-size // block) for size in shape])
    coarse[coarse > 0] += np.uint64(LARGE)
    for axis in range(3):
        coarse = coarse.repeat(block, axis)
    return np.ascontiguousarray(coarse[tuple(slice(size) for size in shape)])


@pytest.fixture
def neurons(project):
    """The project with boxes, dark where they touch, instead of balls."""
    ids = boxes(SHAPE)
    edges, _ = affinity_targets(ids)
    raw = np.where((edges == 0).any(axis=0), 40, 180).astype(np.uint8)
    write_volume(project / "boxes.zarr/volumes/raw", raw)
    write_volume(project / "boxes.zarr/volumes/labels/ids", ids)
    for name in ("train", "validate"):
        (entry,) = json.loads((project / f"{name}.json").read_text()).values()
        entry |= {"file": "boxes.zarr", "labels": {"volumes/labels/ids": 1}}
        (project / f"{name}.json").write_text(json.dumps({name: entry}))
    return project


def test_samples_are_edges_of_what_lies_there(tmp_path):
    ids = boxes((48, 48, 48))
    entry = cell(tmp_path, labels={"ids": (ids, 1)})
    config = small_config(*UNCHANGED, *AFFINITIES, "training.reject.min_masked=0")
    whole, _ = affinity_targets(ids, OFFSETS)
    with SampleFeed([entry], config, (28,) * 3, (10,) * 3, seed=5, num_samples=4) as feed:
        for sample in feed:
            place = tuple(slice(begin, begin + 10) for begin in sample.position)
            assert sample.labels.dtype == torch.uint8
            assert sample.labels.shape == sample.loss_scale.shape == (4, 10, 10, 10)
            np.testing.assert_array_equal(sample.labels, whole[(slice(None), *place)])
            known = sample.loss_scale > 0
            assert known[:, 3:, 3:, 3:].all(), "also at the border of the block"
            outside = [8 - begin for begin in sample.position]  # of the annotated region, along each axis
            assert known[0, max(outside[0], 0) + 1 :].all()


def test_every_geometry_carries_ids_exactly_and_edges_are_those_of_the_deformed_objects(tmp_path):
    ids = boxes((48, 48, 48))
    source = open_entry(cell(tmp_path, labels={"ids": (ids, 1)}), labels="instances")
    config = small_config(*AFFINITIES)
    shape = SampleShape(Coordinate(28, 28, 28), Coordinate(10, 10, 10))
    with gp.build(build_pipeline([source], [index_entry(source)], config)) as pipeline:
        for index in range(4):
            request = sample_request(shape, 5, index)
            request[Keys.LABELS] = gp.ArraySpec(roi=request[Keys.TARGET].roi)
            batch = pipeline.request_batch(request)
            labels, target = batch[Keys.LABELS].data, batch[Keys.TARGET].data
            assert labels.dtype == np.uint64
            assert np.isin(labels, ids).all()
            assert np.unique(labels).size > 1
            edges, inside = affinity_targets(labels, OFFSETS)
            known = inside & (batch[Keys.LOSS_SCALE].data > 0)
            np.testing.assert_array_equal(target[known], edges[known])
            assert known.mean() > 0.3


def test_a_training_learns_boundaries_and_scores_them(neurons):
    run_id, lines = run(
        neurons, *AFFINITIES, *UNCHANGED, "training.iterations=60", "validation.validate_every=60",
        "training.save_every=60", "training.snapshot.every=60", "validation.snapshot.every=1",
    )  # fmt: skip
    folder = neurons / "runs"
    assert any("class 1 is the boundary" in line for line in lines)
    sidecar = read_sidecar(folder / f"models/{run_id:04d}/model_checkpoint_60")
    assert sidecar["task"] == "affinities"
    assert sidecar["task_settings"]["offsets"] == [list(offset) for offset in OFFSETS]
    assert sidecar["classes"] == ["boundary"]
    scores = sidecar["scores"]["validate"]
    assert scores["f1_class_1"] > 0.8, "the boundaries are the dark voxels"
    assert scores["average_precision_class_1"] > 0.9
    (snapshot,) = (folder / "snapshots").rglob("training/60.zarr")
    assert open_volume(snapshot / "predictions").shape == (4, 10, 10, 10)
    assert open_volume(snapshot / "labels").dtype == np.uint8
    (validated,) = (folder / "snapshots").rglob("validation/validate/60.zarr")
    assert_validation_is_kept(validated, neurons)
    (report,) = folder.rglob("report.html")
    for wanted in (
        "class 1 is the boundary",
        "objects of the labels",
        "affinities z, y, x as red, green, blue",
    ):
        assert wanted in report.read_text()
    images = {name for events in folder.rglob("events.out.tfevents*") for name in image_names(events)}
    assert {"objects", "affinities", "labels_affinities", "predictions_affinities", "raw"} <= images


def assert_validation_is_kept(snapshot, project):
    """Ids as they are in the labels, and affinities whose smallest is the boundary that was scored."""
    ids, affinities, boundary = (
        open_volume(snapshot / name) for name in ("ids", "affinities", "predictions")
    )
    roi = ids.roi_voxels
    labels = open_volume(project / "boxes.zarr/volumes/labels/ids")
    np.testing.assert_array_equal(ids.read_voxels(roi), labels.read_voxels(roi))
    assert affinities.attributes["offsets"] == [list(offset) for offset in OFFSETS]
    nearest = affinities.read_voxels(roi)[:3].min(axis=0)
    np.testing.assert_array_equal(boundary.read_voxels(roi), nearest < 128)


def image_names(events):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(events), size_guidance={"images": 0})
    accumulator.Reload()
    return accumulator.Tags()["images"]


def test_a_wrong_number_of_channels_and_several_label_datasets_are_refused(neurons):
    with pytest.raises(ConfigError, match=r"num_fmaps_out is 2; allowed: 3 with task.type=affinities"):
        train(request(neurons, "task.type=affinities"), print)
    entry = json.loads((neurons / "train.json").read_text())
    entry["train"]["labels"]["volumes/labels/more"] = 2
    (neurons / "train.json").write_text(json.dumps(entry))
    with pytest.raises(ConfigError, match=r"train.labels is 2 datasets; allowed: one dataset of object ids"):
        train(request(neurons, *AFFINITIES), print)
