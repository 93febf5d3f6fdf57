from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from incasem.blockwise import run_in_process
from incasem.errors import DataError
from incasem.segmentation.affinity_map import open_affinities
from incasem.segmentation.edge_store import cut_of, open_edge_store
from incasem.segmentation.edges import EdgeSettings, GraphTarget, edge_job, write_edges
from incasem.segmentation.region_graph import summed_edges, summed_fragments
from tests.segmentation.maps import LONG, plain_edges, random_map, store, stored_pair

SHAPE = (9, 10, 7)


def graph_of(folder, affinities, fragments, settings, block_shape=None):
    edge_store = open_edge_store(folder / "edges.sqlite", "x")
    job = edge_job(affinities, fragments, GraphTarget(edge_store, folder / "state", settings), block_shape)
    run_in_process(job)
    edge_store.finish(cut_of(job.grid))
    edges, nodes = summed_edges(edge_store.edges()), summed_fragments(edge_store.fragments())
    edge_store.database.disconnect()
    return edges, nodes


def as_bytes(*tables):
    return [(name, column.dtype, column.tobytes()) for t in tables for name, column in vars(t).items()]


@settings(max_examples=15)
@given(
    st.tuples(*[st.integers(1, 10)] * 3), st.booleans(), st.booleans(), st.integers(0, 3),
    st.tuples(*[st.integers(1, 7)] * 3),
)  # fmt: skip
def test_any_blocks_count_each_edge_once(tmp_path_factory, blocks, histograms, long_range, seed, shape):
    folder = tmp_path_factory.mktemp("edges")
    affinities, fragments, values, ids = stored_pair(folder, shape, seed)
    edges, nodes = graph_of(folder, affinities, fragments, EdgeSettings(histograms, long_range), blocks)
    found, counts = np.unique(ids[ids > 0], return_counts=True)
    np.testing.assert_array_equal(nodes.ids, found)
    np.testing.assert_array_equal(nodes.voxels, counts)
    offsets = LONG if long_range else LONG[:3]
    wanted = plain_edges(values, ids, offsets)
    assert list(zip(edges.u.tolist(), edges.v.tolist(), strict=True)) == sorted(wanted)
    for i, pair in enumerate(sorted(wanted)):
        contact, steps = wanted[pair]
        bins = slice(edges.first_bin[i], edges.first_bin[i + 1])
        assert (edges.contact[i], edges.count[i]) == (contact, len(steps))
        assert (edges.total[i], edges.highest[i]) == (sum(steps), max(steps))
        if histograms:
            seen, often = np.unique(steps, return_counts=True)
            np.testing.assert_array_equal(edges.bins[bins], seen)
            np.testing.assert_array_equal(edges.bin_counts[bins], often)
    if not histograms:
        assert edges.bins.size == 0


def test_worker_processes_give_the_same_bytes(tmp_path):
    affinities, fragments, _, _ = stored_pair(tmp_path, SHAPE)
    whole = graph_of(tmp_path / "whole", affinities, fragments, EdgeSettings(True, True))
    edge_store = open_edge_store(tmp_path / "edges.sqlite", "x")
    target = GraphTarget(edge_store, tmp_path / "state", EdgeSettings(True, True))
    arguments = (affinities, fragments, target)
    report = write_edges(*arguments, num_workers=2, progress=False, block_shape=(4, 4, 4))
    assert report.blocks_done == 18
    graph = summed_edges(edge_store.edges()), summed_fragments(edge_store.fragments())
    assert as_bytes(*graph) == as_bytes(*whole)
    again = write_edges(*arguments, num_workers=2, progress=False, block_shape=(5, 5, 5))
    assert again.already_complete
    other = replace(target, settings=EdgeSettings(False, True))
    with pytest.raises(DataError, match="histograms: was true, is now false"):
        write_edges(affinities, fragments, other, num_workers=1, progress=False)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint32, np.int64])
def test_ids_of_any_integer_type(tmp_path, dtype):
    affinities, fragments, _, ids = stored_pair(tmp_path, SHAPE)
    other = store(tmp_path / "a.zarr/other", ids.astype(dtype))
    edges = [
        graph_of(tmp_path / volume.dtype.name, affinities, volume, EdgeSettings())
        for volume in (fragments, other)
    ]
    assert as_bytes(*edges[0]) == as_bytes(*edges[1])


def test_sparse_ids_beyond_32_bits(tmp_path):
    affinities, fragments, _, ids = stored_pair(tmp_path, SHAPE)
    factor, shift = np.uint64(3_000_000_019), np.uint64(5_000_000_000)
    sparse = np.where(ids > 0, ids * factor + shift, 0).astype(np.uint64)
    other = store(tmp_path / "a.zarr/sparse", sparse)
    (plain, _), (edges, nodes) = (
        graph_of(tmp_path / name, affinities, volume, EdgeSettings(), (3, 4, 5))
        for name, volume in (("plain", fragments), ("sparse", other))
    )
    np.testing.assert_array_equal(edges.u, plain.u * factor + shift)
    np.testing.assert_array_equal(edges.v, plain.v * factor + shift)
    np.testing.assert_array_equal(edges.total, plain.total)
    np.testing.assert_array_equal(nodes.ids, np.unique(sparse)[1:])


@pytest.mark.parametrize("value", [0, 7])
def test_background_and_one_object_have_no_edges(tmp_path, value):
    affinities, _, _, _ = stored_pair(tmp_path, SHAPE)
    fragments = store(tmp_path / "a.zarr/flat", np.full(SHAPE, value, np.uint64))
    edges, nodes = graph_of(tmp_path, affinities, fragments, EdgeSettings(True), (4, 4, 4))
    assert len(edges) == 0
    assert nodes.voxels.tolist() == ([np.prod(SHAPE)] if value else [])


def test_fragments_of_a_part_of_the_map(tmp_path):
    affinities, _, values, ids = stored_pair(tmp_path, SHAPE)
    part = (slice(2, 8), slice(3, 9), slice(1, 6))
    fragments = store(tmp_path / "a.zarr/part", ids[part], begin=(5, 1, 6))
    edges, _ = graph_of(tmp_path, affinities, fragments, EdgeSettings())
    wanted = plain_edges(values[:3, *part], ids[part], LONG[:3])
    assert list(zip(edges.u.tolist(), edges.v.tolist(), strict=True)) == sorted(wanted)
    assert edges.total.tolist() == [sum(wanted[pair][1]) for pair in sorted(wanted)]


@pytest.mark.parametrize(
    ("array", "begin", "message"),
    [
        (np.full(SHAPE, -3, np.int32), (3, -2, 5), "an id in .* is -3; allowed: 0 .background. to"),
        (np.full(SHAPE, 2**63 + 5, np.uint64), (3, -2, 5), "9223372036854775813; allowed: 0"),
        (np.ones(SHAPE, np.float32), (3, -2, 5), "dtype of .* is float32; allowed: integers"),
        (np.ones(SHAPE, np.uint8), (0, 0, 0), "the place of .* allowed: a region inside"),
        (np.ones((1, *SHAPE), np.uint8), (3, -2, 5), "axes of .* is c, z, y, x"),
    ],
)
def test_senseless_fragments_are_refused(tmp_path, array, begin, message):
    affinities, _, _, _ = stored_pair(tmp_path, SHAPE)
    fragments = store(tmp_path / "a.zarr/bad", array, begin=begin)
    with pytest.raises(DataError, match=message):
        graph_of(tmp_path, affinities, fragments, EdgeSettings())


def test_nan_is_refused(tmp_path):
    _, fragments, _, _ = stored_pair(tmp_path, SHAPE)
    values = random_map(3, SHAPE) / np.float32(255)
    values[1, 4, 4, 4] = np.nan
    store(tmp_path / "nan.zarr/affinities", values.astype(np.float32))
    with pytest.raises(DataError, match="NaN"):
        graph_of(tmp_path, open_affinities(tmp_path / "nan.zarr/affinities"), fragments, EdgeSettings())
