"""Reading and writing regions: equal to numpy for every format, chunking and region; refusals."""

import pickle
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from incasem.errors import DataError
from incasem.geometry import Roi
from incasem.volumes import create_volume, open_volume

small = st.integers(1, 9)
shapes = st.tuples(small, small, small)


@st.composite
def regions(draw, shape, beyond=0):
    """A ROI inside an array of ``shape``, or reaching up to ``beyond`` voxels outside."""
    begin = [draw(st.integers(-beyond, n - 1 + beyond)) for n in shape]
    end = [
        draw(st.integers(b + 1, n + beyond + 1 if beyond else n)) for b, n in zip(begin, shape, strict=True)
    ]
    return Roi(begin, [e - b for b, e in zip(begin, end, strict=True)])


def blocks_of(volume, blocks_per_axis):
    """ROIs of whole write units that together cover the volume."""
    begin, end = volume.roi_voxels.begin, volume.roi_voxels.end
    steps = [w * n for w, n in zip(volume.write_shape, blocks_per_axis, strict=True)]
    for position in np.ndindex(
        *(-(-s // step) for s, step in zip(volume.roi_voxels.shape, steps, strict=True))
    ):
        corner = [b + p * step for b, p, step in zip(begin, position, steps, strict=True)]
        yield Roi(corner, [min(step, e - c) for c, step, e in zip(corner, steps, end, strict=True)])


@settings(max_examples=20, deadline=None)
@given(
    data=st.data(),
    shape=shapes,
    chunk_shape=st.tuples(*[st.integers(2, 5)] * 3),
    blocks_per_axis=st.tuples(*[st.integers(1, 2)] * 3),
    offset=st.tuples(*[st.integers(-5, 5)] * 3),
    dtype=st.sampled_from(["uint8", "uint16", "uint32", "float32"]),
    channels=st.sampled_from([None, 1, 3]),
)
def test_written_in_blocks_and_read_in_any_region_equals_numpy(
    format_name, make_volume, data, shape, chunk_shape, blocks_per_axis, offset, dtype, channels
):
    full_shape = shape if channels is None else (channels, *shape)
    expected = np.random.default_rng(0).integers(0, 200, full_shape).astype(dtype)
    with tempfile.TemporaryDirectory() as directory:
        volume = make_volume(
            directory, format_name, np.zeros_like(expected), chunk_shape, offset_nm=[5 * o for o in offset]
        )
        for roi in blocks_of(volume, blocks_per_axis):
            part = tuple(slice(b - o, e - o) for b, e, o in zip(roi.begin, roi.end, offset, strict=True))
            volume.write_voxels(roi, expected[(..., *part)])
        again = open_volume(volume.path)
        assert again.shape == full_shape
        assert again.dtype == np.dtype(dtype)
        assert again.roi_voxels == Roi(offset, shape)
        region = data.draw(regions(shape))
        part = tuple(slice(b, e) for b, e in zip(region.begin, region.end, strict=True))
        result = again.read_voxels(region + again.roi_voxels.begin)
        np.testing.assert_array_equal(result, expected[(..., *part)])
        assert result.dtype == np.dtype(dtype)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), shape=shapes)
def test_reflection_equals_numpy_pad_for_any_region(data, shape):
    array = np.arange(np.prod(shape), dtype=np.uint16).reshape(shape)
    pad = 25
    expected = np.pad(array, pad, mode="reflect")
    region = data.draw(regions(shape, beyond=pad - 1))
    with tempfile.TemporaryDirectory() as directory:
        volume = create_volume(
            f"{directory}/a.zarr/raw", shape=shape, dtype="uint16", voxel_size=(4, 4, 4), offset_nm=(8, 0, -4)
        )
        volume.write_voxels(volume.roi_voxels, array)
        result = volume.read_voxels(region + volume.roi_voxels.begin, beyond="reflect")
    part = tuple(slice(b + pad, e + pad) for b, e in zip(region.begin, region.end, strict=True))
    np.testing.assert_array_equal(result, expected[part])


def test_constant_beyond_the_border(tmp_path, make_volume, grey_ZYX):
    volume = make_volume(tmp_path, "zarr2", grey_ZYX)
    result = volume.read_voxels(Roi((-2, 8, 0), (4, 5, 11)), beyond="constant", fill=7)
    padded = np.pad(grey_ZYX, ((2, 0), (0, 3), (0, 0)), constant_values=7)
    np.testing.assert_array_equal(result, padded[:4, 8:13])
    outside = volume.read_voxels(Roi((100, 0, 0), (2, 2, 2)), beyond="constant", fill=3)
    assert (outside == 3).all()
    assert outside.shape == (2, 2, 2)


def test_channels_are_whole_beyond_the_border(tmp_path, make_volume, rng):
    data = rng.random((2, 5, 5, 5), dtype=np.float32)
    volume = make_volume(tmp_path, "zarr2", data)
    assert volume.axes == ("c", "z", "y", "x")
    assert volume.chunk_shape == (1, 4, 4, 4)
    result = volume.read_voxels(Roi((-1, 0, 0), (3, 5, 5)), beyond="reflect")
    np.testing.assert_array_equal(
        result, np.pad(data, ((0, 0), (1, 0), (0, 0), (0, 0)), mode="reflect")[:, :3]
    )


@pytest.mark.parametrize("beyond", ["error", "reflect", "constant"])
def test_some_channels_are_read_alone(tmp_path, make_volume, rng, beyond, format_name):
    array_CZYX = rng.integers(0, 255, (4, 5, 6, 7)).astype(np.uint8)
    volume = make_volume(tmp_path, format_name, array_CZYX)
    whole = volume.read_voxels(volume.roi_voxels, beyond=beyond)
    some = volume.read_voxels(volume.roi_voxels, beyond=beyond, channels=range(1, 3))
    np.testing.assert_array_equal(some, whole[1:3])


def test_fractional_voxel_sizes_in_world_coordinates(tmp_path, make_volume, format_name):
    data = np.arange(3 * 20 * 20, dtype=np.uint16).reshape(3, 20, 20)
    offset_nm = (720, 128 * 5.9, 0)
    volume = make_volume(
        tmp_path, format_name, data, (3, 10, 10), voxel_size=(40, 5.9, 5.9), offset_nm=offset_nm
    )
    again = open_volume(volume.path)
    assert again.voxel_size == (40, 5.9, 5.9)
    assert again.offset_nm == pytest.approx(offset_nm)
    assert tuple(again.roi_voxels.begin) == (18, 128, 0)
    np.testing.assert_array_equal(again.read(again.roi), data)
    part = Roi((18, 130, 7), (2, 3, 4))
    world = Roi((720, 767, 41), (80, 18, 24))
    np.testing.assert_array_equal(again.read(world), again.read_voxels(part))


def test_a_pickled_volume_reads_in_a_spawned_process(tmp_path, make_volume, grey_ZYX):
    volume = make_volume(tmp_path, "zarr2", grey_ZYX).with_place(voxel_size=(4, 4, 4))
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        result = pool.submit(volume.read_voxels, volume.roi_voxels).result(timeout=60)
    np.testing.assert_array_equal(result, grey_ZYX)


def test_pickling_keeps_place_and_mode(tmp_path, make_volume, grey_ZYX, format_name):
    volume = make_volume(tmp_path, format_name, grey_ZYX).with_place(offset_nm=(10, 0, 0))
    again = pickle.loads(pickle.dumps(volume))
    assert again.writable
    assert again.offset_nm == (10, 0, 0)
    assert again.voxel_size == (5, 5, 5)
    assert again.fingerprint() == volume.fingerprint()
    np.testing.assert_array_equal(again.read_voxels(again.roi_voxels), grey_ZYX)


@pytest.mark.parametrize(
    "roi", [Roi((0, 0, 0), (3, 10, 11)), Roi((1, 0, 0), (8, 10, 11)), Roi((4, 2, 0), (4, 8, 11))]
)
def test_parts_of_chunks_are_refused(tmp_path, make_volume, grey_ZYX, roi, format_name):
    volume = make_volume(tmp_path, format_name, grey_ZYX)
    with pytest.raises(DataError, match="covers parts of chunks"):
        volume.write_voxels(roi, np.ones(roi.shape, dtype=np.uint8))
    np.testing.assert_array_equal(volume.read_voxels(volume.roi_voxels), grey_ZYX)


def test_whole_shards_are_wanted_not_whole_chunks(tmp_path, make_volume, grey_ZYX):
    volume = make_volume(tmp_path, "sharded", grey_ZYX)
    assert volume.chunk_shape == (4, 4, 4)
    assert volume.write_shape == (8, 8, 8)
    with pytest.raises(DataError, match="parts of chunks"):
        volume.write_voxels(Roi((4, 0, 0), (4, 8, 8)), np.ones((4, 8, 8), dtype=np.uint8))
    volume.write_voxels(Roi((8, 8, 8), (1, 2, 3)), np.ones((1, 2, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((9, 10, 11), dtype=np.int32), "int32.*allowed: uint8"),
        (np.zeros((9, 10, 10), dtype=np.uint8), r"allowed: uint8 \(9, 10, 11\)"),
    ],
)
def test_another_dtype_or_shape_is_refused(tmp_path, make_volume, grey_ZYX, array, message):
    volume = make_volume(tmp_path, "zarr2", grey_ZYX)
    with pytest.raises(DataError, match=message):
        volume.write_voxels(volume.roi_voxels, array)


def test_a_volume_opened_for_reading_refuses_writes(tmp_path, make_volume, grey_ZYX, format_name):
    volume = open_volume(make_volume(tmp_path, format_name, grey_ZYX).path)
    with pytest.raises(DataError, match="reading only"):
        volume.write_voxels(volume.roi_voxels, grey_ZYX)
    with pytest.raises(DataError, match="reading only"):
        volume.set_attributes(a=1)


def test_a_region_outside_names_both_regions(tmp_path, make_volume, grey_ZYX):
    volume = make_volume(tmp_path, "zarr2", grey_ZYX, offset_nm=(50, 0, 0))
    with pytest.raises(DataError, match=r"\[0:9, 0:10, 0:11\].*covers \[10:19, 0:10, 0:11\]"):
        volume.read_voxels(Roi((0, 0, 0), (9, 10, 11)))


def test_attributes_are_merged(tmp_path, make_volume, grey_ZYX, format_name):
    volume = make_volume(tmp_path, format_name, grey_ZYX, attributes={"microscope": "FIB-SEM"})
    before = volume.fingerprint()
    mark = {"job": "equalize", "identity": {"shape": [1, 2], "clip": 0.02}}
    volume.set_attributes(incasem=mark, count=np.int64(3))
    stored = open_volume(volume.path)
    assert stored.attributes["incasem"] == mark
    assert stored.attributes["count"] == 3
    assert stored.attributes["microscope"] == "FIB-SEM"
    assert stored.voxel_size == (5, 5, 5)
    np.testing.assert_array_equal(stored.read_voxels(stored.roi_voxels), grey_ZYX)
    if format_name != "hdf5":
        assert stored.fingerprint() == before
    with pytest.raises(DataError, match="numbers, texts"):
        make_volume(tmp_path, "zarr2", grey_ZYX, dataset="b").set_attributes(bad=object())


def test_the_fingerprint_tells_a_new_array_and_another_place(tmp_path, make_volume, grey_ZYX):
    volume = make_volume(tmp_path, "zarr2", grey_ZYX)
    other = volume.with_place(offset_nm=(5, 0, 0))
    assert other.fingerprint() != volume.fingerprint()
    before = volume.fingerprint()
    import shutil

    shutil.rmtree(volume.path)
    assert make_volume(tmp_path, "zarr2", grey_ZYX).fingerprint() != before


def test_missing_chunks_are_listed(tmp_path, make_volume, grey_ZYX, format_name):
    data = np.zeros((8, 16, 24), dtype=np.uint8)
    volume = make_volume(tmp_path, format_name, data, offset_nm=(5, 10, 15))
    assert volume.missing_chunks() == []  # zeros that were written count as there
    empty = create_volume(
        volume.path.replace("raw", "empty"),
        shape=(8, 16, 24),
        dtype="uint8",
        voxel_size=(5, 5, 5),
        chunk_shape=(8, 8, 8),
    )
    empty.write_voxels(Roi((0, 8, 0), (8, 8, 24)), np.ones((8, 8, 24), dtype=np.uint8))
    assert empty.missing_chunks() == [Roi((0, 0, x), (8, 8, 8)) for x in (0, 8, 16)]
    assert empty.missing_chunks(Roi((0, 3, 9), (1, 13, 4))) == [Roi((0, 0, 8), (8, 8, 8))]
