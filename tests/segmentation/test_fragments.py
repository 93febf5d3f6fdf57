import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.metrics import variation_of_information

from incasem.blockwise import run_in_process
from incasem.errors import ConfigError, DataError, FailedBlocksError
from incasem.geometry import Coordinate, Roi
from incasem.phantom.affinities import AffinityPhantom
from incasem.segmentation import _joining, _tables, extra, fragments
from incasem.segmentation._mutex import mutex_labels
from incasem.segmentation._seeded import seeded_labels
from incasem.segmentation.affinity_map import open_affinities
from incasem.segmentation.edge_store import open_edge_store
from incasem.segmentation.edges import EdgeSettings, GraphTarget, edge_job, write_edges
from incasem.segmentation.fragments import FragmentSettings, write_fragments
from incasem.segmentation.region_graph import summed_edges, summed_fragments
from tests.segmentation.plain import plain_watershed, same_partition, store

LONG = ((-1, 0, 0), (0, -1, 0), (0, 0, -1), (-4, 0, 0), (0, -6, 0), (0, 0, -6))
in_process = partial(write_fragments, num_workers=0, progress=False, chunk_shape=(8, 8, 8))


def values(volume):
    return volume.read_voxels(volume.roi_voxels)


def phantom_map(tmp_path, shape=(32, 40, 48), **kwargs):
    phantom = AffinityPhantom(**({"seed": 2, "spacing_voxels": 14} | kwargs))
    store(tmp_path / "p.zarr/affinities", phantom.block((0, 0, 0), shape)[0], offsets=phantom.offsets)
    return open_affinities(tmp_path / "p.zarr/affinities")


def files(dataset):
    return {
        str(p.relative_to(dataset.path)): p.read_bytes()
        for p in sorted(Path(dataset.path).rglob("*"))
        if p.is_file() and p.name != ".zattrs"
    }


@settings(max_examples=25)
@given(data=st.data())
def test_any_blocks_give_the_fragments_of_the_rule(tmp_path_factory, data):
    tmp_path = tmp_path_factory.mktemp("any")
    shape = data.draw(st.tuples(*[st.integers(1, 8)] * 3))
    levels = data.draw(st.sampled_from([[0, 1, 2], [0, 10, 11, 12, 13], [5, 254, 255], [7]]))
    nearest = data.draw(arrays(np.uint8, (3, *shape), elements=st.sampled_from(levels)))
    inside = data.draw(st.none() | arrays(np.uint8, shape, elements=st.sampled_from([0, 1, 1, 1])))
    how = data.draw(st.sampled_from([{}, {"low": 0.04}, {"low": 10 / 255, "high": 12 / 255}]))
    chunks = data.draw(st.tuples(*[st.integers(1, 4)] * 3))
    blocks = [c * data.draw(st.integers(1, 2)) for c in chunks]
    store(tmp_path / "a.zarr/affinities", nearest, offset_nm=(8, -4, 400))
    mask = None if inside is None else store(tmp_path / "a.zarr/mask", inside, offset_nm=(8, -4, 400))
    found = write_fragments(
        open_affinities(tmp_path / "a.zarr/affinities"), tmp_path / "a.zarr/fragments",
        FragmentSettings(**how), mask=mask, num_workers=0, block_shape=blocks, chunk_shape=chunks,
    )  # fmt: skip
    low, high = (10, 12) if "high" in how else (10 if how else 0, 255)
    expected = plain_watershed(nearest, low, high, None if inside is None else inside > 0)
    np.testing.assert_array_equal(values(found), expected)
    assert found.attributes["num_fragments"] == expected.max()
    assert found.attributes["incasem"]["job"] == "fragments"
    assert not (tmp_path / "a.zarr/fragments/.incasem").exists()
    assert found.dtype == np.uint64
    assert found.offset_nm == (8, -4, 400)


def test_workers_and_blocks_give_the_bytes_of_one_block(tmp_path, monkeypatch):
    affinities = phantom_map(tmp_path)
    whole = in_process(affinities, tmp_path / "p.zarr/whole", block_shape=(32, 40, 48))
    expected = values(whole)
    assert 20 < expected.max() < 2000
    scan = expected.ravel()
    firsts = np.unique(scan, return_index=True)[1]
    assert (np.diff(firsts[1:] if scan.min() == 0 else firsts) > 0).all(), "numbered in scan order"
    for workers, block in ((1, (16, 24, 24)), (2, (16, 16, 16))):
        output = tmp_path / f"p.zarr/{workers}"
        monkeypatch.setattr(fragments, "_FEW_BLOCKS", 64 if workers == 1 else 0)  # faces by workers, too
        found = write_fragments(
            affinities, output, num_workers=workers, progress=False, block_shape=block, chunk_shape=(8, 8, 8)
        )
        assert files(found) == files(whole)
        assert not (output / ".incasem").exists()
    assert found.attributes["num_fragments"] == expected.max()


def graph_target(folder, *, histograms=False):
    edge_store = open_edge_store(folder / "edges.sqlite", "x")
    return GraphTarget(edge_store, folder / ".edges", EdgeSettings(histograms=histograms))


def columns(target):
    tables = summed_edges(target.store.edges()), summed_fragments(target.store.fragments())
    target.store.database.disconnect()
    return [(name, column.dtype, column.tolist()) for table in tables for name, column in vars(table).items()]


@settings(max_examples=25)
@given(data=st.data())
def test_the_graph_counted_on_the_way_is_that_of_the_fragments(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("graph")
    shape = data.draw(st.tuples(*[st.integers(1, 8)] * 3))
    levels = data.draw(st.sampled_from([[0, 1, 2], [0, 10, 11, 12, 13], [5, 254, 255], [7]]))
    nearest = data.draw(arrays(np.uint8, (3, *shape), elements=st.sampled_from(levels)))
    inside = data.draw(st.none() | arrays(np.uint8, shape, elements=st.sampled_from([0, 1, 1, 1])))
    how = data.draw(st.sampled_from([{}, {"low": 0.04}, {"low": 10 / 255, "high": 12 / 255}]))
    histograms, before = data.draw(st.booleans()), data.draw(st.booleans())
    blocks = data.draw(st.tuples(*[st.integers(1, 4)] * 3))
    offsets = [[-1, 0, 0], [0, -1, 0], [0, 0, -1 if before else 1]]
    store(folder / "a.zarr/affinities", nearest, offsets=offsets)
    affinities = open_affinities(folder / "a.zarr/affinities")
    mask = None if inside is None else store(folder / "a.zarr/mask", inside)
    on_the_way = graph_target(folder / "a.zarr", histograms=histograms)
    found = write_fragments(
        affinities, folder / "a.zarr/f", FragmentSettings(**how), mask=mask, num_workers=0,
        block_shape=blocks, chunk_shape=blocks, graph=on_the_way,
    )  # fmt: skip
    afterwards = graph_target(folder, histograms=histograms)
    job = edge_job(affinities, found, afterwards, (8, 8, 8))
    run_in_process(job)
    afterwards.output(job.grid).set_attributes()
    assert columns(on_the_way) == columns(afterwards)
    again = write_edges(affinities, found, on_the_way, num_workers=1, progress=False)
    assert again.already_complete


@pytest.mark.parametrize("few", [64, 0], ids=["in this process", "by workers"])
def test_workers_give_the_graph_of_one_block(tmp_path, monkeypatch, few):
    affinities = phantom_map(tmp_path)
    monkeypatch.setattr(fragments, "_FEW_BLOCKS", few)
    graphs = []
    for workers, block in ((0, (32, 40, 48)), (2, (16, 16, 16))):
        target = graph_target(tmp_path / f"{workers}.zarr", histograms=True)
        write_fragments(
            affinities, tmp_path / f"{workers}.zarr/f", num_workers=workers, progress=False,
            block_shape=block, chunk_shape=(8, 8, 8), graph=target,
        )  # fmt: skip
        graphs.append(columns(target))
    assert len(graphs[0][0][2]) > 50
    assert graphs[0] == graphs[1]


def test_a_graph_of_other_fragments_is_refused_before_the_work(tmp_path):
    affinities, target = phantom_map(tmp_path, (16, 16, 16)), graph_target(tmp_path / "p.zarr")
    run = partial(in_process, affinities, tmp_path / "p.zarr/f", graph=target)
    run()
    shutil.rmtree(tmp_path / "p.zarr/f")
    with pytest.raises(DataError, match=r"edges\.sqlite was written with other settings:\n  fragments"):
        run()
    assert not list((tmp_path / "p.zarr/f").rglob("*.npz"))


@pytest.mark.parametrize(
    "how", [{"method": "seeded"}, {"method": "mutex"}, {"per_section": True}, {"long_range": True}]
)
def test_graphs_that_faces_do_not_tell_are_left_to_a_pass_of_their_own(tmp_path, how):
    affinities, target = phantom_map(tmp_path, (16, 16, 16)), graph_target(tmp_path / "p.zarr")
    if how.pop("long_range", False):
        target = replace(target, settings=EdgeSettings(long_range=True))
    in_process(
        affinities, tmp_path / "p.zarr/f", FragmentSettings(**how, context_voxels=2), graph=target,
        block_shape=(8, 8, 8),
    )  # fmt: skip
    assert not (tmp_path / "p.zarr/edges.sqlite").exists()


def test_a_run_again_does_nothing_and_other_settings_are_refused(tmp_path):
    affinities = phantom_map(tmp_path, (16, 16, 16))
    run = partial(write_fragments, affinities, tmp_path / "p.zarr/f", progress=False, chunk_shape=(8, 8, 8))
    before = values(run(block_shape=(8, 8, 8)))
    stamp = (tmp_path / "p.zarr/f/0/0/0").stat().st_mtime_ns
    again = run(block_shape=(16, 16, 16))
    assert (tmp_path / "p.zarr/f/0/0/0").stat().st_mtime_ns == stamp
    np.testing.assert_array_equal(values(again), before)
    with pytest.raises(DataError, match=r"high: was 0\.9999, is now 0\.9"):
        run(FragmentSettings(high=0.9))


@pytest.mark.parametrize("method", ["watershed", "seeded", "mutex"])
@pytest.mark.parametrize(("value", "count"), [(0, 0), (255, 1)])
def test_nothing_and_everything(tmp_path, method, value, count):
    store(tmp_path / "a.zarr/a", np.full((3, 12, 12, 12), value, np.uint8))
    found = in_process(
        open_affinities(tmp_path / "a.zarr/a"), tmp_path / "a.zarr/f",
        FragmentSettings(method=method, context_voxels=3), block_shape=(8, 8, 16),
    )  # fmt: skip
    assert found.attributes["num_fragments"] == count
    assert (values(found) == count).all()


@pytest.mark.parametrize("method", ["watershed", "seeded", "mutex"])
def test_an_empty_block_and_a_mask_that_ends_early(tmp_path, method):
    affinities = phantom_map(tmp_path, (16, 24, 24))
    mask = store(tmp_path / "p.zarr/mask", np.full((16, 8, 20), 255, np.uint8))
    how = FragmentSettings(method=method, context_voxels=4)
    found = values(in_process(affinities, tmp_path / "p.zarr/f", how, mask=mask, block_shape=(8, 8, 8)))
    assert (found[:, 8:] == 0).all()
    assert (found[:, :, 20:] == 0).all()
    assert (found[:, :8, :20] > 0).mean() > 0.6


def test_a_network_that_gave_nan_is_reported_with_the_block(tmp_path):
    broken = np.full((3, 16, 16, 16), 0.7, np.float32)
    broken[2, 12, 3, 3] = np.nan
    store(tmp_path / "a.zarr/a", broken)
    with pytest.raises((DataError, FailedBlocksError), match="NaN; allowed: affinities from 0 to 1"):
        write_fragments(
            open_affinities(tmp_path / "a.zarr/a"), tmp_path / "a.zarr/f",
            num_workers=1, progress=False, block_shape=(8, 16, 16), chunk_shape=(8, 8, 8),
        )  # fmt: skip


def test_what_does_not_fit_is_refused_before_anything_is_written(tmp_path):
    affinities = phantom_map(tmp_path, (16, 16, 16))
    output = tmp_path / "p.zarr/f"
    with pytest.raises(ConfigError, match=r"block_shape is \(8, 12, 8\); .* chunks \(8, 8, 8\)"):
        in_process(affinities, output, block_shape=(8, 12, 8))
    with pytest.raises(ConfigError, match="num_workers is -1"):
        write_fragments(affinities, tmp_path / "p.zarr/g", num_workers=-1)
    coarse = store(tmp_path / "p.zarr/coarse", np.ones((4, 4, 4), np.uint8), voxel_size=(8, 8, 8))
    with pytest.raises(DataError, match=r"voxel size of .*coarse.* that of the affinities"):
        in_process(affinities, tmp_path / "p.zarr/g", mask=coarse)
    store(tmp_path / "p.zarr/other", np.ones((16, 16, 16), np.uint64))
    with pytest.raises(DataError, match="other exists and was not made by incasem"):
        in_process(affinities, tmp_path / "p.zarr/other")
    lacking = open_affinities(affinities.volume.path, [(-2, 0, 0), (0, -1, 0), (0, 0, -1)])
    with pytest.raises(DataError, match=r"\[-1, 0, 0\] or \[1, 0, 0\]"):
        in_process(lacking, tmp_path / "p.zarr/g")
    assert not (tmp_path / "p.zarr/g").exists()
    with pytest.raises(DataError, match=r"f\.h5/f; allowed: a dataset in a container NAME\.zarr or NAME\.n5"):
        in_process(affinities, tmp_path / "f.h5/f")


@pytest.mark.parametrize(("method", "module"), [("seeded", "edt"), ("mutex", "mwatershed")])
def test_a_missing_extra_is_named(tmp_path, monkeypatch, method, module):
    def refuse(name):
        raise ModuleNotFoundError(f"No module named {name!r}")

    affinities = phantom_map(tmp_path, (8, 8, 8))
    monkeypatch.setattr(extra.importlib, "import_module", refuse)
    with pytest.raises(ConfigError, match=f"{module} cannot be imported .* the extra `neurons`"):
        in_process(affinities, tmp_path / "p.zarr/f", FragmentSettings(method=method))


def test_ids_beyond_32_bits_survive_every_step(tmp_path):
    """Fragments of a volume so large that ids and flat indices need more than 32 bits."""
    table = np.array([0, 2**40 + 1, 2**63 + 5], np.uint64)
    stored = tmp_path / "tables"
    stored.mkdir()
    np.save(stored / "first_piece.npy", np.array([0, 2]))
    np.save(stored / "fragment_of_piece.npy", table[1:])
    read = _tables.fragment_of_piece(stored, 0)
    assert read.dtype == np.uint64
    np.testing.assert_array_equal(read, table)
    grid = fragments.Grid(Roi((0, 0, 0), (10**6, 10**5, 10**5)), Coordinate((100, 100, 100)))
    last = grid.block(len(grid) - 1)
    (flat,) = _joining.flat_in_region(last, np.array([10**6 - 1]))
    assert flat == 10**16 - 1


def matched(pairs, count):
    return _joining._components(np.asarray(pairs, np.int64).reshape(-1, 2), count).tolist()


def test_components_of_pieces():
    assert matched([], 0) == []
    assert matched([(3, 1), (4, 0), (1, 5)], 6) == [0, 1, 2, 1, 0, 1]
    assert matched([(2, 1), (1, 0), (5, 4), (4, 3), (5, 0)], 6) == [0] * 6


def split_and_merge(whole, blocks):
    """Bits: what cutting into blocks has split, and what it has merged."""
    both = variation_of_information(whole.astype(np.int64), blocks.astype(np.int64))
    return float(both[0]), float(both[1])


@pytest.mark.parametrize(
    ("how", "split", "merge"),
    [
        ({"method": "seeded"}, 0.05, 0.05),
        ({"method": "seeded", "per_section": True}, 0.05, 0.05),
        ({"method": "mutex"}, 0.05, 0.05),
        ({"method": "mutex", "mutex_bias": 0.2, "long_range_bias": 0.7}, 0.1, 0.1),
    ],
)
def test_how_far_blocks_change_the_approximate_methods(tmp_path, how, split, merge):
    affinities = phantom_map(tmp_path, (48, 48, 48), offsets=LONG, seed=3)
    how = FragmentSettings(context_voxels=16, **how)
    whole = in_process(affinities, tmp_path / "p.zarr/whole", how, block_shape=(48, 48, 48))
    blocks = in_process(affinities, tmp_path / "p.zarr/blocks", how, block_shape=(24, 24, 24))
    assert whole.attributes["num_fragments"] > 10
    found = split_and_merge(values(whole), values(blocks))
    assert found[0] < split
    assert found[1] < merge


def test_one_block_of_the_mutex_watershed_is_mwatershed(tmp_path):
    mwatershed = pytest.importorskip("mwatershed", reason="the extra `neurons` is not installed")
    affinities = phantom_map(tmp_path, (16, 24, 24), offsets=LONG)
    how = FragmentSettings(method="mutex", mutex_bias=0.4, long_range_bias=0.6, long_range_stride=(1, 2, 2))
    found = in_process(affinities, tmp_path / "p.zarr/f", how, block_shape=(16, 24, 24))
    weights = affinities.read(affinities.roi_voxels) / 255
    weights[:3] -= 0.4
    weights[3:] -= 0.6
    strides = [(1, 1, 1)] * 3 + [(1, 2, 2)] * 3
    assert same_partition(values(found), mwatershed.agglom(weights, LONG, strides=strides))


def test_a_mask_parts_what_the_mutex_watershed_would_join():
    channels = np.full((4, 1, 1, 9), 200, np.uint8)
    inside = np.ones((1, 1, 9), bool)
    inside[0, 0, 4] = False
    offsets = ((-1, 0, 0), (0, -1, 0), (0, 0, -1), (0, 0, -4))
    how = FragmentSettings(method="mutex")
    joined = mutex_labels(channels[:3], inside, offsets[:3], how)
    assert joined.ravel().tolist() == [1, 1, 1, 1, 0, 2, 2, 2, 2]


def test_seeds_by_section_and_in_three_dimensions():
    edges = np.full((3, 5, 13, 25), 255, np.uint8)
    edges[2, :, :, 12] = 0  # two cells, side by side
    edges[0, 2] = 0  # and two slabs of sections
    both = FragmentSettings(method="seeded", seed_distance=20)
    flat = FragmentSettings(method="seeded", seed_distance=20, per_section=True)
    assert len(np.unique(seeded_labels(edges, both, (4, 4, 4)))) <= 4
    labels = seeded_labels(edges, flat, (40, 4, 4))
    assert [len(np.unique(section)) for section in labels] == [2, 2, 2, 2]
    assert len(np.unique(labels)) == 8
    assert (labels[:, :, :12] != labels[:, :, 12:]).all()
