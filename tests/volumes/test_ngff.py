"""OME-NGFF metadata: valid for others, understood from others."""

import json
import shutil

import numpy as np
import pytest

from incasem.errors import DataError
from incasem.volumes import create_volume, open_volume


def multiscales(group):
    if (group / "zarr.json").exists():
        return json.loads((group / "zarr.json").read_text())["attributes"]["ome"]["multiscales"]
    return json.loads((group / ".zattrs").read_text())["multiscales"]


@pytest.mark.parametrize("format_name", ["zarr2", "zarr3", "sharded"])
def test_the_public_validator_accepts_every_group(tmp_path, make_volume, reader, grey_ZYX, format_name):
    make_volume(tmp_path, format_name, grey_ZYX, offset_nm=(10, 0, 5))
    probabilities = np.zeros((2, 9, 10, 11), dtype=np.float32)
    make_volume(tmp_path, format_name, probabilities, dataset="volumes/affinities", voxel_size=(40, 5.9, 5.9))
    make_volume(tmp_path, format_name, grey_ZYX, dataset="volumes/labels/mito")
    make_volume(tmp_path, format_name, grey_ZYX, dataset="volumes/labels/er")
    for group in ("volumes", "volumes/labels"):
        assert "Valid OME-Zarr" in reader("ome-zarr-models", "validate", tmp_path / "cell.zarr" / group)
    assert [image["name"] for image in multiscales(tmp_path / "cell.zarr/volumes")] == ["raw", "affinities"]


def test_scale_and_translation_are_the_place(tmp_path):
    create_volume(
        tmp_path / "cell.zarr/volumes/raw", shape=(4, 4, 4), dtype="uint8", voxel_size=(40, 5.9, 5.9),
        offset_nm=(80, 0, 59),
    )  # fmt: skip
    (image,) = multiscales(tmp_path / "cell.zarr/volumes")
    assert image["version"] == "0.4"
    assert [axis["unit"] for axis in image["axes"]] == ["nanometer"] * 3
    assert image["datasets"] == [
        {
            "path": "raw",
            "coordinateTransformations": [
                {"type": "scale", "scale": [40, 5.9, 5.9]},
                {"type": "translation", "translation": [80, 0, 59]},
            ],
        }
    ]


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_levels_of_a_pyramid_are_one_image(tmp_path, reader, zarr_format):
    place = {"dtype": "uint8", "offset_nm": (20, 0, 40), "zarr_format": zarr_format, "chunk_shape": (8, 8, 8)}
    for level in (1, 0, 2):
        size = 5 * 2**level
        create_volume(
            tmp_path / f"cell.zarr/raw/s{level}", shape=(16 >> level,) * 3, voxel_size=(size,) * 3, **place
        )
    (image,) = multiscales(tmp_path / "cell.zarr/raw")
    assert image["name"] == "raw"
    assert [d["path"] for d in image["datasets"]] == ["s0", "s1", "s2"]
    translations = [d["coordinateTransformations"][1]["translation"] for d in image["datasets"]]
    assert translations == [[20, 0, 40], [22.5, 2.5, 42.5], [27.5, 7.5, 47.5]]
    assert "Valid OME-Zarr" in reader("ome-zarr-models", "validate", tmp_path / "cell.zarr/raw")


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("centred", [True, False])
def test_pyramids_of_others_are_read_with_centred_or_equal_translations(
    tmp_path, zarr_array, zarr_format, centred
):
    group = tmp_path / "em.zarr"
    datasets = []
    for level in range(3):
        size = 0.008 * 2**level
        shift = (2**level - 1) * 0.004 if centred else 0
        create_volume(
            group / f"s{level}", shape=(4, 4, 4), dtype="uint8", voxel_size=(1, 1, 1), zarr_format=zarr_format
        )
        transforms = [
            {"type": "scale", "scale": [1, size, size, size]},
            {"type": "translation", "translation": [0, shift + 0.064, shift, shift]},
        ]
        datasets.append({"path": f"s{level}", "coordinateTransformations": transforms})
        name, key = (".zattrs", None) if zarr_format == 2 else ("zarr.json", "attributes")
        stored = json.loads((group / f"s{level}" / name).read_text())
        stored = {} if key is None else stored | {key: {}}
        (group / f"s{level}" / name).write_text(json.dumps(stored))
    axes = [{"name": "c", "type": "channel"}]
    axes += [{"name": a, "type": "space", "unit": "micrometer"} for a in "zyx"]
    image = {"axes": axes[1:], "datasets": [_without_channel(d) for d in datasets], "version": "0.4"}
    _store(group, [image], zarr_format)
    for level in range(3):
        volume = open_volume(group / f"s{level}")
        assert volume.voxel_size == (8 * 2**level,) * 3
        assert volume.offset_nm == (64, 0, 0)


def _without_channel(dataset):
    transforms = [
        {k: v[1:] if isinstance(v, list) else v for k, v in t.items()}
        for t in dataset["coordinateTransformations"]
    ]
    return dataset | {"coordinateTransformations": transforms}


def _store(group, images, zarr_format):
    if zarr_format == 2:
        (group / ".zattrs").write_text(json.dumps({"multiscales": images}))
    else:
        node = json.loads((group / "zarr.json").read_text())
        node["attributes"] = {"ome": {"version": "0.5", "multiscales": images}}
        (group / "zarr.json").write_text(json.dumps(node))


def _with_axes(path, zarr_array, data, axes):
    """An array without attributes, in a group that states its axes and a scale of the whole image."""
    zarr_array(path / "0", data, chunks=(4,) * data.ndim, dimension_separator="/")
    ndim = data.ndim
    image = {
        "axes": axes,
        "datasets": [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1.0] * ndim}]}],
        "coordinateTransformations": [{"type": "scale", "scale": [1.0] * (ndim - 3) + [0.04, 0.005, 0.005]}],
        "version": "0.4",
    }
    (path / ".zattrs").write_text(json.dumps({"multiscales": [image]}))
    return path / "0"


def _axes(*names):
    return [{"name": n, "type": "space", "unit": "micrometer"} if n in "zyx" else {"name": n} for n in names]


def test_one_time_point_is_left_out(tmp_path, zarr_array, rng):
    data = rng.integers(0, 255, (1, 2, 5, 6, 7), dtype=np.uint8)
    volume = open_volume(_with_axes(tmp_path / "a.zarr", zarr_array, data, _axes("t", "c", "z", "y", "x")))
    assert volume.axes == ("c", "z", "y", "x")
    assert volume.shape == (2, 5, 6, 7)
    assert volume.voxel_size == (40, 5, 5)
    assert volume.missing_chunks() == []
    np.testing.assert_array_equal(volume.read_voxels(volume.roi_voxels), data[0])


def test_several_time_points_and_other_axes_are_refused(tmp_path, zarr_array):
    data = np.zeros((2, 4, 4, 4), dtype=np.uint8)
    with pytest.raises(DataError, match="2 time points"):
        open_volume(_with_axes(tmp_path / "a.zarr", zarr_array, data, _axes("t", "z", "y", "x")))
    with pytest.raises(DataError, match=r"axes .* are x, y, z"):
        open_volume(_with_axes(tmp_path / "b.zarr", zarr_array, data[0], _axes("x", "y", "z")))
    parsecs = [{"name": n, "type": "space", "unit": "parsec"} for n in "zyx"]
    with pytest.raises(DataError, match="'parsec'"):
        open_volume(_with_axes(tmp_path / "c.zarr", zarr_array, data[0], parsecs))


def test_entries_of_deleted_arrays_go_and_others_stay(tmp_path, make_volume, grey_ZYX):
    group = tmp_path / "cell.zarr/volumes"
    for name in ("raw", "mask"):
        make_volume(tmp_path, "zarr2", grey_ZYX, dataset=f"volumes/{name}")
    stored = json.loads((group / ".zattrs").read_text())
    stored["omero"] = {"name": "mine"}
    stored["multiscales"][0]["metadata"] = {"kept": True}
    (group / ".zattrs").write_text(json.dumps(stored))
    shutil.rmtree(group / "mask")
    make_volume(tmp_path, "zarr2", grey_ZYX, dataset="volumes/raw_equalized_0.02")
    assert [image["name"] for image in multiscales(group)] == ["raw", "raw_equalized_0.02"]
    assert multiscales(group)[0]["metadata"] == {"kept": True}
    assert json.loads((group / ".zattrs").read_text())["omero"] == {"name": "mine"}


def test_groups_of_labels_say_so(tmp_path, make_volume, reader, grey_ZYX):
    for zarr, arguments in (("zarr2", {}), ("zarr3", {})):
        place = tmp_path / zarr
        make_volume(place, zarr, grey_ZYX, dataset="volumes/raw", **arguments)
        make_volume(place, zarr, grey_ZYX, dataset="volumes/labels/er", **arguments)
        make_volume(place, zarr, grey_ZYX, dataset="volumes/predictions/t/p/segmentation", **arguments)
        for group, is_label in (
            ("volumes", False),
            ("volumes/labels", True),
            ("volumes/predictions/t/p", True),
        ):
            path = place / "cell.zarr" / group
            assert (
                "image-label" in (path / (".zattrs" if zarr == "zarr2" else "zarr.json")).read_text()
            ) == is_label
            assert "Valid OME-Zarr" in reader("ome-zarr-models", "validate", path)


def test_levels_on_their_own_grid_are_not_moved_by_reading(tmp_path):
    """s0 begins inside a voxel of s1: their translations are neither equal nor those of equal corners."""
    group = tmp_path / "cell.zarr/raw"
    place = {"shape": (4, 4, 4), "dtype": "uint8", "chunk_shape": (4, 4, 4)}
    for level, (size, offset) in enumerate([(5, 15), (10, 10), (30, 0)]):
        create_volume(group / f"s{level}", voxel_size=(size,) * 3, offset_nm=(offset,) * 3, **place)
    (image,) = multiscales(group)
    shown = [d["coordinateTransformations"][1]["translation"][0] for d in image["datasets"]]
    assert shown == [15, 12.5, 12.5]
    for level, offset in enumerate((15, 10, 0)):
        (group / f"s{level}/.zattrs").unlink()
        assert open_volume(group / f"s{level}").offset_nm == (offset,) * 3
