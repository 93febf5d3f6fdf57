"""Layers as neuroglancer gets them: kind, place, bytes, program; without a browser."""

import numpy as np
import pytest

pytest.importorskip("neuroglancer")

from incasem.errors import DataError
from incasem.viewing import find_datasets, open_pyramid
from incasem.viewing.datasets import Dataset
from incasem.viewing.layers import layer_names, make_layers, shown
from incasem.viewing.scene import Scene
from incasem.viewing.served import ServedVolume
from tests.viewing.conftest import OFFSET, PREDICTED, PREDICTIONS, write
from tests.viewing.test_pyramid import terabytes, voxels_read  # noqa: F401


def layers_of(cell, *words, **arguments):
    datasets = [dataset for word in words for dataset in find_datasets(cell, word)]
    return make_layers([(dataset, open_pyramid(dataset)) for dataset in datasets], **arguments)


def source_of(layer):
    return shown(layer).source[0].url


def test_each_dataset_gets_its_kind_of_layer(cell):
    state = Scene(layers_of(cell, "volumes/labels/er", "volumes")).state().to_json()
    kinds = {layer["name"]: layer["type"] for layer in state["layers"]}
    assert kinds["volumes/raw"] == kinds["volumes/mask"] == "image"
    assert kinds["volumes/labels/mito"] == kinds[f"{PREDICTIONS}/predict_0001/segmentation"] == "segmentation"
    assert kinds[f"{PREDICTIONS}/predict_0001/prob_maps/class_1"] == "image"
    assert state["layers"][0]["name"] == "volumes/raw", "images lie below what is drawn over them"


def test_the_position_counts_voxels_in_z_y_x(cell):
    """As in the guide: `520, 1164, 2776` (z, y, x)."""
    state = Scene(layers_of(cell, "volumes/raw")).state().to_json()
    assert list(state["dimensions"]) == ["z", "y", "x"]
    assert state["dimensions"]["z"] == [5e-9, "m"]
    assert state["displayDimensions"] == ["x", "y", "z"]
    assert state["position"] == [40 + 32 + 0.5, 50 + 36 + 0.5, 60 + 48 + 0.5]


def test_a_volume_begins_at_the_corner_of_its_first_voxel(cell):
    info = source_of(layers_of(cell, "volumes/raw")[0]).info()
    assert list(info["voxelOffset"]) == list(OFFSET[::-1])
    assert tuple(info["shape"]) == (96, 72, 64)
    space = info["coordinateSpace"]
    assert list(space) == ["x", "y", "z"]
    assert space["x"] == [5e-9, "m"]


def test_a_prediction_lies_at_its_own_place_and_is_looked_at_first(cell):
    layers = layers_of(cell, "volumes/raw", f"{PREDICTIONS}/predict_0001/segmentation")
    info = source_of(layers[1]).info()
    begin = [o + s.start for o, s in zip(OFFSET, PREDICTED, strict=True)]
    assert list(info["voxelOffset"]) == begin[::-1]
    middle = [o + (s.start + s.stop) // 2 + 0.5 for o, s in zip(OFFSET, PREDICTED, strict=True)]
    assert Scene(layers).state().to_json()["position"] == middle


@pytest.mark.parametrize(
    ("voxel_size", "offset"),
    [((4, 4, 4), (3, 5, 7)), ((50, 4.6, 4.6), (2, 100, 11)), ((5.9, 5.9, 40), (-3, 0, 9))],
)
def test_places_of_any_voxel_size(tmp_path, voxel_size, offset):
    write(tmp_path / "a.zarr/raw", np.zeros((4, 5, 6), np.uint8), offset, voxel_size)
    info = source_of(layers_of(str(tmp_path / "a.zarr"), "raw")[0]).info()
    scales = [info["coordinateSpace"][axis][0] * 1e9 for axis in "zyx"]
    np.testing.assert_allclose(scales, voxel_size)
    assert list(info["voxelOffset"]) == list(offset[::-1])


def served(pyramid, **arguments):
    arguments = {"kind": "image", "average": True, "channel_name": "c^"} | arguments
    return ServedVolume(pyramid, **arguments)


def piece_of(volume, start, end, key):
    content, _ = volume.get_encoded_subvolume("raw", np.array(start), np.array(end), key)
    shape = [e - s for s, e in zip(start, end, strict=True)]
    return np.frombuffer(content, volume.data_type).reshape(shape, order="F")


def test_bytes_are_in_the_order_x_y_z(cell, phantom):
    volume = served(layers_of(cell, "volumes/raw")[0].pyramid)
    piece = piece_of(volume, (10, 20, 30), (30, 35, 40), "1,1,1")
    np.testing.assert_array_equal(piece, phantom.raw_ZYX[30:40, 20:35, 10:30].T)


def test_pieces_reduced_on_the_way(cell, phantom):
    volume = served(layers_of(cell, "volumes/labels/mito")[0].pyramid, kind="segmentation", average=False)
    piece = piece_of(volume, (0, 0, 0), (48, 18, 64), "2,4,1")
    np.testing.assert_array_equal(piece, phantom.labels["mito"][:, 2::4, 1::2].T)


def test_channels_come_last(tmp_path):
    data = np.random.default_rng(1).random((3, 4, 5, 6), dtype=np.float32)
    write(tmp_path / "a.zarr/affinities", data)
    (layer,) = layers_of(str(tmp_path / "a.zarr"), "affinities")
    source = source_of(layer)
    assert list(source.info()["coordinateSpace"]) == ["x", "y", "z", "c^"]
    np.testing.assert_array_equal(piece_of(source, (0, 0, 0, 0), (6, 5, 4, 3), "1,1,1,1"), data.T)
    np.testing.assert_array_equal(
        piece_of(source, (1, 0, 0, 1), (6, 5, 4, 2), "1,1,1,1"), data[1:2, :, :, 1:].T
    )


def test_a_single_channel_is_no_channel(tmp_path, phantom):
    write(tmp_path / "a.zarr/labels", phantom.labels["mito"][None])
    (layer,) = layers_of(str(tmp_path / "a.zarr"), "labels")
    assert layer.kind == "segmentation"
    assert source_of(layer).rank == 3


@pytest.mark.parametrize(
    ("stored", "sent"), [("bool", "uint8"), ("int64", "uint64"), ("float64", "float32"), ("uint16", "uint16")]
)
def test_types_that_the_client_lacks_are_converted(tmp_path, stored, sent):
    write(tmp_path / "a.zarr/x", np.ones((4, 4, 4), stored))
    source = source_of(layers_of(str(tmp_path / "a.zarr"), "x")[0])
    assert source.info()["dataType"] == sent
    assert (piece_of(source, (0, 0, 0), (4, 4, 4), "1,1,1") == 1).all()


@pytest.mark.parametrize(
    ("start", "end", "key"),
    [
        ((0, 0, 0), (97, 1, 1), "1,1,1"),
        ((-1, 0, 0), (1, 1, 1), "1,1,1"),
        ((5, 5, 5), (5, 6, 6), "1,1,1"),
        ((0, 0, 0), (1, 1, 1), "0,1,1"),
        ((0, 0, 0), (1, 1, 1), "16,16,16"),
        ((0, 0), (1, 1), "1,1"),
    ],
)
def test_requests_that_do_not_fit_are_refused(cell, start, end, key):
    with pytest.raises(ValueError, match=r"request|reduced"):
        piece_of(served(layers_of(cell, "volumes/raw")[0].pyramid), start, end, key)


def test_a_damaged_chunk_is_said_and_spoils_no_other(tmp_path, caplog):
    write(tmp_path / "a.zarr/raw", np.full((32, 32, 64), 7, np.uint8))
    (tmp_path / "a.zarr/raw/0/0/0").write_bytes(b"torn")
    volume = served(layers_of(str(tmp_path / "a.zarr"), "raw")[0].pyramid)
    with pytest.raises(ValueError, match="cannot be read"):
        piece_of(volume, (0, 0, 0), (32, 32, 32), "1,1,1")
    assert "raw/0/0/0 (array elements" in caplog.text
    assert (piece_of(volume, (32, 0, 0), (64, 32, 32), "1,1,1") == 7).all()


def test_probabilities_of_bytes_and_floats_look_the_same(cell):
    layers = layers_of(cell, *(f"{PREDICTIONS}/predict_000{n}/prob_maps/class_1" for n in (1, 2)))
    ranges = [shown(layer).to_json()["shaderControls"]["probability"]["range"] for layer in layers]
    assert [[float(v) for v in r] for r in ranges] == [[0, 255], [0, 1]]
    assert all("vec4(color, p)" in shown(layer).shader for layer in layers)


def test_two_segmentations_of_the_same_classes_have_different_colours(cell):
    first, second = layers_of(cell, *(f"{PREDICTIONS}/predict_000{n}/segmentation" for n in (1, 2)))
    assert shown(first).segment_colors[1] != shown(second).segment_colors[1]


def test_shaders_by_the_published_words(cell):
    layers = layers_of(cell, "volumes/labels/mito", "volumes/raw", shader_words=["mask", "heatmap"])
    programs = {layer.name: shown(layer).shader for layer in layers}
    assert "nonzero" in programs["volumes/labels/mito"]
    assert "colormapJet" in programs["volumes/raw"]


def test_selected_labels(cell):
    (layer,) = layers_of(cell, "volumes/labels/mito", selected=(1, 2))
    assert sorted(shown(layer).to_json()["segments"]) == ["1", "2"]


def named(*pairs):
    return [Dataset(file, name, (f"{file}/{name}",)) for file, name in pairs]


def test_names_are_those_of_the_datasets():
    assert layer_names(named(("/d/a.zarr", "volumes/raw"), ("/d/a.zarr", "volumes/labels/er"))) == [
        "volumes/raw",
        "volumes/labels/er",
    ]


def test_the_same_dataset_of_two_files_gets_their_names():
    two = named(("/data/c1/a.zarr", "raw"), ("/data/c2/a.zarr", "raw"), ("/data/c2/a.zarr", "er"))
    assert layer_names(two) == ["c1/a.zarr/raw", "c2/a.zarr/raw", "er"]


def test_names_with_a_prefix_as_published():
    assert layer_names(named(("/d/c1/a.zarr", "raw")), add_prefix=True) == ["c1/a.zarr/raw"]


def test_the_same_dataset_twice():
    assert layer_names(named(("a.zarr", "raw"), ("a.zarr", "raw"))) == ["raw", "raw (2)"]


def test_terabytes_open_at_once(terabytes, voxels_read):  # noqa: F811
    dataset = Dataset("huge.zarr", "raw", ("huge.zarr/raw",))
    scene = Scene(make_layers([(dataset, terabytes)]))
    state = scene.state().to_json()
    assert voxels_read == [], "bytes need no sample"
    assert state["crossSectionScale"] == 1, "one voxel a pixel: few chunks a panel"
    source = source_of(scene.layers[0])
    assert source.info()["maxDownsampling"] == 64
    assert len(piece_of(source, (9000,) * 3, (9064,) * 3, "1,1,1")) == 64
    assert voxels_read == [64**3]


def test_labels_of_terabytes_are_sampled_only(tmp_path, voxels_read):  # noqa: F811
    from incasem.volumes import create_volume

    create_volume(
        tmp_path / "huge.zarr/labels", shape=(20_000,) * 3, dtype="uint32", voxel_size=(4, 4, 4),
        chunk_shape=(128,) * 3,
    )  # fmt: skip
    layers = layers_of(str(tmp_path / "huge.zarr"), "labels")
    Scene(layers).state()
    assert sum(voxels_read) <= 96**3
    with pytest.raises(DataError, match=r"too large .* scale_pyramid\.py"):
        source_of(layers[0])._meshes.mesh(1)


def test_a_small_volume_fills_the_view(cell):
    state = Scene(layers_of(cell, "volumes/raw")).state().to_json()
    # 96 × 72 × 64 voxels into panels of 900 × 450 pixels, nine tenths of them.
    assert state["crossSectionScale"] == pytest.approx(72 / 450 / 0.9)
