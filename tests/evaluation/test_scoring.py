import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from incasem.config import DataEntry
from incasem.errors import DataError
from incasem.evaluation.scoring import score_entry, score_volumes
from incasem.geometry import Roi
from incasem.metrics import OverlapAccumulator, PrecisionRecallAccumulator
from incasem.tasks.ground_truth import GroundTruth
from incasem.tasks.semantic import Semantic
from incasem.volumes import create_volume, open_volume

VOXEL_SIZE = (5.0, 4.0, 4.0)
OFFSET = (3, 10, -4)
SHAPE = (20, 30, 25)


def store(path, array, offset=OFFSET):
    volume = create_volume(
        path, shape=array.shape, dtype=array.dtype, voxel_size=VOXEL_SIZE,
        offset_nm=tuple(o * v for o, v in zip(offset, VOXEL_SIZE, strict=True)), chunk_shape=(8, 16, 16),
    )  # fmt: skip
    volume.write_voxels(volume.roi_voxels, array)
    return volume


@pytest.fixture(scope="module")
def cell(tmp_path_factory):
    """A container with two label datasets of instances that overlap, a mask, metric masks, a segmentation."""
    file = tmp_path_factory.mktemp("scores") / "cell.zarr"
    rng = np.random.default_rng(0)
    arrays = {
        "a": rng.integers(0, 3, SHAPE, dtype=np.uint32) * 7,
        "b": rng.integers(0, 2, SHAPE, dtype=np.uint32),
        "mask": rng.integers(0, 4, SHAPE, dtype=np.uint8) * 60,
        "metric": rng.integers(0, 4, SHAPE, dtype=np.uint8),
        "segmentation": rng.integers(0, 3, SHAPE, dtype=np.uint8),
    } | {f"prob_maps/class_{c}": rng.integers(0, 256, SHAPE, dtype=np.uint8) for c in range(3)}
    for name, array in arrays.items():
        store(file / name, array)
    entry = DataEntry(
        nickname="cell", file=file, voxel_size=VOXEL_SIZE, offset=OFFSET, shape=SHAPE, raw="raw",
        labels={"a": 1, "b": 2}, mask="mask", metric_masks=("metric",),
    )  # fmt: skip
    return entry, arrays


def truth_and_mask(arrays, region):
    a, b = arrays["a"][region] > 0, arrays["b"][region] > 0
    truth = np.where(a & b, 0, np.where(a, 1, np.where(b, 2, 0)))
    return truth, (arrays["mask"][region] > 0) & (arrays["metric"][region] > 0)


def expected(arrays, region=np.s_[:, :, :]):
    counts = OverlapAccumulator(3)
    counts.add(arrays["segmentation"][region], *truth_and_mask(arrays, region))
    return counts.confusion


def expected_histograms(arrays):
    counts = PrecisionRecallAccumulator(3)
    region = np.s_[:, :, :]
    counts.add([arrays[f"prob_maps/class_{c}"] for c in range(3)], *truth_and_mask(arrays, region))
    return counts.histograms


def paths(entry, num_maps):
    """The stored arrays by name: that many probability maps, then the segmentation."""
    names = [*(f"prob_maps/class_{c}" for c in range(num_maps)), "segmentation"]
    return {name: entry.file / name for name in names}


def volumes(entry, num_maps):
    return {name: open_volume(path) for name, path in paths(entry, num_maps).items()}


def test_an_entry_is_scored_inside_mask_and_metric_masks(cell):
    entry, arrays = cell
    counts = score_entry(paths(entry, 0), entry, Semantic(3))

    np.testing.assert_array_equal(counts.overlap.confusion, expected(arrays))
    assert 0 < counts.overlap.voxels < np.prod(SHAPE)


def test_probabilities_are_scored_in_the_same_pass(cell):
    entry, arrays = cell
    counts = score_entry(paths(entry, 3), entry, Semantic(3))

    np.testing.assert_array_equal(counts.overlap.confusion, expected(arrays))
    np.testing.assert_array_equal(counts.precision_recall.histograms, expected_histograms(arrays))
    for score in counts.by_class():
        assert 0 < score["average_precision"] < 1


def test_without_probabilities_there_is_no_average_precision(cell):
    entry, _ = cell
    counts = score_entry(paths(entry, 0), entry, Semantic(3))
    assert all(np.isnan(score["average_precision"]) for score in counts.by_class())


@settings(deadline=None, max_examples=15)
@given(block=st.tuples(*[st.integers(3, 40)] * 3), threads=st.integers(1, 3))
def test_blocks_and_threads_do_not_change_the_counts(cell, block, threads):
    entry, arrays = cell
    truth = GroundTruth(entry)
    counts = score_volumes(volumes(entry, 3), truth, Semantic(3), block_shape=block, num_threads=threads)

    np.testing.assert_array_equal(counts.overlap.confusion, expected(arrays))
    np.testing.assert_array_equal(counts.precision_recall.histograms, expected_histograms(arrays))


def test_a_part_of_the_volume_is_scored(cell):
    entry, arrays = cell
    counts = score_volumes(
        volumes(entry, 0), GroundTruth(entry), Semantic(3), roi_voxels=Roi((5, 12, 0), (4, 9, 11))
    )

    np.testing.assert_array_equal(counts.overlap.confusion, expected(arrays, np.s_[2:6, 2:11, 4:15]))


def test_a_region_outside_the_prediction_is_refused(cell):
    entry, _ = cell
    with pytest.raises(DataError):
        score_volumes(volumes(entry, 0), GroundTruth(entry), Semantic(3), roi_voxels=Roi((0, 10, -4), SHAPE))


def test_too_few_classes_are_refused(cell):
    entry, _ = cell
    with pytest.raises(DataError, match="allowed: 0 to 1"):
        score_entry(paths(entry, 0), entry, Semantic(2))


def test_labels_elsewhere_and_no_labels_are_refused(cell):
    entry, arrays = cell
    store(entry.file / "elsewhere", arrays["b"], offset=(100, 100, 100))
    fields = {"nickname": "cell", "file": entry.file, "voxel_size": VOXEL_SIZE, "raw": "raw"}
    fields |= {"offset": OFFSET, "shape": SHAPE}
    with pytest.raises(DataError, match=r"the place of elsewhere.*allowed: an overlap"):
        score_entry(paths(entry, 0), DataEntry(**fields, labels={"elsewhere": 1}), Semantic(2))
    with pytest.raises(DataError, match=r"cell.labels is empty"):
        score_entry(paths(entry, 0), DataEntry(**fields), Semantic(2))
