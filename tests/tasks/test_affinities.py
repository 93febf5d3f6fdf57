"""The task `affinities`: targets with context, losses of parts of a step, what is stored and scored."""

import pickle

import numpy as np
import pytest
import torch

from incasem.config import DataEntry, load_prediction_config, load_training_config
from incasem.errors import DataError
from incasem.geometry import Roi
from incasem.tasks.affinities import Affinities
from incasem.tasks.affinity_targets import affinity_targets
from incasem.tasks.affinity_terms import Terms
from incasem.tasks.chosen import task_of
from incasem.tasks.ground_truth import GroundTruth
from incasem.tasks.region_scores import RegionScores
from incasem.tasks.semantic import Semantic
from incasem.volumes import create_volume

NEAREST = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
LONG = (*NEAREST, (-2, 0, 0), (0, 3, -3))
SHAPE = (12, 14, 16)
LARGE = 2**40
VOXEL = (5.0, 5.0, 5.0)


def objects(shape=SHAPE, seed=0, block=4):
    """Boxes of random ids, some of them background, some beyond 32 bits."""
    rng = np.random.default_rng(seed)
    ids = np.array([0, 1, 2, 7, LARGE, LARGE + 1], np.uint64)
    coarse = rng.choice(ids, [-(-size // block) for size in shape])
    for axis in range(3):
        coarse = coarse.repeat(block, axis)
    return np.ascontiguousarray(coarse[tuple(slice(size) for size in shape)])


def entry_of(folder, labels, **fields):
    volume = create_volume(
        folder / "cell.zarr/ids", shape=labels.shape, dtype=labels.dtype, voxel_size=VOXEL,
        chunk_shape=(8, 8, 8),
    )  # fmt: skip
    volume.write_voxels(volume.roi_voxels, labels)
    place = {"offset": (2, 2, 2), "shape": (8, 10, 12)}
    return DataEntry(
        nickname="cell", file=folder / "cell.zarr", voxel_size=VOXEL, raw="raw", labels={"ids": 1},
        **(place | fields),
    )  # fmt: skip


def test_the_settings_say_which_task_and_it_pickles():
    assert task_of(load_training_config(None)) == Semantic(2, (1.0, 1.0))
    assert task_of(load_prediction_config(None)) == Semantic(2)
    words = ["task.type=affinities", "task.border_erosion=1", "task.ignored_ids=[3]", "loss.dice_weight=0.5"]
    task = task_of(load_training_config(None, [*words, "loss.balance_labels.clipmin=0.05"]))
    expected = Affinities(NEAREST, 1, (3,), None, (0.05, 0.99), Terms(1, 0, 0.5))
    assert task == expected
    assert pickle.loads(pickle.dumps(task)) == expected
    assert task.channels == 3
    assert Affinities(LONG).channels == 5


def test_the_task_travels_from_a_training_to_its_predictions():
    training = load_training_config(None, ["task.type=affinities", "task.offsets=[[0,0,-1],[0,-9,0]]"])
    config = load_prediction_config(None, training_run=training.to_dict())
    assert task_of(config).offsets == ((0, 0, -1), (0, -9, 0))
    before = {name: section for name, section in training.to_dict().items() if name != "task"}
    assert task_of(load_prediction_config(None, training_run=before)) == Semantic(2)


def test_edges_at_the_border_of_a_block_are_known_by_its_context():
    labels = objects()
    task = Affinities(LONG, border_erosion=1)
    context = task.label_context
    assert tuple(context) == (2, 4, 4)
    inner = tuple(slice(c, size - c) for c, size in zip(context, SHAPE, strict=True))
    mask = np.ones(SHAPE, np.uint8)
    target = task.target(labels, mask)
    whole, valid = affinity_targets(labels, LONG, border_erosion=1)
    np.testing.assert_array_equal(target.values, whole[(slice(None), *inner)])
    assert target.values.dtype == np.uint8
    assert target.scale.dtype == np.float32
    assert (target.scale > 0).all()
    assert valid[(slice(None), *inner)].all()


def test_each_channel_is_balanced_and_unknown_edges_weigh_nothing():
    labels = objects()
    mask = np.ones(SHAPE, np.uint8)
    mask[:5] = 0
    target = Affinities(NEAREST, ignored_ids=(LARGE,)).target(labels, mask)
    inner = (slice(1, -1),) * 3
    _, valid = affinity_targets(labels, NEAREST, ignored_ids=(LARGE,), mask_ZYX=mask)
    np.testing.assert_array_equal(target.scale > 0, valid[(slice(None), *inner)])
    for values, scale in zip(target.values, target.scale, strict=True):
        assert scale[values == 1].sum() == pytest.approx(scale[values == 0].sum(), rel=1e-4)


def test_ids_are_read_with_what_lies_about_the_region(tmp_path):
    labels = objects()
    truth = GroundTruth(entry_of(tmp_path, labels), labels="instances")
    np.testing.assert_array_equal(truth.labels(Roi((0, 0, 0), SHAPE)), labels)
    wider = truth.labels(Roi((-3, -3, -3), (8, 8, 8)))
    np.testing.assert_array_equal(wider, np.pad(labels, 3, "reflect")[:8, :8, :8])
    assert not truth.mask(Roi((0, 0, 0), (2, 14, 16))).any()


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64])
def test_ids_of_any_integer_type_stay_what_they_are(tmp_path, dtype):
    most = np.iinfo(dtype).max
    labels = np.array([0, 1, most - 1, most], dtype).reshape(1, 2, 2).repeat(8, 0)
    found = GroundTruth(entry_of(tmp_path, labels), labels="instances").labels(Roi((0, 0, 0), (8, 2, 2)))
    assert found.dtype == np.uint64
    assert found[0].ravel().tolist() == [0, 1, most - 1, most]


def test_negative_ids_are_refused(tmp_path):
    labels = objects().astype(np.int64)
    labels[3, 4, 5] = -2
    truth = GroundTruth(entry_of(tmp_path, labels), labels="instances")
    with pytest.raises(DataError, match=r"an object id in .*ids of 'cell' is -2 .*allowed: 0 .*or more"):
        truth.labels(Roi((0, 0, 0), SHAPE))


def test_truth_keeps_the_ids_to_be_shown(tmp_path):
    labels, roi = objects(), Roi((3, 4, 5), (5, 6, 7))
    entry = entry_of(tmp_path, labels)
    for sigma in (None, (1.0, 1.0, 1.0)):
        task = Affinities(LONG, border_erosion=1, descriptor_sigma=sigma)
        truth = task.truth(GroundTruth(entry, labels="instances"), roi)
        np.testing.assert_array_equal(truth.ids_ZYX, labels[roi.to_slices()])
    ignoring = Affinities(LONG, ignored_ids=(LARGE,)).truth(GroundTruth(entry, labels="instances"), roi)
    inside = labels[roi.to_slices()]
    np.testing.assert_array_equal(ignoring.ids_ZYX, np.where(inside == LARGE, 0, inside))
    assert (inside == LARGE).any()


def test_nearest_affinities_are_in_the_order_of_the_axes():
    offsets = ((0, -3, 0), (0, 0, -1), (0, 1, 0), (0, -1, 0))
    stored = np.arange(8, dtype=np.uint8).reshape(4, 2, 1, 1)
    found = Affinities(offsets).nearest_affinities(stored)
    np.testing.assert_array_equal(found[1], stored[3], "the voxel before, where there are both")
    np.testing.assert_array_equal(found[2], stored[1])
    assert (found[0] == 255).all(), "of z nothing is known: as if nothing was cut"
    assert (Affinities(offsets).nearest_affinities(stored / 255)[0] == 1).all()
    after = Affinities(((0, 0, 1),)).nearest_affinities(stored[:1])
    np.testing.assert_array_equal(after[2], stored[0])
    assert Semantic(2).nearest_affinities(stored) is None


def batch(task, size=3, seed=0):
    targets = [task.target(objects(seed=seed + n), np.ones(SHAPE, np.uint8)) for n in range(size)]
    values = torch.from_numpy(np.stack([target.values for target in targets]))
    scale = torch.from_numpy(np.stack([target.scale for target in targets]))
    outputs = torch.randn(values.shape, generator=torch.Generator().manual_seed(seed))
    return outputs.requires_grad_(), values, scale


@pytest.mark.parametrize("terms", [Terms(), Terms(0, 1, 0), Terms(0.5, 0.7, 0.3)])
def test_batches_of_a_step_add_up_to_the_loss_of_one(terms):
    task = Affinities(LONG, terms=terms)
    outputs, values, scale = batch(task)
    whole = task.loss(outputs, values, scale)
    whole.backward()
    expected = outputs.grad.clone()
    outputs.grad = None
    parts = [slice(0, 1), slice(1, 3)]
    own = [task.totals([scale[part]]) for part in parts]  # each as in a process of its own
    totals = [sum(pair) for pair in zip(*own, strict=True)]
    assert totals == pytest.approx(task.totals([scale]))
    losses = [task.loss(outputs[part], values[part], scale[part], totals) for part in parts]
    sum(losses).backward()
    assert float(sum(losses).detach()) == pytest.approx(float(whole.detach()), rel=1e-5)
    torch.testing.assert_close(outputs.grad, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("terms", [Terms(), Terms(0.5, 0.7, 0.3)])
def test_the_loss_of_a_region_is_that_of_one_sample_however_it_is_cut(terms):
    task = Affinities(LONG, terms=terms)
    outputs, values, scale = batch(task, 1)
    expected = float(task.loss(outputs, values, scale).detach())
    region = task.region_loss()
    for z in (slice(0, 3), slice(3, None)):
        region.add(outputs[0, :, z].detach().numpy(), values[0, :, z].numpy(), scale[0, :, z].numpy() > 0)
    assert region.value() == pytest.approx(expected, rel=1e-4)


def exact_outputs(values):
    return torch.where(values != 0, 9.0, -9.0)


def test_what_is_stored_are_the_probabilities_with_their_offsets():
    task = Affinities(LONG)
    outputs, _, _ = batch(task, 1)
    logits = outputs[0].detach()
    (stored,) = task.stored("uint8")
    assert (stored.name, stored.channels, stored.bytes_per_voxel) == ("affinities", 5, 5)
    assert stored.attributes == {"offsets": [list(offset) for offset in LONG]}
    decoded = task.decode(logits)["affinities"]
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, np.rint(logits.sigmoid().numpy() * 255))
    np.testing.assert_array_equal(task.decode(logits, "float32")["affinities"], logits.sigmoid().numpy())
    assert task.decode(torch.zeros(5, 1, 1, 1))["affinities"].tolist() == [[[[128]]]] * 5
    torch.testing.assert_close(task.outputs(task.probabilities(logits)), logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_boundaries_are_scored(tmp_path, dtype):
    labels = objects()
    task = Affinities(LONG)
    truth = GroundTruth(entry_of(tmp_path, labels), labels="instances")
    roi = Roi((2, 2, 2), (8, 10, 12))
    true = task.truth(truth, roi)
    inside = (slice(2, 10), slice(2, 12), slice(2, 14))
    edges, _ = affinity_targets(labels, NEAREST)
    boundary = (edges == 0).any(axis=0)[inside]
    np.testing.assert_array_equal(true.classes_ZYX[true.counted_ZYX] == 1, boundary[true.counted_ZYX])
    assert not true.classes_ZYX[0][~boundary[0]].any(), "what is not known is shown as no boundary"
    assert not true.counted_ZYX[0].any(), "an edge that leaves the annotated region is not known"
    assert true.counted_ZYX[1:, 1:, 1:].all()
    scores = RegionScores(2)
    exact = task.predicted(task.decode(exact_outputs(torch.from_numpy(true.target)), dtype))
    scores.add(exact.classes_ZYX, exact.probabilities, true.classes_ZYX, true.counted_ZYX)
    assert scores.by_class()[1]["f1"] == 1
    assert scores.by_class()[1]["average_precision"] == 1
    assert scores.overlap.voxels == 7 * 9 * 11
    wrong = RegionScores(2)
    none = task.predicted(task.decode(torch.full(true.target.shape, 9.0), dtype))
    wrong.add(none.classes_ZYX, none.probabilities, true.classes_ZYX, true.counted_ZYX)
    assert wrong.by_class()[1]["recall"] == 0


def test_the_scores_of_a_region_do_not_depend_on_its_blocks(tmp_path):
    task = Affinities(LONG, border_erosion=1)
    truth = GroundTruth(entry_of(tmp_path, objects()), labels="instances")
    whole = task.truth(truth, Roi((2, 2, 2), (8, 10, 12)))
    for begin, end in ((0, 3), (3, 4), (4, 8)):
        part = task.truth(truth, Roi((2 + begin, 2, 2), (end - begin, 10, 12)))
        for name in ("target", "learnt"):
            np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[:, begin:end])
        for name in ("classes_ZYX", "counted_ZYX", "mask_ZYX"):
            np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[begin:end])


def test_metrics_of_a_batch_are_those_of_boundaries():
    task = Affinities(LONG)
    _, values, scale = batch(task)
    mask = torch.ones(scale[:, 0].shape)
    found = task.training_metrics(exact_outputs(values), values, scale, mask)
    share = float((values[:, :3].amin(dim=1) == 0).float().mean())
    assert found["dice_class_1_train"] == 1
    assert found["pct_class_1"] == pytest.approx(share)
    assert set(found) == {"pct_class_0", "pct_class_1", "dice_class_0_train", "dice_class_1_train"}


def test_descriptors_are_learnt_in_channels_of_their_own(tmp_path):
    task = Affinities(NEAREST, descriptor_sigma=(1.0, 2.0, 2.0), terms=Terms(0.5, 0.5, 0.3, 0.7))
    assert task.channels == 13
    assert tuple(task.label_context) == (3, 6, 6)
    assert [array.name for array in task.stored("uint8")] == ["descriptors", "affinities"]
    shape = (20, 24, 24)
    mask = np.ones(shape, np.uint8)
    mask[:8] = 0
    target = task.target(objects(shape), mask)
    assert target.values.shape == target.scale.shape == (13, 14, 12, 12)
    assert target.values.dtype == np.float32
    assert (target.scale[3:, :5] == 0).all(), "outside the mask nothing is learnt"
    assert (target.scale[3:, 5:] == 1).all()
    values, scale = (torch.from_numpy(array)[None] for array in target)
    outputs = torch.randn(values.shape, generator=torch.Generator().manual_seed(0))
    whole = float(task.loss(outputs, values, scale))
    without = Affinities(NEAREST, terms=task.terms)
    of_edges = float(without.loss(outputs[:, :3], values[:, :3], scale[:, :3]))
    squares = ((outputs.sigmoid() - values)[:, 3:, 5:] ** 2).mean()
    assert whole == pytest.approx(of_edges + 0.7 * float(squares), rel=1e-5)
    assert float(task.loss(outputs, values, scale, task.totals([scale]))) == pytest.approx(whole, rel=1e-6)
    region = task.region_loss()
    for z in (slice(0, 7), slice(7, None)):
        region.add(outputs[0, :, z].numpy(), target.values[:, z], target.scale[:, z] > 0)
    assert region.value() == pytest.approx(whole, rel=1e-4)
    truth = GroundTruth(entry_of(tmp_path, objects()), labels="instances")
    true = task.truth(truth, Roi((4, 4, 4), (4, 6, 6)))
    assert true.target.shape == true.learnt.shape == (13, 4, 6, 6)
    assert list(task.decode(outputs[0])) == ["descriptors", "affinities"]
    assert task.decode(outputs[0])["descriptors"].shape == (10, 14, 12, 12)
