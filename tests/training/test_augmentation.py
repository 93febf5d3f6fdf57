"""The gunpowder nodes: labels stay on their raw data, intensity, balance."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from incasem.config.augmentation import Augmentation, Elastic, Intensity, Misalignment, ShiftedSections
from incasem.geometry import Coordinate, Roi
from incasem.tasks.semantic import Semantic
from incasem.tasks.semantic_loss import balance_scale
from incasem.training import section_defects
from incasem.training._gunpowder import gp
from incasem.training.augmentation import (
    IntensityAugment,
    ResampleAugment,
    ToNetworkRange,
    node_generator,
    optional_nodes,
)
from incasem.training.sources import EVERYWHERE, VOXEL
from incasem.training.target_node import MakeTarget

RAW, LABELS, MASK, TARGET, SCALE, BLOCK = (
    gp.ArrayKey(f"TEST_{name}") for name in ("RAW", "LABELS", "MASK", "TARGET", "SCALE", "BLOCK")
)
# An offset that keeps the coordinates below positive.
FAR = 200


class Coordinates(gp.BatchProvider):
    """Raw data that are their own coordinate along an axis, in thousandths, and labels the same, whole."""

    def __init__(self, axis):
        self.axis = axis

    def setup(self):
        self.provides(RAW, gp.ArraySpec(roi=EVERYWHERE, voxel_size=VOXEL, interpolatable=True))
        for key in (LABELS, BLOCK):
            self.provides(key, gp.ArraySpec(roi=EVERYWHERE, voxel_size=VOXEL, interpolatable=False))

    def provide(self, request):
        batch = gp.Batch()
        for key, spec in request.array_specs.items():
            at = np.arange(spec.roi.begin[self.axis], spec.roi.end[self.axis]) + FAR
            at = np.broadcast_to(
                at.reshape([-1 if a == self.axis else 1 for a in range(3)]), tuple(spec.roi.shape)
            )
            data = (at / 1000).astype(np.float32) if key == RAW else at.astype(np.uint16)
            batch[key] = gp.Array(data, gp.ArraySpec(roi=spec.roi, voxel_size=VOXEL))
        return batch


def request_for(shape, label_shape, seed):
    begin = Coordinate((i - o) // 2 for i, o in zip(shape, label_shape, strict=True))
    request = gp.BatchRequest(random_seed=seed)
    request[RAW] = gp.ArraySpec(roi=Roi((0, 0, 0), shape))
    request[LABELS] = gp.ArraySpec(roi=Roi(begin, label_shape))
    request[BLOCK] = gp.ArraySpec(roi=Roi(begin, label_shape))
    return request


def run(axis, request, augmentation):
    with gp.build(Coordinates(axis) + ResampleAugment(augmentation, BLOCK)) as pipeline:
        return pipeline.request_batch(request)


SIZES = st.tuples(*[st.tuples(st.integers(1, 12), st.integers(0, 6))] * 3)


@given(SIZES, st.integers(0, 2**31), st.integers(1, 5), st.sampled_from([None, 0, 1, 2]))
@settings(deadline=None, max_examples=40)
def test_a_label_follows_its_raw_voxel(sizes, seed, subsample, misaligned):
    label_shape = tuple(size for size, _ in sizes)
    shape = tuple(size + 2 * context for size, context in sizes)
    augmentation = Augmentation(
        elastic=Elastic(control_point_spacing=(4, 5, 6), jitter_sigma=(2, 2, 2), subsample=subsample),
        misalignment=Misalignment(
            probability=int(misaligned is not None), axis=misaligned or 0, max_voxels=5
        ),
    )
    inside = tuple(slice(context, context + size) for size, context in sizes)
    for axis in range(3):
        batch = run(axis, request_for(shape, label_shape, seed), augmentation)
        raw, labels = batch[RAW].data, batch[LABELS].data
        assert raw.shape == shape
        assert raw.dtype == np.float32
        assert labels.shape == label_shape
        assert labels.dtype == np.uint16
        # The raw data are linear, so interpolation returns the very position; the label is its nearest voxel.
        position = raw[inside].astype(np.float64) * 1000
        assert np.abs(labels - position).max() <= 0.5 + 1e-2


def test_a_sphere_stays_a_sphere_on_its_label():
    """As a picture: raw and label of a ball agree after every augmentation."""

    class Ball(Coordinates):
        def provide(self, request):
            batch = gp.Batch()
            for key, spec in request.array_specs.items():
                z, y, x = np.meshgrid(
                    *(np.arange(b, e) - 30 for b, e in zip(spec.roi.begin, spec.roi.end, strict=True)),
                    indexing="ij",
                )
                inside = z**2 + y**2 + x**2 < 15**2
                data = inside.astype(np.uint8) * (255 if key == RAW else 1)
                batch[key] = gp.Array(data, gp.ArraySpec(roi=spec.roi, voxel_size=VOXEL))
            return batch

    for seed in range(5):
        with gp.build(Ball(0) + ResampleAugment(Augmentation(), BLOCK)) as pipeline:
            batch = pipeline.request_batch(request_for((60, 60, 60), (60, 60, 60), seed))
        raw, labels = batch[RAW].data > 0.5, batch[LABELS].data > 0
        assert labels.sum() > 5000
        assert (raw != labels).sum() < 0.03 * labels.sum()
        # A shift by one voxel would be seen.
        assert (raw[1:] != labels[:-1]).sum() > 0.05 * labels.sum()


@given(SIZES, st.integers(0, 2**31))
@settings(deadline=None, max_examples=40)
def test_flips_and_transposes_alone_change_no_value_and_move_the_block_with_the_labels(sizes, seed):
    label_shape = tuple(size for size, _ in sizes)
    shape = tuple(size + 2 * context for size, context in sizes)
    for axis in range(3):
        batch = run(axis, request_for(shape, label_shape, seed), Augmentation(elastic=None))
        labels = batch[LABELS].data
        np.testing.assert_array_equal(
            batch[BLOCK].data, np.broadcast_to(batch[BLOCK].data.flat[0], label_shape)
        )
        inside = tuple(slice(context, context + size) for size, context in sizes)
        np.testing.assert_array_equal(batch[RAW].data[inside], (labels / 1000).astype(np.float32))
        # The block was asked for where the labels lie.
        assert batch[BLOCK].data.flat[0] == labels.min()


class Constant(gp.BatchProvider):
    """Given arrays at a fixed place."""

    def __init__(self, **arrays):
        self.arrays = {gp.ArrayKey(f"TEST_{name}"): array for name, array in arrays.items()}

    def setup(self):
        for key, array in self.arrays.items():
            self.provides(key, gp.ArraySpec(roi=Roi((0, 0, 0), array.shape), voxel_size=VOXEL))

    def provide(self, request):
        batch = gp.Batch()
        for key in request.array_specs:
            batch[key] = gp.Array(self.arrays[key].copy(), self.spec[key].copy())
        return batch


def augmented(raw, settings_, seed):
    with gp.build(Constant(RAW=raw) + IntensityAugment(RAW, settings_)) as pipeline:
        request = gp.BatchRequest({RAW: gp.ArraySpec(roi=Roi((0, 0, 0), raw.shape))}, random_seed=seed)
        return pipeline.request_batch(request)[RAW].data


def test_intensity_scales_about_the_mean_and_shifts():
    raw = np.random.default_rng(0).uniform(0.4, 0.6, (8, 8, 8)).astype(np.float32)
    scales, shifts = [], []
    for seed in range(300):
        found = augmented(raw, Intensity(scale=0.15, shift=0.15), seed)
        slope, _ = np.polyfit(raw.ravel(), found.ravel(), 1)
        scales.append(slope)
        shifts.append(found.mean() - raw.mean())
        np.testing.assert_allclose(found, raw.mean() + (raw - raw.mean()) * slope + shifts[-1], atol=1e-5)
    for values, middle in ((scales, 1), (shifts, 0)):
        assert min(values) == pytest.approx(middle - 0.15, abs=0.01)
        assert max(values) == pytest.approx(middle + 0.15, abs=0.01)
        assert np.mean(values) == pytest.approx(middle, abs=0.02)


def test_intensity_is_clipped_and_repeatable():
    raw = np.linspace(0, 1, 512, dtype=np.float32).reshape(8, 8, 8)
    strong = Intensity(scale=1, shift=1)
    first = augmented(raw, strong, 4)
    assert first.min() >= 0
    assert first.max() <= 1
    np.testing.assert_array_equal(first, augmented(raw, strong, 4))
    assert (first != augmented(raw, strong, 5)).any()


def test_the_network_gets_minus_1_to_1():
    raw = np.linspace(0, 1, 8, dtype=np.float32).reshape(2, 2, 2)
    with gp.build(Constant(RAW=raw) + ToNetworkRange(RAW)) as pipeline:
        found = pipeline.request_batch(gp.BatchRequest({RAW: gp.ArraySpec(roi=Roi((0, 0, 0), (2, 2, 2)))}))
    np.testing.assert_allclose(found[RAW].data, raw * 2 - 1, atol=1e-6)


@pytest.mark.parametrize("masked", [False, True])
def test_the_loss_scale_is_gunpowders_own(masked):
    rng = np.random.default_rng(0)
    labels = (rng.random((6, 7, 8)) < 0.03).astype(np.uint8)
    mask = np.zeros_like(labels) if masked else rng.integers(0, 2, labels.shape, dtype=np.uint8)
    roi = Roi((0, 0, 0), labels.shape)
    found = []
    for node in (
        MakeTarget(LABELS, MASK, TARGET, SCALE, Semantic(2)),
        gp.BalanceLabels(LABELS, SCALE, MASK, num_classes=2, clipmin=0.01, clipmax=0.99),
    ):
        with gp.build(Constant(LABELS=labels, MASK=mask) + node) as pipeline:
            found.append(pipeline.request_batch(gp.BatchRequest({SCALE: gp.ArraySpec(roi=roi)}))[SCALE].data)
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6)
    np.testing.assert_array_equal(found[0], balance_scale(labels, mask, 2))


@given(SIZES, st.integers(0, 2**31), st.integers(0, 2))
@settings(deadline=None, max_examples=30)
def test_misalignment_moves_raw_and_labels_alike(sizes, seed, across):
    """Against a plain loop: each section of the output is another piece of the same volume."""
    label_shape = tuple(size for size, _ in sizes)
    shape = tuple(size + 2 * context for size, context in sizes)
    inside = tuple(slice(context, context + size) for size, context in sizes)
    chosen = ShiftedSections(probability=0.4, axis=across, max_voxels=4)
    for axis in range(3):
        asked = request_for(shape, label_shape, seed)
        moved = run(axis, asked, Augmentation(elastic=None, simple=None, shifted_sections=chosen))
        off = section_shifts(shape, chosen, seed)[axis]
        plain = np.broadcast_to(np.indices(shape)[axis] + FAR, shape)
        expected = plain + off.reshape([-1 if a == across else 1 for a in range(3)])
        np.testing.assert_allclose(moved[RAW].data, expected / 1000, atol=1e-6)
        np.testing.assert_array_equal(moved[LABELS].data, expected[inside])


def section_shifts(shape, chosen, seed):
    rng = node_generator(gp.BatchRequest(random_seed=seed).copy(), 1)  # a node gets a copy, with its seed
    return section_defects.shifts(Coordinate(shape), chosen, rng)


GREY_KINDS = (
    "gamma", "contrast", "low_contrast_sections", "blur", "noise", "shot_noise", "missing_sections", "cutout",
    "motion_blur",
)  # fmt: skip


def with_kinds(*names, probability=1.0):
    return Augmentation.model_validate({name: {"probability": probability} for name in names})


def grey_changed(raw, augmentation, seed):
    pipeline = Constant(RAW=raw)
    for node in optional_nodes(RAW, augmentation):
        pipeline += node
    with gp.build(pipeline):
        request = gp.BatchRequest({RAW: gp.ArraySpec(roi=Roi((0, 0, 0), raw.shape))}, random_seed=seed)
        return pipeline.request_batch(request)[RAW].data


def test_no_optional_kind_is_on_by_default():
    assert optional_nodes(RAW, Augmentation()) == []
    assert optional_nodes(RAW, with_kinds(*GREY_KINDS, probability=0)) == []
    assert len(optional_nodes(RAW, with_kinds(*GREY_KINDS))) == len(GREY_KINDS) - 1  # both noises in one


@pytest.mark.parametrize("name", GREY_KINDS)
def test_an_optional_kind_changes_grey_values_within_range_by_the_seed(name):
    raw = np.random.default_rng(0).random((12, 13, 14), np.float32)
    first = grey_changed(raw, with_kinds(name, probability=0.9), 1)
    assert 0 <= first.min() <= first.max() <= 1
    assert (first != raw).any()
    np.testing.assert_array_equal(first, grey_changed(raw, with_kinds(name, probability=0.9), 1))
    # What another kind draws does not depend on this one: alone or together, the same boxes are cut out.
    both = grey_changed(raw, with_kinds(name, "cutout"), 2)
    boxes = grey_changed(raw, with_kinds("cutout"), 2) != raw
    assert np.unique(both[boxes]).size == 1
