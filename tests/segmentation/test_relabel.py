import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from incasem.blockwise import run_in_process, run_stage
from incasem.errors import DataError, FailedBlocksError
from incasem.segmentation.relabel import LookUp, Target, create_segmentation, relabel, relabel_job
from incasem.volumes import open_volume
from tests.segmentation.maps import random_blobs, store


def some_table(ids, seed=0):
    """Return all ids with 0, and a segment for each."""
    fragments = np.unique(np.append(ids, np.uint64(0)))
    segments = np.random.default_rng(seed).choice(fragments, fragments.size)
    segments[0] = 0
    return fragments, segments


@settings(max_examples=30)
@given(st.integers(0, 99), st.sampled_from([1, 7, 3_000_000_019]), st.booleans())
def test_each_voxel_gets_the_segment_of_its_fragment(seed, factor, in_place):
    ids = random_blobs((5, 6, 9), seed)
    if factor == 1:
        ids = np.unique(ids, return_inverse=True)[1].reshape(ids.shape).astype(np.uint64)
    ids *= np.uint64(factor)
    fragments, segments = some_table(ids, seed)
    wanted = segments[np.searchsorted(fragments, ids)]
    kept = ids.copy()
    found = relabel(ids, fragments, segments, out=ids if in_place else None)
    np.testing.assert_array_equal(found, wanted)
    if not in_place:
        np.testing.assert_array_equal(ids, kept)
    # Not all of it lies in one piece, and nearly every voxel misses the cache.
    mixed = np.random.default_rng(seed).choice(fragments, (3, 4, 5))[:, ::2]
    np.testing.assert_array_equal(
        relabel(mixed, fragments, segments), segments[np.searchsorted(fragments, mixed)]
    )


@pytest.mark.parametrize("fragments", [[0, 1, 2], [0, 5, 2**40]])
@pytest.mark.parametrize("unknown", [3, 2**40 + 1, 2**62])
def test_an_unknown_id_is_named(fragments, unknown):
    fragments = np.array(fragments, np.uint64)
    ids = np.array([[0, fragments[1]], [unknown, 0]], np.uint64)
    with pytest.raises(KeyError, match=str(unknown)):
        relabel(ids, fragments, fragments)


def test_more_than_a_piece_in_place():
    fragments = np.arange(1000, dtype=np.uint64)
    segments = np.random.default_rng(0).permutation(fragments)
    ids = np.random.default_rng(1).choice(fragments, (3, 200, 300))
    wanted = segments[ids]
    np.testing.assert_array_equal(relabel(ids, fragments, segments, out=ids), wanted)


def test_workers_do_not_load_what_they_do_not_need():
    """numba takes longer to load than most blocks take to be relabelled or written."""
    code = (
        "import sys, incasem.segmentation.relabel, incasem.segmentation._writing, incasem.blockwise._worker"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; print('numba' in sys.modules)"], capture_output=True
    )
    assert done.stdout.decode().strip() == "False", done.stderr.decode()


def test_background_only():
    ids = np.zeros((2, 3, 4), np.uint64)
    nothing = np.zeros(1, np.uint64)
    np.testing.assert_array_equal(relabel(ids, nothing, nothing), ids)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("dtype", [np.uint64, np.int32])
def test_a_volume_in_blocks(tmp_path, workers, dtype):
    ids = random_blobs((9, 10, 11))
    fragments = store(tmp_path / "a.zarr/fragments", ids.astype(dtype))
    table = LookUp(tmp_path / "table")
    every, segments = some_table(ids)
    identity = {"threshold": 0.5, "offsets": [(1, 2)]}
    table.write(every, segments, 5, identity)
    assert table.belongs_to(identity)
    assert not table.belongs_to(identity | {"threshold": 0.6})
    assert table.counts() == (every.size - 1, 5, np.unique(segments[segments > 0]).size)
    output = create_segmentation(str(tmp_path / "a.zarr/segmentation/mean_0.5"), fragments, (4, 4, 4))
    job = relabel_job(fragments, Target(table, output), identity, (4, 8, 4))
    if workers:
        run_stage(job, output, workers, progress=False)
    else:
        run_in_process(job)
    stored = open_volume(tmp_path / "a.zarr/segmentation/mean_0.5")
    assert (stored.dtype, stored.roi) == (np.uint64, fragments.roi)
    np.testing.assert_array_equal(
        stored.read_voxels(stored.roi_voxels), segments[np.searchsorted(every, ids)]
    )


def test_the_segmentation_says_that_it_holds_labels(tmp_path):
    fragments = store(tmp_path / "a.zarr/fragments", random_blobs((4, 4, 4)))
    create_segmentation(str(tmp_path / "a.zarr/segmentation/mean_0.5"), fragments)
    text = (tmp_path / "a.zarr/segmentation/.zattrs").read_text()
    assert '"image-label"' in text
    assert '"mean_0.5"' in text


def test_a_fragment_that_was_not_agglomerated_is_named(tmp_path):
    ids = random_blobs((4, 4, 4))
    fragments = store(tmp_path / "a.zarr/fragments", ids)
    every, segments = some_table(ids)
    table = LookUp(tmp_path / "table")
    table.write(every[:-1], segments[:-1], 0, {})
    output = create_segmentation(str(tmp_path / "a.zarr/segmentation/x"), fragments)
    with pytest.raises(FailedBlocksError, match=f"an id in .* is {every[-1]}; allowed: one of the"):
        run_stage(relabel_job(fragments, Target(table, output), {}), output, 1, progress=False)


def test_a_table_that_is_not_whole_is_made_again(tmp_path):
    table = LookUp(tmp_path / "table")
    assert not table.belongs_to({})
    ids = np.arange(4, dtype=np.uint64)
    table.write(ids, ids, 0, {"a": 1})
    for text in ("", "{", "[]", '{"identity": 3}'):
        (tmp_path / "table/about.json").write_text(text)
        assert not table.belongs_to({"a": 1})
    table.write(ids, ids, 0, {"a": 1})
    assert table.belongs_to({"a": 1})


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    def no_space(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("numpy.save", no_space)
    ids = np.arange(4, dtype=np.uint64)
    with pytest.raises(DataError, match=r"table cannot be written \(No space left on device\)"):
        LookUp(tmp_path / "table").write(ids, ids, 0, {})


def test_what_somebody_else_made_is_left_alone(tmp_path):
    ids = random_blobs((4, 4, 4))
    fragments = store(tmp_path / "a.zarr/fragments", ids)
    store(tmp_path / "a.zarr/segmentation/x", ids)
    with pytest.raises(DataError, match="exists and was not made by incasem"):
        create_segmentation(str(tmp_path / "a.zarr/segmentation/x"), fragments)
