"""Data configurations: the published format, and what is wrong with others."""

import json
from pathlib import Path

import pytest

from incasem.config import class_names, load_data_config
from incasem.errors import ConfigError, DataError
from incasem.geometry import Roi

SCRIPTS = Path(__file__).parents[2] / "scripts"
ENTRY = {"file": "cell_6/cell_6.zarr", "voxel_size": [5, 5, 5], "raw": "volumes/raw"}


@pytest.fixture
def write(tmp_path):
    def write_file(content):
        path = tmp_path / "data.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write_file


def message(path):
    with pytest.raises(ConfigError) as caught:
        load_data_config(path, "/data")
    return str(caught.value)


def test_the_published_examples_are_read():
    entries = load_data_config(SCRIPTS / "02_train/data_configs/example_validation_er.json", "/data")
    assert [e.nickname for e in entries] == ["cell_1_er_validation", "cell_2_er_validation"]
    first = entries[0]
    assert first.file == Path("/data/cell_1/cell_1.zarr")
    assert first.roi_voxels == Roi((150, 120, 2645), (600, 590, 250))
    assert first.voxel_size == (5, 5, 5)
    assert first.raw == "volumes/raw_equalized_0.02"
    assert first.labels == {"volumes/labels/er": 1}
    assert first.mask == "volumes/mask"
    assert first.metric_masks == ("volumes/metric_masks/er",)
    assert first.output_file(Path("/out")) == Path("/out/cell_1/cell_1.zarr")
    (cell6,) = load_data_config(SCRIPTS / "03_predict/data_configs/example_cell6.json", "/data")
    assert (cell6.labels, cell6.mask, cell6.metric_masks) == ({}, None, ())
    assert cell6.offset == (400, 926, 2512)


def test_files_are_relative_to_the_data_directory_unless_absolute(write, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    path = write({
        "a": ENTRY | {"file": "~/x.zarr"},
        "b": ENTRY | {"file": "/abs/x.zarr"},
        "c": ENTRY | {"file": "../x.zarr"},
    })  # fmt: skip
    a, b, c = load_data_config(path, "~/data")
    assert a.file == tmp_path / "x.zarr"
    assert b.file == Path("/abs/x.zarr")
    assert c.file == tmp_path / "data/../x.zarr"
    assert b.output_file(Path("/out")) == Path("/abs/x.zarr")
    assert a.output_file(Path("/out")) == tmp_path / "x.zarr"


def test_equal_last_parts_of_dataset_names_are_kept_apart(write):
    labels = {"volumes/labels/er": 1, "volumes/old/er": 2}
    (entry,) = load_data_config(write({"a": ENTRY | {"labels": labels}}), "/data")
    assert entry.labels == labels


def test_fractional_voxel_sizes_and_negative_offsets(write):
    values = ENTRY | {"voxel_size": [5.9, 5.9, 40], "offset": [-3, 0, 2], "shape": [1, 2, 3]}
    (entry,) = load_data_config(write({"a": values}), "/data")
    assert entry.voxel_size == (5.9, 5.9, 40)
    assert entry.roi_voxels == Roi((-3, 0, 2), (1, 2, 3))


def test_a_region_without_offset_or_shape_reaches_to_the_volumes_end(write):
    available = Roi((10, 20, 30), (100, 100, 100))
    whole, begun, sized = load_data_config(
        write({"a": ENTRY, "b": ENTRY | {"offset": [50, 50, 50]}, "c": ENTRY | {"shape": [5, 5, 5]}}), "/data"
    )
    assert whole.roi_voxels is None
    assert whole.roi_within(available) == available
    assert begun.roi_within(available) == Roi((50, 50, 50), (60, 70, 80))
    assert sized.roi_within(available) == Roi((10, 20, 30), (5, 5, 5))


@pytest.mark.parametrize(
    "values",
    [
        {"offset": [9, 20, 30], "shape": [5, 5, 5]},
        {"offset": [10, 20, 30], "shape": [5, 5, 101]},
        {"offset": [10, 20, 130]},
        {"offset": [10, 20, 200]},
    ],
)
def test_a_region_outside_the_volume_is_refused(write, values):
    (entry,) = load_data_config(write({"cell": ENTRY | values}), "/data")
    with pytest.raises(DataError, match=r"'cell'.*\[10:110, 20:120, 30:130\] voxels.*nm / voxel_size"):
        entry.roi_within(Roi((10, 20, 30), (100, 100, 100)))


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"rawe": "x"}, ["rawe (entry 'cell')", "Did you mean 'raw'?"]),
        ({"metric_mask": ["x"]}, ["Did you mean 'metric_masks'?"]),
        ({"voxel_size": [5, 5]}, ["cell.voxel_size is [5, 5]", "three numbers above 0"]),
        ({"voxel_size": [5, 5, -5]}, ["three numbers above 0"]),
        ({"voxel_size": 5}, ["three numbers above 0"]),
        ({"offset": [1.5, 0, 0]}, ["cell.offset", "three whole numbers"]),
        ({"shape": [0, 1, 1]}, ["cell.shape", "at least 1"]),
        ({"labels": ["volumes/labels/er"]}, ["cell.labels", "class ids"]),
        ({"labels": {"a": "1"}}, ["cell.labels", "class ids"]),
        ({"labels": {"a": True}}, ["cell.labels", "class ids"]),
        ({"labels": {"a": 0}}, ["1, 2, … N"]),
        ({"labels": {"a": 1, "b": 3}}, ["1, 2, … N without gaps"]),
        ({"labels": {"a": 1, "b": 1}}, ["each for one dataset"]),
        ({"metric_masks": "volumes/m"}, ["a list of datasets"]),
        ({"mask": 3}, ["cell.mask", "a name"]),
        ({"raw": ""}, ["cell.raw"]),
        ({"file": 7}, ["cell.file"]),
    ],
)
def test_an_entry_that_cannot_be_used_says_why(write, change, parts):
    path = write({"cell": ENTRY | change})
    text = message(path)
    assert str(path) in text
    assert "\n" not in text
    for part in parts:
        assert part in text


@pytest.mark.parametrize("missing", sorted(ENTRY))
def test_what_is_missing_is_named(write, missing):
    entry = {k: v for k, v in ENTRY.items() if k != missing}
    assert f"cell.{missing} is not set" in message(write({"cell": entry}))


def test_all_problems_of_a_file_come_together(write):
    text = message(write({"a": ENTRY | {"shape": 3}, "b": [1], "../c": ENTRY, "d": ENTRY | {"Mask": "m"}}))
    assert "4 entries or settings cannot be used" in text
    for part in ("a.shape", "b is a list", "'../c'", "Did you mean 'mask'?"):
        assert part in text


def test_repeated_names_are_refused_at_every_level(write):
    entry = json.dumps(ENTRY)
    assert "'cell' stands twice" in message(write(f'{{"cell": {entry}, "cell": {entry}}}'))
    doubled = entry[:-1] + ', "labels": {"l": 1, "l": 2}}'
    assert "'l' stands twice" in message(write(f'{{"cell": {doubled}}}'))


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ('{"a": {\n  "file": x}}', "line 2, column 11"),
        ('{"a": 1', "line 1, column 8"),
        ("", "line 1, column 1"),
        ("// comment\n{}", "no comments"),
        ("{}", "an empty object"),
        ("[1]", "a list"),
        ("null", "null"),
        ('{"cell": {"file": "x", "raw": "y", "voxel_size": [NaN, 5, 5]}}', "three numbers above 0"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_faults_of_the_json_itself(write, content, part):
    path = write(content)
    text = message(path)
    assert str(path) in text
    assert part in text


def test_classes_are_called_like_their_label_datasets(write, tmp_path):
    labels = [{"volumes/labels/er": 1}, {}, {"volumes/labels/mito": 1, "volumes/labels/golgi": 2}]
    entries = load_data_config(
        write({f"cell_{i}": ENTRY | {"labels": given} for i, given in enumerate(labels)}), tmp_path
    )
    assert class_names(entries, 4) == ["er", "golgi", "class_3"]


def test_images_and_labels_may_lie_in_different_files(write, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    place = {"voxel_size": [30, 6, 6]}
    path = write({
        "hdf5": place | {
            "raw": "snemi/train.h5/main", "labels": {"snemi/labels.h5/main": 1}, "mask": "~/m.n5/a",
        },
        "tiff": place | {"raw": "snemi/train-input.tif", "labels": {"/abs/train-labels.tif": 1}},
        "both": ENTRY | {
            "labels": {"volumes/labels/er": 1}, "metric_masks": ["zones.zarr/er", "volumes/zone"],
        },
        "elsewhere": ENTRY | {"raw": "other.zarr/raw"},
    })  # fmt: skip
    hdf5, tiff, both, elsewhere = load_data_config(path, "/data")
    assert (hdf5.file, hdf5.raw) == (Path("/data/snemi/train.h5"), "main")
    assert hdf5.labels == {"/data/snemi/labels.h5/main": 1}
    assert hdf5.mask == f"{tmp_path}/m.n5/a"
    # Where a dataset lies is `file / dataset`, wherever that is.
    assert tiff.file / tiff.raw == tiff.file == Path("/data/snemi/train-input.tif")
    (labels,) = tiff.labels
    assert tiff.file / labels == Path("/abs/train-labels.tif")
    assert tiff.output_file(Path("/out")) == Path("/out/snemi/train-input.tif")
    assert both.labels == {"volumes/labels/er": 1}, "as published"
    assert both.metric_masks == ("/data/zones.zarr/er", "volumes/zone")
    assert elsewhere.file / elsewhere.raw == Path("/data/other.zarr/raw")
    assert elsewhere.output_file(Path("/out")) == Path("/out/cell_6/cell_6.zarr")


def test_an_entry_without_a_file_needs_one_in_raw(write):
    text = message(write({"a": {"voxel_size": [5, 5, 5], "raw": "volumes/raw"}}))
    assert "a.file" in text
    assert "volumes/raw" in text


def test_containers_are_known_by_the_suffixes_of_volumes():
    from incasem.config.data_config import CONTAINER_SUFFIXES
    from incasem.volumes import hdf5, split_path
    from incasem.volumes.sections import TIFF_SUFFIXES

    assert set(CONTAINER_SUFFIXES) >= {*hdf5.SUFFIXES, *TIFF_SUFFIXES}
    for suffix in CONTAINER_SUFFIXES:
        assert split_path(f"a/b{suffix}/c")[0] == Path(f"a/b{suffix}")
