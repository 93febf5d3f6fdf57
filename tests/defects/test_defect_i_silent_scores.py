"""I: padding taught as background, a zero shell scored, an exclusion zone of width 0 over everything, a Dice
of empty against empty that was no number, a class lost by an equal name, an old dataset of any shape."""

import numpy as np

from incasem.cli import main
from incasem.config import DataEntry
from incasem.errors import DataError
from incasem.geometry import Roi
from incasem.metrics import OverlapAccumulator
from incasem.tasks.ground_truth import GroundTruth
from tests.defects.conftest import entry, predict, read, store


def region(folder, **changes):
    values = {
        "nickname": "cell", "file": folder / "cell.zarr", "voxel_size": (5.0, 5.0, 5.0), "offset": (4, 4, 4),
        "shape": (8, 8, 8), "raw": "raw", "labels": {},
    } | changes  # fmt: skip
    return DataEntry(**values)


def test_nothing_is_learnt_outside_the_region(tmp_path):
    store(tmp_path / "cell.zarr/er", np.ones((16, 16, 16), np.uint8))
    mask = GroundTruth(region(tmp_path, labels={"er": 1})).mask(Roi((0, 0, 0), (16, 16, 16)))
    expected = np.zeros((16, 16, 16), bool)
    expected[4:12, 4:12, 4:12] = True
    np.testing.assert_array_equal(mask != 0, expected)


def test_there_is_no_shell_of_zeros_to_score(home):
    assert predict(home, {"cell": entry(shape=[20, 20, 20])}) == 0
    (found,) = (home / "cell.zarr/volumes/predictions").rglob("prob_maps/class_1")
    assert read(found).min() > 0


def test_an_exclusion_zone_of_width_0_excludes_nothing(tmp_path):
    labels = np.zeros((16, 16, 16), np.uint32)
    labels[4:9, 4:9, 4:9] = 1
    store(tmp_path / "cell.zarr/er", labels)
    words = ["metric-mask", "-f", str(tmp_path / "cell.zarr"), "-d", "er", "-o", "zone", "-n", "1"]
    assert main([*words, "--exclude_voxels_outwards", "0", "--exclude_voxels_inwards", "0"]) == 0
    assert (read(tmp_path / "cell.zarr/zone") == 255).all()


def test_empty_against_empty_has_a_score():
    overlap = OverlapAccumulator(2)
    overlap.add(np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8))
    _, absent = overlap.scores()
    assert absent.f1 == absent.jaccard == 1


def test_datasets_of_equal_last_names_are_two_classes(tmp_path):
    for number, group in enumerate(("first", "second")):
        labels = np.zeros((16, 16, 16), np.uint8)
        labels[6 + number] = 1
        store(tmp_path / f"cell.zarr/{group}/er", labels)
    truth = GroundTruth(region(tmp_path, labels={"first/er": 1, "second/er": 2}))
    assert truth.classes(Roi((4, 4, 4), (8, 8, 8)))[:, 0, 0].tolist() == [0, 0, 1, 2, 0, 0, 0, 0]


def test_an_existing_dataset_of_another_shape_is_not_reused(tmp_path, capsys):
    store(tmp_path / "cell.zarr/volumes/raw", np.zeros((16, 16, 16), np.uint8))
    store(tmp_path / "cell.zarr/volumes/raw_equalized_0.02", np.full((8, 8, 8), 3, np.uint8))
    assert main(["equalize", "-f", str(tmp_path / "cell.zarr"), "-n", "1"]) == DataError.exit_code
    assert "raw_equalized_0.02" in capsys.readouterr().err
    assert (read(tmp_path / "cell.zarr/volumes/raw_equalized_0.02") == 3).all()
