import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from incasem.blockwise import run_in_process, state
from incasem.errors import ConfigError, DataError
from incasem.formatting import EqualizeOptions, equalize, equalize_histogram
from incasem.formatting._outputs import sole_command
from incasem.formatting.clahe import Clahe, count_block, equalize_block, maps_of_tiles
from incasem.volumes import create_volume, open_volume


def make_raw(tmp_path, shape, dtype=np.uint8, chunks=(8, 8, 8), offset_nm=(15, 0, 40), seed=0):
    rng = np.random.default_rng(seed)
    volume = create_volume(
        tmp_path / "cell.zarr/volumes/raw",
        shape=shape, dtype=dtype, voxel_size=(5, 5, 4), offset_nm=offset_nm, chunk_shape=chunks,
    )  # fmt: skip
    array = (np.clip(rng.normal(0.5, 0.2, shape), 0, 1) * np.iinfo(dtype).max).astype(dtype)
    volume.write_voxels(volume.roi_voxels, array)
    return array


def as_one_block(array, kernel, clip_limit):
    s = Clahe(kernel, clip_limit)
    maps = maps_of_tiles(count_block(array, (0, 0, 0), s), s)
    tiles = [np.minimum(np.asarray(s.tiles_mixed(0, n)), s.tiles_counted(0, n)[-1]) for n in array.shape]
    return equalize_block(array, (0, 0, 0), maps[np.ix_(*tiles)], s)


def options(tmp_path, **kwargs):
    return EqualizeOptions(
        tmp_path / "cell.zarr", **{"chunk_shape": (8, 8, 8), "kernel_size": 16, "clip_limit": 0.1, **kwargs}
    )


def whole(tmp_path, dataset="volumes/raw_equalized_0.02"):
    volume = open_volume(tmp_path / "cell.zarr" / dataset)
    return volume.read_voxels(volume.roi_voxels)


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_any_blocks_give_the_bytes_of_the_whole_volume(tmp_path_factory, data):
    tmp_path = tmp_path_factory.mktemp("clahe")
    shape = data.draw(st.tuples(*[st.integers(1, 45)] * 3))
    chunks = data.draw(st.tuples(*[st.integers(5, 20)] * 3))
    block = tuple(c * data.draw(st.integers(1, 3)) for c in chunks)
    kernel = data.draw(st.sampled_from([8, 9, 16, 25]))
    array = make_raw(tmp_path, shape, chunks=chunks, seed=data.draw(st.integers(0, 9)))
    stage = equalize.prepare_equalization(options(tmp_path, chunk_shape=chunks, kernel_size=kernel), block)
    run_in_process(stage.count())
    run_in_process(stage.equalize)
    np.testing.assert_array_equal(whole(tmp_path), as_one_block(array, kernel, 0.1))


@pytest.mark.parametrize("few", [0, 64])
def test_by_workers(tmp_path, few, monkeypatch):
    monkeypatch.setattr(equalize, "_FEW_BLOCKS", few)
    array = make_raw(tmp_path, (33, 40, 50), np.uint16)
    opts = options(tmp_path)
    equalize_histogram(opts, num_workers=2, progress=False)
    np.testing.assert_array_equal(whole(tmp_path), as_one_block(array, 16, 0.1))
    output = open_volume(tmp_path / "cell.zarr/volumes/raw_equalized_0.02")
    assert output.dtype == np.uint16
    assert output.voxel_size == (5, 5, 4)
    assert output.offset_nm == (15, 0, 40)
    assert not list((tmp_path / "cell.zarr/volumes/raw_equalized_0.02").glob(".incasem"))
    assert equalize_histogram(opts, num_workers=2, progress=False).already_complete


def test_no_voxel_is_counted_twice(tmp_path):
    array = make_raw(tmp_path, (33, 40, 50))
    stage = equalize.prepare_equalization(options(tmp_path), (16, 16, 24))
    run_in_process(stage.count())
    counts = stage.counts()
    assert counts.read_voxels(counts.roi_voxels).sum(dtype=np.int64) == array.size


def test_another_clip_limit_at_the_same_output(tmp_path):
    make_raw(tmp_path, (20, 20, 20))
    opts = options(tmp_path)
    equalize_histogram(opts, num_workers=1, progress=False)
    before = whole(tmp_path)
    with pytest.raises(DataError, match=r"clip_limit: was 0\.1, is now 0\.5"):
        equalize_histogram(dataclasses.replace(opts, clip_limit=0.5), num_workers=1, progress=False)
    np.testing.assert_array_equal(whole(tmp_path), before)


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"dataset": "volumes/rav"}, DataError, r"volumes/raw"),
        ({"out_dataset": "volumes/raw"}, ConfigError, "another one than the input"),
        ({"kernel_size": 0}, ConfigError, "kernel_size"),
        ({"clip_limit": 2.0}, ConfigError, "clip_limit"),
        ({"chunk_shape": (8, 8)}, ConfigError, "chunk_shape"),
    ],
)
def test_bad_options(tmp_path, kwargs, error, message):
    make_raw(tmp_path, (20, 20, 20))
    with pytest.raises(error, match=message):
        equalize_histogram(options(tmp_path, **kwargs), num_workers=1, progress=False)


def test_other_dtypes(tmp_path):
    volume = create_volume(
        tmp_path / "cell.zarr/volumes/raw", shape=(4, 4, 4), dtype=np.float32, voxel_size=(5, 5, 5)
    )
    volume.write_voxels(volume.roi_voxels, np.zeros((4, 4, 4), np.float32))
    with pytest.raises(DataError, match="uint8, uint16"):
        equalize_histogram(options(tmp_path), num_workers=1, progress=False)


def test_no_workers(tmp_path):
    with pytest.raises(ConfigError, match="num_workers is -1"):
        equalize_histogram(options(tmp_path), num_workers=-1)


def test_two_commands_on_one_output(tmp_path, monkeypatch):
    make_raw(tmp_path, (20, 20, 20))
    monkeypatch.setattr(state, "_LOCK_PATIENCE_S", 0)
    stage = equalize.prepare_equalization(options(tmp_path))
    with sole_command(stage.equalize), pytest.raises(DataError, match="another job works on this output"):
        equalize_histogram(options(tmp_path), num_workers=1, progress=False)
    equalize_histogram(options(tmp_path), num_workers=1, progress=False)


def test_a_run_killed_between_the_passes_is_continued(tmp_path, monkeypatch):
    array = make_raw(tmp_path, (33, 40, 50))
    monkeypatch.setattr(equalize, "_FEW_BLOCKS", 0)
    run_stage = equalize.run_stage
    calls = []

    def stops_after_the_first(job, output, num_workers, progress):
        calls.append(job.name)
        if job.name == equalize.JOB:
            raise KeyboardInterrupt
        return run_stage(job, output, num_workers, progress)

    with monkeypatch.context() as patch:
        patch.setattr(equalize, "run_stage", stops_after_the_first)
        with pytest.raises(KeyboardInterrupt):
            equalize_histogram(options(tmp_path), num_workers=1, progress=False)
    equalize_histogram(options(tmp_path), num_workers=1, progress=False)
    assert calls == [equalize.COUNT_JOB, equalize.JOB]
    np.testing.assert_array_equal(whole(tmp_path), as_one_block(array, 16, 0.1))
