"""`incasem baseline-affinities`: exact in blocks, edges as defined, resumed, and of use on neurites."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from incasem.blockwise import run_in_process
from incasem.errors import ConfigError, DataError
from incasem.formatting.grey_affinities import (
    OFFSETS,
    GreyAffinityOptions,
    _largest_eigenvalues,
    edges_of,
    grey_affinities,
    prepare_grey_affinities,
)
from incasem.phantom import NEURON_IDS, make_neurites
from incasem.volumes import create_volume, open_volume

SHAPE = (20, 24, 28)
VOXEL_NM = (12.0, 10.0, 10.0)
PHANTOM = make_neurites(SHAPE, 4, VOXEL_NM)


def store(path, array, offset=(3, 0, 2)):
    volume = create_volume(
        path, shape=array.shape, dtype=array.dtype, voxel_size=VOXEL_NM, chunk_shape=(8, 8, 8),
        offset_nm=tuple(o * v for o, v in zip(offset, VOXEL_NM, strict=True)),
    )  # fmt: skip
    volume.write_voxels(volume.roi_voxels, array)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    file = tmp_path_factory.mktemp("grey") / "cell.zarr"
    store(file / "volumes/raw", PHANTOM.raw_ZYX)
    return file


def options(file, out, **fields):
    asked = {
        "smoothing_nm": 8.0,
        "thickness_nm": 12.0,
        "surroundings_nm": 30.0,
        "chunk_shape": (8, 8, 8),
    } | fields
    return GreyAffinityOptions(file, "volumes/raw", "affinities", out_file=out, **asked)


def made(asked, block_shape=None):
    job, output = prepare_grey_affinities(asked, block_shape)
    run_in_process(job)
    return output.read_voxels(output.roi_voxels)


@settings(max_examples=8, deadline=None)
@given(
    blocks=st.tuples(*[st.integers(1, 4)] * 3),
    begin=st.tuples(*[st.integers(0, 6)] * 3),
    smoothing=st.sampled_from([4.0, 11.0]),
)
def test_blocks_and_regions_do_not_matter(file, tmp_path_factory, blocks, begin, smoothing):
    whole = made(options(file, tmp_path_factory.mktemp("a") / "x.zarr", smoothing_nm=smoothing))
    offset = tuple(b + o for b, o in zip(begin, (3, 0, 2), strict=True))
    shape = tuple(n - b for n, b in zip(SHAPE, begin, strict=True))
    part = made(
        options(
            file, tmp_path_factory.mktemp("b") / "x.zarr", smoothing_nm=smoothing, offset=offset, shape=shape
        ),
        [8 * n for n in blocks],
    )
    expected = whole[(slice(None), *(slice(b, None) for b in begin))].copy()
    for axis in range(3):
        np.moveaxis(expected[axis], axis, 0)[0] = 0
    np.testing.assert_array_equal(part, expected)


def test_per_section_each_is_as_if_it_were_alone(file, tmp_path):
    whole = made(options(file, tmp_path / "all.zarr", per_section=True), [8, 16, 8])
    assert whole.shape == (2, *SHAPE)
    assert open_volume(tmp_path / "all.zarr/affinities").attributes["offsets"] == [[0, -1, 0], [0, 0, -1]]
    assert not np.array_equal(whole, made(options(file, tmp_path / "solid.zarr"))[1:])
    for z in (0, 7, 19):
        alone = PHANTOM.raw_ZYX[z : z + 1].repeat(9, axis=0)  # the same section above and below
        store(tmp_path / f"{z}.zarr/volumes/raw", alone, (0, 0, 0))
        solid = made(options(tmp_path / f"{z}.zarr", tmp_path / f"o{z}.zarr"))[1:, 4]
        np.testing.assert_allclose(solid.astype(int), whole[:, z], atol=1)  # sums are rounded otherwise


def test_what_is_written(file, tmp_path):
    made(options(file, tmp_path / "x.zarr"))
    volume = open_volume(tmp_path / "x.zarr/affinities")
    assert (volume.axes, volume.dtype, volume.shape) == (("c", "z", "y", "x"), np.uint8, (3, *SHAPE))
    assert volume.attributes["offsets"] == [list(offset) for offset in OFFSETS]
    assert volume.roi == open_volume(file / "volumes/raw").roi


def test_edges_across_neurites_are_weak(file, tmp_path):
    affinities = made(options(file, tmp_path / "x.zarr", surroundings_nm=100.0)).astype(float)
    ids = PHANTOM.labels[NEURON_IDS]
    for axis in range(3):
        values = np.moveaxis(affinities[axis], axis, 0)[1:]
        along = np.moveaxis(ids, axis, 0)
        across = along[1:] != along[:-1]
        assert values[across].mean() < values[~across].mean() - 50


def test_a_membrane_is_where_both_its_edges_are():
    boundary = np.zeros((2, 2, 6))
    boundary[:, :, 3] = 0.6
    edges = edges_of(boundary)
    assert edges.shape == (3, 1, 1, 5)
    assert edges[2, 0, 0].tolist() == [255, 255, 102, 102, 255]
    assert edges[0, 0, 0].tolist() == [255, 255, 102, 255, 255]


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_other_dtypes_give_the_same(file, tmp_path, dtype):
    factor = 257 if dtype == np.uint16 else 1 / 255
    store(tmp_path / "y.zarr/volumes/raw", (PHANTOM.raw_ZYX.astype(np.float64) * factor).astype(dtype))
    ours = made(options(tmp_path / "y.zarr", tmp_path / "x.zarr")).astype(int)
    bytes_ = made(options(file, tmp_path / "z.zarr")).astype(int)
    assert np.abs(ours - bytes_).max() <= 1


@given(seed=st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_eigenvalues(seed):
    rng = np.random.default_rng(seed)
    matrices = rng.normal(size=(40, 3, 3)) * 10.0 ** rng.integers(-4, 4, (40, 1, 1))
    matrices += matrices.swapaxes(1, 2)
    matrices[0] = 0
    matrices[1] = np.eye(3) * 3
    matrices[2] = np.diag([1, 2, 2])
    packed = np.stack([matrices[:, i, j] for i, j in ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))])
    found = np.empty(40)
    _largest_eigenvalues(packed, found)
    expected = np.linalg.eigvalsh(matrices)
    np.testing.assert_allclose(found, expected[:, 2], atol=1e-9 * np.abs(expected).max(), rtol=1e-6)


def test_flat_data_have_no_membranes(tmp_path):
    store(tmp_path / "y.zarr/volumes/raw", np.full(SHAPE, 77, np.uint8))
    affinities = made(options(tmp_path / "y.zarr", tmp_path / "x.zarr"))
    assert set(np.unique(affinities)) <= {0, 255}


def test_bad_settings_write_nothing(file, tmp_path):
    for fields, error, message in (
        ({"smoothing_nm": 0}, ConfigError, "smoothing_nm"),
        ({"surroundings_nm": 5.0}, ConfigError, "surroundings_nm"),
        ({"contrast": float("nan")}, ConfigError, "contrast"),
        ({"offset": (0, 0, 0)}, ConfigError, "belong together"),
        ({"offset": (0, 0, 0), "shape": (8, 8, 8)}, DataError, "a part of"),
    ):
        with pytest.raises(error, match=message):
            grey_affinities(options(file, tmp_path / "x.zarr", **fields), num_workers=1, progress=False)
    store(tmp_path / "y.zarr/volumes/raw", np.zeros(SHAPE, np.int64))
    with pytest.raises(DataError, match="dtype"):
        grey_affinities(options(tmp_path / "y.zarr", tmp_path / "x.zarr"), num_workers=1, progress=False)
    assert not (tmp_path / "x.zarr").exists()


def test_the_command(file, tmp_path):
    words = ["baseline-affinities", "-f", str(file), "--out_filename", str(tmp_path / "x.zarr"), "-n", "1"]
    for _ in range(2):  # the second finds it complete
        done = subprocess.run(
            [sys.executable, "-m", "incasem", *words], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    volume = open_volume(tmp_path / "x.zarr/volumes/baseline/affinities")
    assert volume.read_voxels(volume.roi_voxels).std() > 20
