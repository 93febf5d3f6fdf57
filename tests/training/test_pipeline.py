"""The whole pipeline of samples: what a sample holds, and what it depends on."""

import numpy as np
import pytest

from incasem.geometry import Coordinate, Roi
from incasem.tasks.grey_values import normalise
from incasem.tasks.semantic_loss import balance_scale
from incasem.training.locations import index_entry
from incasem.training.pipeline import SampleShape, build_pipeline, sample_request
from incasem.training.sources import open_entry
from tests.training.cells import UNCHANGED, ball, cell, small_config

SHAPE = SampleShape(Coordinate(28, 28, 28), Coordinate(10, 10, 10))


class Samples:
    """Samples of entries by number, as arrays by the keys' names."""

    def __init__(self, entries, *overrides, shape=SHAPE, seed=1):
        self.sources = [open_entry(entry, index) for index, entry in enumerate(entries)]
        indices = [index_entry(source) for source in self.sources]
        self.pipeline = build_pipeline(self.sources, indices, small_config(*overrides))
        self.pipeline.setup()
        self.shape, self.seed = shape, seed

    def __getitem__(self, number):
        batch = self.pipeline.request_batch(sample_request(self.shape, self.seed, number))
        return {key.identifier: batch[key].data for key in batch.arrays}


@pytest.fixture(scope="module")
def entry(tmp_path_factory):
    return cell(tmp_path_factory.mktemp("cell"))


@pytest.fixture(scope="module")
def samples(entry):
    return Samples([entry])


def same(first, second):
    return all(np.array_equal(first[name], second[name]) for name in first)


def test_a_sample_has_the_promised_arrays(samples):
    for number in range(5):
        sample = samples[number]
        assert sample["RAW"].shape == (28, 28, 28)
        assert sample["RAW"].dtype == np.float32
        assert -1 <= sample["RAW"].min() < sample["RAW"].max() <= 1
        for name, dtype in (("TARGET", np.uint8), ("MASK", np.uint8), ("METRIC_MASK", np.uint8)):
            assert sample[name].shape == (10, 10, 10)
            assert sample[name].dtype == dtype
        assert all(array.flags.c_contiguous for name, array in sample.items() if name != "BLOCK")
        np.testing.assert_array_equal(
            sample["LOSS_SCALE"], balance_scale(sample["TARGET"], sample["MASK"], 2)
        )
        assert samples.sources[0].roi.contains(Roi(sample["PLACE"][1:], (10, 10, 10)))


def test_a_sample_depends_on_seed_and_number_alone(entry, samples):
    assert same(samples[3], samples[3])
    assert same(Samples([entry])[3], samples[3])  # not on what was asked before
    assert not same(samples[3], samples[4])
    assert not same(samples[3], Samples([entry], seed=2)[3])


def test_without_augmentation_a_sample_is_a_region_of_the_volumes(entry):
    plain = Samples([entry], *UNCHANGED)
    source = plain.sources[0]
    for number in range(10):
        sample = plain[number]
        block = Roi(sample["PLACE"][1:], (10, 10, 10))
        raw = source.raw.read_voxels(block.grow(Coordinate(9, 9, 9), Coordinate(9, 9, 9)), beyond="reflect")
        np.testing.assert_allclose(sample["RAW"], normalise(raw), atol=1e-6)
        np.testing.assert_array_equal(sample["TARGET"], source.truth.classes(block))
        assert sample["MASK"].all()


def test_with_flips_alone_the_values_stay_and_the_place_is_right(entry):
    flipped = Samples([entry], "training.augmentation.elastic=null", "training.augmentation.intensity=null")
    source = flipped.sources[0]
    for number in range(10):
        sample = flipped[number]
        block = Roi(sample["PLACE"][1:], (10, 10, 10))
        raw = normalise(source.raw.read_voxels(block))
        middle = sample["RAW"][9:19, 9:19, 9:19]
        np.testing.assert_allclose(np.sort(middle, axis=None), np.sort(raw, axis=None), atol=1e-6)
        assert sample["TARGET"].sum() == source.truth.classes(block).sum()


@pytest.mark.parametrize("reads", [(28, 24, 40), (40, 28, 24)])
def test_patches_of_unequal_sides(tmp_path, reads):
    entry = cell(tmp_path, shape=(60, 60, 60), roi=((8, 8, 8), (44, 44, 44)))
    shape = SampleShape(Coordinate(reads), Coordinate(size - 18 for size in reads))
    samples = Samples([entry], shape=shape)
    for number in range(12):
        sample = samples[number]
        assert sample["RAW"].shape == reads
        assert sample["TARGET"].shape == tuple(shape.output)
        assert sample["MASK"].mean() > 0.5


def test_outside_the_roi_nothing_is_learnt(tmp_path):
    """An ROI smaller than the output: its voxels, and no others, carry weight."""
    labels = np.ones((48, 48, 48), np.uint8)
    entry = cell(tmp_path, labels={"all": (labels, 1)}, roi=((20, 20, 20), (6, 5, 4)))
    plain = Samples([entry], *UNCHANGED)
    for number in range(10):
        sample = plain[number]
        block = Roi(sample["PLACE"][1:], (10, 10, 10))
        inside = np.zeros((10, 10, 10), bool)
        inside[(Roi((20, 20, 20), (6, 5, 4)) - block.begin).to_slices()] = True
        assert inside.sum() == 6 * 5 * 4
        np.testing.assert_array_equal(sample["MASK"] != 0, inside)
        np.testing.assert_array_equal(sample["TARGET"] != 0, inside)
        np.testing.assert_array_equal(sample["LOSS_SCALE"] != 0, inside)
        assert np.ptp(sample["RAW"][0]) > 0  # the raw data are real there
    deformed = [Samples([entry])[number] for number in range(10)]
    for sample in deformed:
        assert sample["MASK"].sum() < 300
        np.testing.assert_array_equal(sample["LOSS_SCALE"] != 0, sample["MASK"] != 0)
    assert np.mean([sample["MASK"].sum() for sample in deformed]) > 50


def test_entries_are_drawn_by_the_size_of_their_rois(tmp_path):
    large = cell(tmp_path, nickname="large", roi=((0, 0, 0), (40, 40, 30)))
    small = cell(tmp_path, nickname="small", roi=((8, 8, 8), (20, 20, 40)))
    samples = Samples([large, small], *UNCHANGED, "training.reject.reject_probability=0")
    entries = [samples[number]["PLACE"][0] for number in range(300)]
    assert np.mean(np.array(entries) == 1) == pytest.approx(0.25, abs=0.08)


def test_entries_of_different_raw_types_mix(tmp_path):
    rng = np.random.default_rng(0)
    grey = rng.random((48, 48, 48))
    entries = [
        cell(tmp_path, nickname="bytes", raw=(grey * 255).astype(np.uint8)),
        cell(tmp_path, nickname="words", raw=(grey * 65535).astype(np.uint16)),
        cell(tmp_path, nickname="floats", raw=grey.astype(np.float32)),
    ]
    samples = Samples(entries, *UNCHANGED)
    seen = set()
    for number in range(20):
        sample = samples[number]
        seen.add(int(sample["PLACE"][0]))
        z, y, x = (place - 9 for place in sample["PLACE"][1:])
        if min(z, y, x) >= 0 and max(z, y, x) + 28 <= 48:
            expected = grey[z : z + 28, y : y + 28, x : x + 28] * 2 - 1
            np.testing.assert_allclose(sample["RAW"], expected, atol=1 / 100)
    assert seen == {0, 1, 2}


GREY_KINDS = tuple(
    f"training.augmentation.{kind}.probability=0.9"
    for kind in (
        "gamma", "contrast", "low_contrast_sections", "blur", "noise", "shot_noise", "missing_sections",
        "cutout", "motion_blur",
    )
)  # fmt: skip
GEOMETRY = tuple(
    f"training.augmentation.{kind}"
    for kind in ("rotation.probability=1", "rotation.degrees_y=[-180,180]", "scaling.probability=1",
                 "shifted_sections.probability=0.2", "misalignment.probability=1")
)  # fmt: skip


def test_optional_grey_values_leave_labels_and_masks_alone(entry, samples):
    changed = Samples([entry], *GREY_KINDS)
    for number in range(5):
        sample, plain = changed[number], samples[number]
        assert (sample["RAW"] != plain["RAW"]).any()
        assert -1 <= sample["RAW"].min() < sample["RAW"].max() <= 1
        assert same({name: array for name, array in plain.items() if name != "RAW"}, sample)


def test_samples_with_every_kind_depend_on_seed_and_number_alone(entry, samples):
    first, second = (Samples([entry], *GREY_KINDS, *GEOMETRY) for _ in range(2))
    for number in (3, 0):
        assert same(first[number], second[number])
    assert not same(first[1], samples[1])
    np.testing.assert_array_equal(first[1]["PLACE"], samples[1]["PLACE"])
    np.testing.assert_array_equal(
        first[1]["LOSS_SCALE"], balance_scale(first[1]["TARGET"], first[1]["MASK"], 2)
    )


def test_probability_0_is_the_published_sample(entry, samples):
    zero = [setting.rpartition("=")[0] + "=0" for setting in GREY_KINDS]
    zero += [f"training.augmentation.{kind}.probability=0" for kind in ("rotation", "scaling")]
    zero += ["training.augmentation.rotation.degrees_y=[-180,180]", "training.augmentation.blur.sigma=[3,3]"]
    assert same(Samples([entry], *zero)[2], samples[2])


def test_labels_stay_on_their_raw_data_with_every_geometry(tmp_path):
    """A ball that is white where it is labelled, seen through rotation, scaling and shifted sections."""
    labels = ball((48, 48, 48), 14)
    raw = (labels != 0).astype(np.uint8) * 255
    entry = cell(tmp_path, raw=raw, labels={"ball": (labels, 1)})
    drawn = Samples([entry], *GEOMETRY, "training.augmentation.intensity=none", "data.voxel_size=[5,5,5]")
    for number in range(10):
        sample = drawn[number]
        white = sample["RAW"][9:19, 9:19, 9:19] > 0
        assert (white != (sample["TARGET"] != 0)).mean() < 0.06
