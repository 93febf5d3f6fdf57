"""What a dataset is to the eye."""

import numpy as np
import pytest

from incasem.viewing import find_datasets, open_pyramid
from incasem.viewing.kinds import classes_in, grey_range, kind_of, probability_range
from tests.viewing.conftest import write


@pytest.mark.parametrize(
    ("path", "dtype", "channels", "kind"),
    [
        ("cell.zarr/volumes/raw", "uint8", None, "image"),
        ("cell.zarr/volumes/raw_equalized_0.02", "uint8", None, "image"),
        ("cell.zarr/volumes/raw", "uint16", None, "image"),
        ("cell.zarr/volumes/raw", "float32", None, "image"),
        ("cell.zarr/volumes/labels/er", "uint32", None, "segmentation"),
        ("cell.zarr/volumes/labels/er", "uint8", None, "segmentation"),
        ("cell.zarr/anything", "int64", None, "segmentation"),
        ("c.zarr/volumes/predictions/train_1841/predict_0001/segmentation", "uint8", None, "segmentation"),
        (
            "c.zarr/volumes/predictions/train_1/predict_1/prob_maps/class_1",
            "uint8",
            None,
            "probability",
        ),
        (
            "c.zarr/volumes/predictions/train_1/predict_1/prob_maps/class_0",
            "float32",
            None,
            "probability",
        ),
        ("cell.zarr/volumes/mask", "uint8", None, "mask"),
        ("cell.zarr/volumes/metric_masks/er", "uint8", None, "mask"),
        ("cell.zarr/anything", "bool", None, "mask"),
        ("colour.zarr/raw", "uint8", 3, "rgb"),
        ("a.zarr/affinities", "float32", 3, "rgb"),
        ("a.zarr/predictions", "uint8", 12, "channels"),
        ("a.zarr/raw", "uint8", 1, "image"),
        # A folder of the user's is not part of the layout.
        ("labels/cell.zarr/raw", "uint8", None, "image"),
        ("somewhere/mask.zarr", "uint8", None, "mask"),
    ],
)
def test_kinds(path, dtype, channels, kind):
    assert kind_of(path, np.dtype(dtype), channels) == kind


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        ("default", "segmentation"),
        ("rgb", "rgb"),
        ("mask", "mask"),
        ("heatmap", "heatmap"),
        ("probmap", "probability"),
    ],
)
def test_the_published_words(word, kind):
    assert kind_of("cell.zarr/volumes/labels/er", np.dtype("uint32"), None, word) == kind


def opened(path, data):
    write(path / "a.zarr/x", data)
    return open_pyramid(find_datasets(str(path / "a.zarr"), "x")[0])


def test_bytes_are_shown_whole(tmp_path):
    assert grey_range(opened(tmp_path, np.full((4, 4, 4), 9, np.uint8))) == (0, 255)


def test_words_are_shown_where_their_values_are(tmp_path):
    values = np.random.default_rng(1).integers(20_000, 22_000, (40, 40, 40), dtype=np.uint16)
    low, high = grey_range(opened(tmp_path, values))
    assert 20_000 <= low < 20_050
    assert 21_950 < high < 22_000


@pytest.mark.parametrize(
    ("value", "dtype", "wanted"),
    [(3, np.uint16, (0, 65535)), (0.5, np.float32, (0, 1)), (np.nan, np.float32, (0, 1))],
)
def test_nothing_to_stretch(tmp_path, value, dtype, wanted):
    assert grey_range(opened(tmp_path, np.full((4, 4, 4), value, dtype))) == wanted


def test_classes_are_few_and_small(tmp_path):
    labels = np.zeros((8, 8, 8), np.uint32)
    labels[:4], labels[4:] = 1, 2
    assert classes_in(opened(tmp_path, labels)).ids == (1, 2)


@pytest.mark.parametrize(("low", "high"), [(1, 200), (5000, 5002), (0, 1)])
def test_instances_are_many_or_large(tmp_path, low, high):
    labels = np.arange(512, dtype=np.uint64).reshape(8, 8, 8) % (high - low) + low
    assert classes_in(opened(tmp_path, labels)).ids == ()


def test_classes_shown_as_a_heat_map(tmp_path):
    labels = np.zeros((8, 8, 8), np.uint32)
    labels[4:] = 2
    assert probability_range(opened(tmp_path, labels)) == (0, 2)
