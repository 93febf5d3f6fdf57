"""The annotation of an entry, region by region."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from incasem.config import DataEntry
from incasem.errors import DataError
from incasem.geometry import Roi
from incasem.tasks.ground_truth import GroundTruth, merge_classes
from incasem.volumes import create_volume


def entry(folder, **changes):
    values = {
        "nickname": "cell", "file": folder / "cell.zarr", "voxel_size": (5.0, 5.0, 5.0), "offset": (2, 2, 2),
        "shape": (6, 6, 6), "raw": "raw", "labels": {"er": 1, "other/er": 2}, "mask": "mask",
        "metric_masks": ("zone_a", "zone_b"),
    } | changes  # fmt: skip
    return DataEntry(**values)


@pytest.fixture
def arrays(tmp_path):
    generator = np.random.default_rng(0)
    made = {}
    for name in ("er", "other/er", "mask", "zone_a", "zone_b"):
        made[name] = generator.integers(0, 2, (10, 10, 10)).astype(np.uint8) * 255
        volume = create_volume(
            tmp_path / "cell.zarr" / name, shape=(10, 10, 10), dtype=np.uint8, voxel_size=(5, 5, 5),
            chunk_shape=(10, 10, 10),
        )  # fmt: skip
        volume.write_voxels(volume.roi_voxels, made[name])
    return made


def test_two_datasets_of_the_same_basename_are_two_classes(arrays, tmp_path):
    classes = GroundTruth(entry(tmp_path)).classes(Roi((0, 0, 0), (10, 10, 10)))
    first, second = arrays["er"] > 0, arrays["other/er"] > 0
    np.testing.assert_array_equal(classes, np.where(first & second, 0, first + 2 * second))


def test_masks_count_inside_the_region_only(arrays, tmp_path):
    truth = GroundTruth(entry(tmp_path))
    inside = np.zeros((10, 10, 10), bool)
    inside[2:8, 2:8, 2:8] = True
    whole = Roi((0, 0, 0), (10, 10, 10))
    mask = inside & (arrays["mask"] > 0)
    np.testing.assert_array_equal(truth.mask(whole), mask)
    np.testing.assert_array_equal(
        truth.metric_mask(whole), mask & (arrays["zone_a"] > 0) & (arrays["zone_b"] > 0)
    )


@given(begin=st.tuples(*[st.integers(-3, 9)] * 3), shape=st.tuples(*[st.integers(1, 8)] * 3))
def test_a_part_equals_the_part_of_the_whole(tmp_path_factory, begin, shape):
    folder = tmp_path_factory.mktemp("truth")
    values = np.random.default_rng(3).integers(0, 2, (10, 10, 10)).astype(np.uint8)
    volume = create_volume(
        folder / "cell.zarr/er",
        shape=(10, 10, 10),
        dtype=np.uint8,
        voxel_size=(5, 5, 5),
        chunk_shape=(5, 5, 5),
    )
    volume.write_voxels(volume.roi_voxels, values)
    truth = GroundTruth(entry(folder, labels={"er": 1}, mask=None, metric_masks=()))
    part = Roi(begin, shape)
    around = Roi((-3, -3, -3), (20, 20, 20))
    place = (part - around.offset).to_slices()
    np.testing.assert_array_equal(truth.classes(part), truth.classes(around)[place])
    np.testing.assert_array_equal(truth.mask(part), truth.mask(around)[place])


def test_nothing_labelled_is_background(tmp_path):
    truth = GroundTruth(entry(tmp_path, labels={}, mask=None, metric_masks=()))
    assert not truth.classes(Roi((2, 2, 2), (3, 3, 3))).any()
    assert truth.metric_mask(Roi((2, 2, 2), (3, 3, 3))).all()


def test_a_region_is_needed(tmp_path):
    with pytest.raises(DataError, match="'cell'"):
        GroundTruth(entry(tmp_path, offset=None))


def test_merge_of_three_claims_is_background():
    one = np.ones((1, 1, 1), np.uint8)
    assert merge_classes({1: one, 2: one, 3: one}, (1, 1, 1)).tolist() == [[[0]]]
