"""N5 as OpenOrganelle and COSEM publish it: places, levels, types, and the parts of organelles."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from incasem.blockwise import run_in_process
from incasem.cli import main
from incasem.errors import ConfigError, DataError
from incasem.formatting import cosem, n5
from incasem.formatting.cosem import CosemOptions, parse_organelle
from incasem.formatting.n5 import N5Options, Source
from incasem.volumes import create_volume, open_volume

RNG = np.random.default_rng(0)


def cosem_array(path, array, scale=(5.24, 4, 4), translate=(0, 0, 0), chunks=(6, 7, 8), **others):
    """An N5 array with the attributes that COSEM writes: no `resolution`, no `offset`."""
    volume = create_volume(
        path, shape=array.shape, dtype=array.dtype, voxel_size=(1, 1, 1), chunk_shape=chunks
    )
    volume.write_voxels(volume.roi_voxels, array)
    file = path / "attributes.json"
    stored = {
        k: v
        for k, v in json.loads(file.read_text()).items()
        if k not in ("resolution", "offset", "pixelResolution")
    }
    stored["transform"] = {
        "axes": ["z", "y", "x"],
        "scale": scale,
        "translate": translate,
        "units": ["nm"] * 3,
    }
    stored["pixelResolution"] = {"dimensions": list(scale)[::-1], "unit": "nm"}
    file.write_text(json.dumps(stored | others))
    return array


@pytest.fixture
def cell(tmp_path):
    file = tmp_path / "jrc_hela-2.n5"
    em = RNG.integers(0, 2**16, (13, 14, 15), dtype=np.uint16)
    cosem_array(file / "em/fibsem-uint16/s0", em, translate=(52.4, 0, 8))
    cosem_array(
        file / "em/fibsem-uint16/s1", em[::2, ::2, ::2], scale=(10.48, 8, 8), translate=(55.02, 2, 10)
    )
    cosem_array(file / "labels/mito_seg/s0", RNG.integers(0, 900, (9, 9, 9), dtype=np.uint64))
    return file, em


def converted(tmp_path, source, name, block=None, **kwargs):
    job, output = n5.prepare_array(
        N5Options(source, tmp_path / "cell.zarr", name, **{"chunk_size": 8} | kwargs), block
    )
    run_in_process(job)
    return output, output.read_voxels(output.roi_voxels)


def test_the_published_command(cell, tmp_path, capsys):
    file, em = cell
    words = ["-n", str(file), "-z", str(tmp_path / "cell.zarr"), "--workers", "1", "--raw_same_bit"]
    assert main(["n5-to-zarr", *words, "-i", "em/fibsem-uint16", "labels/mito_seg/s0"]) == 0
    raw = open_volume(tmp_path / "cell.zarr/volumes/raw")
    np.testing.assert_array_equal(raw.read_voxels(raw.roi_voxels), em)
    assert (raw.voxel_size, raw.offset_nm, raw.chunk_shape) == ((5.24, 4, 4), (52.4, 0, 8), (128, 128, 128))
    assert json.loads((tmp_path / "cell.zarr/volumes/raw/.zattrs").read_text())["resolution"] == [5.24, 4, 4]
    assert open_volume(tmp_path / "cell.zarr/volumes/labels/mito_seg").dtype == np.uint32
    assert main(["n5-to-zarr", *words, "-i", "em/fibsem-uint16", "labels/mito_seg/s0"]) == 0
    assert capsys.readouterr().out.count("already complete") == 2


def test_grey_values_become_bytes_as_asked(cell, tmp_path):
    file, em = cell
    source = Source(file, "em/fibsem-uint16/s0")
    np.testing.assert_array_equal(converted(tmp_path, source, "whole")[1], np.rint(em / 257.0))
    low_high = converted(tmp_path, source, "part", grey_range=(18000, 32000), invert=True)[1]
    wanted = 255 - np.rint((np.clip(em, 18000.0, 32000.0) - 18000) * (255 / 14000))
    np.testing.assert_array_equal(low_high, wanted)


def test_another_level_has_its_own_place(cell, tmp_path):
    file, em = cell
    output, array = converted(tmp_path, Source(file, "em/fibsem-uint16/s1"), "coarse", keep_bits=True)
    assert output.voxel_size == (10.48, 8, 8)
    assert output.offset_nm == (52.4, 0, 8)  # the translation of a level is its first voxel's centre
    np.testing.assert_array_equal(array, em[::2, ::2, ::2])


@settings(max_examples=10)
@given(data=st.data())
def test_any_blocks_give_the_same(tmp_path_factory, data):
    tmp_path = tmp_path_factory.mktemp("n5")
    shape = data.draw(st.tuples(*[st.integers(1, 20)] * 3))
    array = cosem_array(
        tmp_path / "a.n5/em/s0", RNG.integers(0, 255, shape, dtype=np.uint8),
        translate=(5.24 * data.draw(st.integers(-4, 4)), 4, 0),
    )  # fmt: skip
    block = tuple(8 * data.draw(st.integers(1, 3)) for _ in range(3))
    np.testing.assert_array_equal(
        converted(tmp_path, Source(tmp_path / "a.n5", "em"), "raw", block)[1], array
    )


def test_ids_beyond_32_bits_stay(tmp_path):
    array = np.full((4, 4, 4), 2**40, np.uint64)
    cosem_array(tmp_path / "a.n5/labels/x/s0", array)
    output, kept = converted(tmp_path, Source(tmp_path / "a.n5", "labels/x"), "volumes/labels/x")
    assert output.dtype == np.uint64
    np.testing.assert_array_equal(kept, array)


def test_places_between_voxels_and_unstated_ones(tmp_path):
    cosem_array(tmp_path / "a.n5/em/s0", np.zeros((4, 4, 4), np.uint8), translate=(1.8, 0, 0))
    with pytest.raises(DataError, match="Or give the right one with --offset"):
        n5.open_source(Source(tmp_path / "a.n5", "em"))
    assert n5.open_source(Source(tmp_path / "a.n5", "em", offset=(0, 0, 0))).offset_nm == (0, 0, 0)
    cosem_array(tmp_path / "b.n5/em/s0", np.zeros((4, 4, 4), np.uint8))
    file = tmp_path / "b.n5/em/s0/attributes.json"
    stored = json.loads(file.read_text())
    file.write_text(
        json.dumps({k: v for k, v in stored.items() if k not in ("transform", "pixelResolution")})
    )
    with pytest.raises(ConfigError, match="Give --resolution"):
        n5.open_source(Source(tmp_path / "b.n5", "em"))
    assert n5.open_source(Source(tmp_path / "b.n5", "em", resolution=(4, 4, 4))).voxel_size == (4, 4, 4)


@pytest.mark.parametrize(
    ("arrays", "more", "message"),
    [
        (["em/nothing"], [], "em/nothing"),
        (["em/fibsem-uint16", "em/fibsem-uint16/s1"], [], "different names"),
        (["em/fibsem-uint16"], ["--out_arrays", "a", "b"], "1 names"),
        (["em/fibsem-uint16"], ["--chunk_size", "0"], "chunk_shape"),
        (["em/fibsem-uint16"], ["--range", "5", "5"], "two rising grey values"),
        (["em/fibsem-uint16"], ["--range", "5", "9", "--raw_same_bit"], "none for values that are kept"),
        (["labels/mito_seg"], ["--invert"], "none for labels"),
    ],
)
def test_bad_input(cell, tmp_path, capsys, arrays, more, message):
    words = ["-n", str(cell[0]), "-z", str(tmp_path / "cell.zarr"), "-i", *arrays, *more]
    assert main(["n5-to-zarr", *words]) != 0
    assert message in capsys.readouterr().err
    assert not (tmp_path / "cell.zarr").exists()


def labels(options, block=None):
    result = {}
    for dataset, recipe in cosem.plan_labels(options).items():
        job, output = cosem.prepare_labels(options, dataset, recipe, block)
        run_in_process(job)
        result[dataset] = output.read_voxels(output.roi_voxels)
    return result


def asked(source, tmp_path, *organelles, **kwargs):
    named = dict(parse_organelle(text) for text in organelles)
    return CosemOptions(source, tmp_path / "cell.zarr", named, **{"chunk_size": 8} | kwargs)


def test_class_ids_become_organelles(tmp_path):
    ids = cosem_array(tmp_path / "crop.n5/labels/all/s0", RNG.integers(0, 38, (9, 17, 10), dtype=np.uint64))
    source = Source(tmp_path / "crop.n5", "labels/all")
    made = labels(
        asked(source, tmp_path, "mito", "er", "np", "x=1,37", mask_dataset="volumes/annotated"), (8, 8, 16)
    )
    np.testing.assert_array_equal(made["volumes/labels/mito"], np.isin(ids, (3, 4, 5)))
    np.testing.assert_array_equal(made["volumes/labels/er"], (ids >= 16) & (ids <= 21))
    np.testing.assert_array_equal(made["volumes/labels/np"], np.isin(ids, (22, 23)))
    np.testing.assert_array_equal(made["volumes/labels/x"], np.isin(ids, (1, 37)))
    np.testing.assert_array_equal(made["volumes/annotated"], np.where(ids, 255, 0))
    assert made["volumes/labels/mito"].dtype == np.uint32


def test_arrays_of_parts_become_organelles(tmp_path):
    parts = {
        name: cosem_array(
            tmp_path / f"crop.n5/labels/crop13/{name}/s0",
            RNG.choice([0, 1, 255], (9, 8, 10)).astype(np.uint8),
        )
        for name in ("er_mem", "er_lum", "ne_mem", "mito_mem")
    }
    source = Source(tmp_path / "crop.n5", "labels/crop13")
    made = labels(
        asked(source, tmp_path, "er", "lumen=er_lum", unknown=(255,), mask_dataset="volumes/annotated")
    )
    inside = {name: array == 1 for name, array in parts.items()}
    np.testing.assert_array_equal(
        made["volumes/labels/er"], inside["er_mem"] | inside["er_lum"] | inside["ne_mem"]
    )
    np.testing.assert_array_equal(made["volumes/labels/lumen"], inside["er_lum"])
    known = np.logical_and.reduce([parts[name] != 255 for name in ("er_mem", "er_lum", "ne_mem")])
    np.testing.assert_array_equal(made["volumes/annotated"], np.where(known, 255, 0))


def test_cosem_labels_by_the_command(tmp_path, capsys):
    ids = cosem_array(tmp_path / "crop.n5/labels/all/s0", RNG.integers(0, 38, (9, 8, 10), dtype=np.uint64))
    words = [
        "-n",
        str(tmp_path / "crop.n5"),
        "-z",
        str(tmp_path / "cell.zarr"),
        "-i",
        "labels/all",
        "--workers",
        "1",
    ]
    assert main(["cosem-labels", *words, "-o", "golgi"]) == 0
    golgi = open_volume(tmp_path / "cell.zarr/volumes/labels/golgi")
    np.testing.assert_array_equal(golgi.read_voxels(golgi.roi_voxels), np.isin(ids, (6, 7)))
    for organelles, message in (
        (["mitto"], "Did you mean 'mito'"),
        (["er=er_mem"], "class ids"),
        (["er=1,a"], "NAME=ID,ID"),
    ):
        assert main(["cosem-labels", *words, "-o", *organelles]) == ConfigError.exit_code
        assert message in capsys.readouterr().err


def test_parts_that_are_not_there_or_elsewhere(tmp_path):
    zeros = np.zeros((4, 4, 4), np.uint8)
    for name, translate in (("er_mem", (0, 0, 0)), ("er_lum", (52.4, 0, 0)), ("ld_mem", (0, 0, 0))):
        cosem_array(tmp_path / f"crop.n5/labels/gt/{name}/s0", zeros, translate=translate)
    source = Source(tmp_path / "crop.n5", "labels/gt")
    with pytest.raises(DataError, match=r"the parts of mito .* There are: er_lum, er_mem, ld_mem"):
        cosem.plan_labels(asked(source, tmp_path, "mito"))
    with pytest.raises(DataError, match="arrays of one annotated crop"):
        cosem.plan_labels(asked(source, tmp_path, "er"))
    with pytest.raises(DataError, match="labels/nix"):
        cosem.plan_labels(asked(Source(tmp_path / "crop.n5", "labels/nix"), tmp_path, "er"))
    assert not (tmp_path / "cell.zarr").exists()
