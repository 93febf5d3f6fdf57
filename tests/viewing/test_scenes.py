"""Regions of data configurations, comparisons, points."""

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("neuroglancer")

import tensorstore as ts

from incasem.errors import ConfigError, DataError
from incasem.viewing.comparison import Comparison, comparison_scene
from incasem.viewing.points import point_layer
from incasem.viewing.rois import load_rois, roi_scene
from tests.viewing.conftest import OFFSET, PREDICTED, PREDICTIONS, write

ENTRY = {"voxel_size": [5, 5, 5], "raw": "volumes/raw", "labels": {"volumes/labels/mito": 1}}


@pytest.fixture
def config(tmp_path, cell):
    def write(name, **entries):
        (tmp_path / name).write_text(
            json.dumps({k: {"file": Path(cell).name, **ENTRY, **v} for k, v in entries.items()})
        )
        return tmp_path / name

    return write


A = {"offset": [50, 60, 70], "shape": [20, 30, 40]}
B = {"offset": [60, 70, 80], "shape": [10, 10, 10]}


def test_each_region_has_a_box_and_one_of_its_context(config, cell):
    entries = load_rois([config("a.json", one=A), config("b.json", two=B)], Path(cell).parent)
    state = roi_scene(entries, context_voxels=47).state().to_json()
    assert [layer["name"] for layer in state["layers"]] == [
        "volumes/raw", "volumes/labels/mito", "one [50:70, 60:90, 70:110]", "two [60:70, 70:80, 80:90]",
    ]  # fmt: skip
    region, context = state["layers"][2]["annotations"]
    assert (region["pointA"], region["pointB"]) == ([50, 60, 70], [70, 90, 110])
    assert (context["pointA"], context["pointB"]) == ([3, 13, 23], [117, 137, 157])
    url = state["layers"][2]["source"]
    assert "local://annotations" in json.dumps(url)
    assert "5e-09" in json.dumps(url), "boxes count voxels of the entry"
    assert state["position"] == [60.5, 75.5, 90.5]


def test_the_voxel_size_is_that_of_the_configuration(config, cell):
    entries = load_rois(
        [config("a.json", one={**A, "voxel_size": [10, 10, 10], "offset": [25, 25, 30]})], Path(cell).parent
    )
    assert roi_scene(entries).layers[0].pyramid.voxel_size == (10, 10, 10)


def test_a_region_outside_the_raw_data(config, cell):
    entries = load_rois([config("a.json", one={**A, "offset": [0, 0, 0]})], Path(cell).parent)
    with pytest.raises(DataError, match=r"'one'.*a region within"):
        roi_scene(entries)


def test_images_and_labels_of_different_files(config, cell, tmp_path):
    labels = f"{cell}/volumes/labels/mito"
    region = {"raw": f"{cell}/volumes/raw", "voxel_size": [5, 5, 5], "labels": {labels: 1}}
    elsewhere = write(tmp_path / "other.zarr/ids", np.ones((8, 8, 8), np.uint32))
    entries = load_rois(
        [config("a.json", one=region, two=region | {"labels": {elsewhere.path: 1}})], tmp_path
    )
    names = [layer.name for layer in roi_scene(entries).layers]
    assert [name.rpartition("/")[2] for name in names] == ["raw", "mito", "ids"]


def test_several_cells_need_a_choice(config, cell, tmp_path):
    both = config("a.json", one=A, other={**A, "file": "other.zarr"})
    with pytest.raises(ConfigError, match=r"--only_cell is not set; allowed: one of cell\.zarr, other\.zarr"):
        load_rois([both], Path(cell).parent)
    assert [e.nickname for e in load_rois([both], Path(cell).parent, "cell.zarr/")] == ["one"]
    with pytest.raises(ConfigError, match=r"Did you mean 'cell\.zarr'"):
        load_rois([both], Path(cell).parent, "cel.zarr")


def test_nicknames_are_unique(config, cell):
    with pytest.raises(ConfigError, match="nickname"):
        load_rois([config("a.json", one=A), config("b.json", one=B)], Path(cell).parent)


def compared(cell, **arguments):
    arguments = {"labels_datasets": ["volumes/labels/mito"]} | arguments
    return Comparison(cell, "volumes/raw", predictions_file=cell, **arguments)


def panels(state):
    """The layers of each panel, row by row."""
    layout = state["layout"]
    rows = layout["children"] if layout["type"] == "column" else [layout]
    return [[panel["layers"] for panel in row["children"]] for row in rows]


def test_single_predictions_stand_in_a_row_with_the_truth(cell):
    series = ["train_0001/predict_0001", "train_0001/predict_0002"]
    scene = comparison_scene(compared(cell, series=series))
    state = scene.state().to_json()
    assert panels(state) == [
        [["volumes/raw", "volumes/labels/mito"], ["volumes/raw", series[0]], ["volumes/raw", series[1]]]
    ]
    assert all("colormapJet" in layer["shader"] for layer in state["layers"][2:])
    middle = [o + (s.start + s.stop) // 2 + 0.5 for o, s in zip(OFFSET, PREDICTED, strict=True)]
    assert state["position"] == middle


def test_iterations_make_columns(cell):
    series = "train_0001/predict_0003"
    for iterations in ([[1000, 2000]], ()):
        state = comparison_scene(compared(cell, series=[series], iterations=iterations)).state().to_json()
        truth = ["volumes/raw", "volumes/labels/mito"]
        assert panels(state) == [
            [truth, truth],
            [["volumes/raw", f"{series}/iteration_00{n}000"] for n in (1, 2)],
        ]


def test_all_predictions_without_a_choice(cell):
    grid = compared(cell).grid()
    assert [len(row) for row in grid] == [1, 1, 2]
    assert grid[2][1] == f"{PREDICTIONS}/predict_0003/iteration_002000/prob_maps/class_1"


def test_another_dataset_of_each_prediction(cell):
    scene = comparison_scene(compared(cell, suffix="segmentation", shader="default", layout="xz"))
    assert {layer.kind for layer in scene.layers} == {"image", "segmentation"}
    assert scene.state().to_json()["layout"]["children"][0]["layout"] == "xz"


def test_a_missing_iteration(cell):
    missing = compared(cell, series=["train_0001/predict_0003"], iterations=[[1000, 3000]])
    with pytest.raises(DataError, match="iteration_003000"):
        comparison_scene(missing)


def test_lists_that_do_not_go_together(cell):
    with pytest.raises(ConfigError, match="--iterations is given 2 times; allowed: once, or 3 times"):
        compared(cell, series=["a", "b", "c"], iterations=[[1], [2]]).grid()


def test_no_predictions(cell):
    with pytest.raises(DataError, match="without any prob_maps/class_7"):
        compared(cell, suffix="prob_maps/class_7").grid()


def table(path, data):
    spec = {
        "driver": "zarr",
        "kvstore": {"driver": "file", "path": str(path)},
        "metadata": {"shape": data.shape, "dtype": data.dtype.str},
    }
    ts.open(spec, create=True).result().write(data).result()


def test_points_with_ids_and_edges(tmp_path):
    file = tmp_path / "a.zarr"
    table(file / "graph-locations", np.array([[1.0, 2, 3], [4, 5, 6]]))
    table(file / "graph-ids", np.array([7, 9]))
    table(file / "graph-edges", np.array([[7, 9], [9, 11]]))
    layer = point_layer(str(file), "graph").to_json()
    assert [(a["id"], a["type"]) for a in layer["annotations"]] == [
        ("7", "point"), ("9", "point"), ("7-9", "line"),
    ]  # fmt: skip
    assert layer["annotations"][1]["point"] == [4, 5, 6]
    assert layer["annotations"][2]["pointB"] == [4, 5, 6]


def test_points_alone_and_in_a_plane(tmp_path):
    table(tmp_path / "a.zarr/points", np.array([[2, 3]]))
    (point,) = point_layer(str(tmp_path / "a.zarr"), "/points").to_json()["annotations"]
    assert point["point"] == [0, 2, 3]


def test_what_is_no_table_of_points(tmp_path):
    write(tmp_path / "a.zarr/raw", np.zeros((4, 4, 4), np.uint8))
    with pytest.raises(DataError, match=r"N × 3"):
        point_layer(str(tmp_path / "a.zarr"), "raw")
    with pytest.raises(DataError, match=r"a dataset of .*a\.zarr is points; allowed: raw"):
        point_layer(str(tmp_path / "a.zarr"), "points")
