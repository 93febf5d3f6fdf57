"""Precomputed volumes: the labels, scales and sizes as they are, and meshes that fit across blocks exactly.

The readers here are others' (tensorstore, DracoPy) or follow the format's description on their own.
"""

import json
import math
import subprocess
import sys
import time

import numpy as np
import pytest
from scipy.spatial import cKDTree

from incasem.blockwise import is_finished, run_in_process
from incasem.blockwise.state import held
from incasem.cli import main
from incasem.errors import ConfigError, DataError, FailedBlocksError
from incasem.formatting._downscale import coarser_roi
from incasem.formatting.precomputed import (
    PrecomputedOptions,
    draco,
    export_precomputed,
    fragments,
    manifests,
    octree,
    properties,
    scales,
    sharded,
)
from incasem.formatting.precomputed import layout as layout_module
from incasem.formatting.precomputed.surfaces import STEPS, surfaces
from incasem.geometry import Roi
from tests.formatting.precomputed_files import (
    FAR,
    OFFSET,
    VOXEL,
    Meshes,
    is_closed,
    joined,
    neurites,
    read,
    store,
    volume_of,
)


@pytest.fixture
def in_process(monkeypatch):
    """Stages run here instead of in workers, which take seconds to start; marks and all."""

    def run_stage(job, output, num_workers, progress):
        if not is_finished(job, output):
            run_in_process(job)
            output.set_attributes(
                incasem={"job": job.name, "identity": json.loads(json.dumps(job.identity)), "region": {
                    "begin": list(job.grid.total_roi.begin), "shape": list(job.grid.total_roi.shape)}}
            )  # fmt: skip

    for module in (scales, fragments, manifests):
        monkeypatch.setattr(module, "run_stage", run_stage)


@pytest.fixture
def small_nodes(monkeypatch):
    monkeypatch.setattr(octree, "NODE", 32)
    monkeypatch.setattr(octree, "_SMALLEST_NODE", 8)
    monkeypatch.setattr(layout_module, "SMALLEST_SCALE", 16**3)


def run(folder, array, *, dataset="labels", **options):
    if array is not None:
        store(folder, array)
    export_precomputed(
        PrecomputedOptions(folder / "cell.zarr", dataset, folder / "out", **options), num_workers=1
    )
    return folder / "out"


@pytest.mark.parametrize("is_sharded", [False, True])
def test_labels_scales_and_sizes(tmp_path, in_process, is_sharded, monkeypatch):
    monkeypatch.setattr(layout_module, "SMALLEST_SCALE", 32**3)
    labels = neurites((70, 150, 200))
    labels[3, 4, 5] = 2**63 + 7
    root = run(tmp_path, labels, sharded=is_sharded, meshes=False)
    info = json.loads((root / "info").read_text())
    assert (info["type"], info["data_type"], info.get("mesh")) == ("segmentation", "uint64", None)
    stored, array = read(root, 0)
    assert (stored == labels).all()
    assert array.domain.inclusive_min[:3] == OFFSET[::-1]
    keys = [scale["key"] for scale in info["scales"]]
    # Long voxels are halved last.
    assert keys == ["6_6_30", "12_12_30", "24_24_30", "48_48_60"]
    assert [s["resolution"] for s in info["scales"]][-1] == [48, 48, 60]
    finer, roi = labels, Roi(OFFSET, labels.shape)
    for index, step in enumerate([(1, 2, 2), (1, 2, 2), (2, 2, 2)], start=1):
        stored, array = read(root, index)
        coarse = coarser_roi(roi, step)
        assert tuple(array.domain.inclusive_min[:3]) == tuple(coarse.begin)[::-1]
        # A window of one label only is that label, whatever the method; most are.
        for z, y, x in np.random.default_rng(0).integers(0, coarse.shape, (200, 3)):
            low = [
                max(0, (b + i) * f - r)
                for b, i, f, r in zip(coarse.begin, (z, y, x), step, roi.begin, strict=True)
            ]
            high = [
                (b + i + 1) * f - r
                for b, i, f, r in zip(coarse.begin, (z, y, x), step, roi.begin, strict=True)
            ]
            ids, counts = np.unique(finer[tuple(map(slice, low, high))], return_counts=True)
            assert stored[z, y, x] in ids[counts == counts.max()]
        finer, roi = stored, coarse
    listed = json.loads((root / "segment_properties/info").read_text())["inline"]
    ids, counts = np.unique(labels[labels > 0], return_counts=True)
    assert listed["ids"] == [str(i) for i in ids.tolist()]
    voxels, volumes = listed["properties"]
    assert voxels["values"] == counts.tolist()
    assert volumes["values"] == pytest.approx((counts * 30 * 6 * 6 / 1e9).tolist(), rel=1e-5)


def test_meshes_of_blocks_are_the_surface_of_the_whole(tmp_path, in_process, small_nodes):
    labels = neurites((40, 70, 90))
    root = run(tmp_path, labels)
    meshes = Meshes(root / "mesh")
    padded = np.pad(labels, 2)
    whole = {label: (steps, faces) for label, steps, faces in surfaces(padded)}
    assert set(whole) == set(np.unique(labels[labels > 0]).tolist())
    for label, (steps, faces) in whole.items():
        levels = meshes.levels(label)
        assert len(levels) >= 3
        _, nodes = levels[0]
        assert len(nodes) > 8
        points, joined_faces = joined(nodes)
        # The first corner of the padded array is the centre of the voxel before the first.
        wanted = (steps / STEPS - 1 + 0.5 + np.array(OFFSET[::-1])) * np.array(VOXEL[::-1])
        assert len(points) == len(wanted)
        assert len(joined_faces) == len(faces)
        for some, others in ((points, wanted), (wanted, points)):
            assert cKDTree(some).query(others)[0].max() < 0.002 * max(VOXEL)
        assert volume_of(points, joined_faces) == pytest.approx(volume_of(wanted, faces), rel=1e-4)
        for _, level in levels:
            assert is_closed(joined(level)[1]), "no seams, no holes"


def test_each_level_of_detail_lies_in_its_octree(tmp_path, in_process, small_nodes):
    labels = neurites((40, 70, 90))
    labels[20, 30, 40] = 77  # vanishes on coarser scales
    root = run(tmp_path, labels)
    meshes = Meshes(root / "mesh")
    for label in np.unique(labels[labels > 0]).tolist():
        levels = meshes.levels(label)
        true_nm3 = (labels == label).sum() * math.prod(VOXEL)
        details = [detail for detail, _ in levels]
        assert details == [30, 30, 30, 60, 120, 240][: len(details)]
        finer = set()
        for lod, (_, nodes) in enumerate(levels):
            positions = [position for position, *_ in nodes]
            assert len(set(positions)) == len(positions)
            codes = octree.z_order(np.array(positions))
            assert (np.diff(codes.astype(np.int64)) > 0).all()
            assert {tuple(p // 2 for p in position) for position in finer} <= set(positions)
            finer = set(positions)
            for _, steps, _, faces in nodes:
                if steps is None or lod == 0:
                    continue
                middle = (2**16 - 1) / 2
                corners = steps[faces]
                crossing = (corners.min(axis=1) < middle - 1) & (corners.max(axis=1) > middle + 1)
                assert not crossing.any(), "no triangle crosses the middle of its node"
        if label != 77:
            for lod, tolerance in ((0, 0.06), (1, 0.15)):
                points, faces = joined(levels[lod][1])
                assert volume_of(points, faces) == pytest.approx(true_nm3, rel=tolerance)
    assert len(meshes.levels(77)) == 1
    assert meshes.stored(FAR + 999) is None


def test_meshes_in_many_shards(tmp_path, in_process, monkeypatch):
    monkeypatch.setattr(sharded, "_SHARD_KEYS", 4)
    monkeypatch.setattr(sharded, "_MINISHARD_KEYS", 2)
    labels = np.arange(1, 28, dtype=np.uint64).reshape(3, 3, 3)
    labels = (labels + FAR).repeat(5, 0).repeat(5, 1).repeat(5, 2)
    root = run(tmp_path, labels)
    meshes = Meshes(root / "mesh")
    assert meshes.info["sharding"]["shard_bits"] == 3
    assert len(list((root / "mesh").glob("*.shard"))) == 8
    for label in range(FAR + 1, FAR + 28):
        points, faces = joined(meshes.levels(label)[0][1])
        assert is_closed(faces)
        z, y, x = (np.argwhere(labels == label).mean(axis=0) + 0.5 + OFFSET) * VOXEL
        assert (points.min(axis=0) + points.max(axis=0)) / 2 == pytest.approx([x, y, z], abs=0.1)


def test_by_workers_interrupted_and_resumed(tmp_path, monkeypatch, capsys):
    labels = neurites((20, 30, 40), far=0).astype(np.int32)
    store(tmp_path, labels)
    command = [
        "export-precomputed", "-f", f"{tmp_path}/cell.zarr", "-d", "labels", "-o", f"{tmp_path}/out",
        "-n", "1",
    ]  # fmt: skip

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(manifests, "_table", killed)
        assert main(command) == 130
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*.part")}
    assert before
    assert main(command) == 0
    told = capsys.readouterr().out
    assert "scale 6_6_30: already complete" in told
    assert "incasem view -f" in told
    assert not list((tmp_path / "out").rglob("*.part")), "what is no longer needed is gone"
    assert (read(tmp_path / "out", 0)[0] == labels).all()
    assert Meshes(tmp_path / "out/mesh").levels(1)
    content = {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert main(command) == 0
    assert "mesh: already complete" in capsys.readouterr().out
    assert content == {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}


def test_empty_labels_and_one_object(tmp_path, in_process):
    for name, value in (("nothing", 0), ("one", 9)):
        store(tmp_path, np.full((5, 6, 7), value, np.uint16), name=name)
        root = tmp_path / name
        export_precomputed(PrecomputedOptions(tmp_path / "cell.zarr", name, root), num_workers=1)
        stored, _ = read(root, 0)
        assert stored.dtype == np.uint32
        assert (stored == value).all()
        ids = json.loads((root / "segment_properties/info").read_text())["inline"]["ids"]
        assert ids == ([str(value)] if value else [])
    points, faces = joined(Meshes(tmp_path / "one/mesh").levels(9)[0][1])
    assert volume_of(points, faces) == pytest.approx(5 * 6 * 7 * math.prod(VOXEL), rel=0.2)


def test_one_section_is_halved_in_its_plane(tmp_path, in_process, monkeypatch):
    monkeypatch.setattr(layout_module, "SMALLEST_SCALE", 100)
    labels = np.repeat(np.arange(1, 101, dtype=np.uint32).reshape(1, 10, 10), 8, 1).repeat(8, 2)
    root = run(tmp_path, labels)
    keys = [scale["key"] for scale in json.loads((root / "info").read_text())["scales"]]
    assert keys == ["6_6_30", "12_12_30", "24_24_30", "48_48_30", "96_96_30"][: len(keys)]
    assert (read(root, 2)[0][:, 2:-2, 2:-2] > 0).all()
    points, faces = joined(Meshes(root / "mesh").levels(55)[0][1])
    assert is_closed(faces)
    assert points[:, 2].min() < OFFSET[0] * 30 + 15 < points[:, 2].max()


@pytest.mark.parametrize(
    ("array", "options", "error", "message"),
    [
        (np.zeros((4, 4, 4), np.float32), {}, DataError, "integers"),
        (np.zeros((2, 4, 4, 4), np.uint32), {}, DataError, "three|channel|axes"),
        (np.zeros((4, 4, 4), np.uint32), {"dataset": "lables"}, DataError, "labels"),
        (np.zeros((4, 4, 4), np.uint32), {"mesh_scale": 3}, ConfigError, "mesh_scale"),
        (np.zeros((4, 4, 4), np.uint32), {"mesh_scale": -1}, ConfigError, "mesh_scale"),
    ],
)
def test_bad_input_makes_nothing(tmp_path, in_process, array, options, error, message):
    with pytest.raises(error, match=message):
        run(tmp_path, array, **options)
    assert not (tmp_path / "out").exists()


def test_negative_labels_are_named(tmp_path):
    labels = np.zeros((4, 4, 4), np.int64)
    labels[1, 2, 3] = -5
    with pytest.raises(FailedBlocksError, match="-5"):
        run(tmp_path, labels, meshes=False)


def test_folders_of_others_and_other_labels_are_refused(tmp_path, in_process):
    labels = neurites((6, 7, 8))
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.txt").write_text("")
    with pytest.raises(DataError, match="not empty"):
        run(tmp_path, labels, meshes=False)
    (tmp_path / "out/thesis.txt").unlink()
    run(tmp_path, None, meshes=False)
    with pytest.raises(DataError, match="other settings"):
        run(tmp_path, None, meshes=True)
    store(tmp_path, labels, name="others")
    with pytest.raises(DataError, match="source"):
        run(tmp_path, None, dataset="others", meshes=False)


def test_two_commands_on_one_folder(tmp_path, in_process):
    run(tmp_path, neurites((6, 7, 8)), meshes=False)
    with held(tmp_path / "out/.incasem.lock"), pytest.raises(DataError, match="another job works"):
        run(tmp_path, None, meshes=False)


def test_what_states_no_voxel_size_is_asked_for_it(tmp_path, in_process):
    import h5py

    with h5py.File(tmp_path / "seg.h5", "w") as file:
        file["main"] = np.ones((4, 5, 6), np.uint32)
    options = PrecomputedOptions(tmp_path / "seg.h5", "main", tmp_path / "out", meshes=False)
    with pytest.raises(DataError, match="--resolution"):
        export_precomputed(options, num_workers=1)
    given_size = PrecomputedOptions(
        tmp_path / "seg.h5", "main", tmp_path / "out", resolution=(29, 6, 6), meshes=False
    )
    export_precomputed(given_size, num_workers=1)
    assert json.loads((tmp_path / "out/info").read_text())["scales"][0]["resolution"] == [6, 6, 29]


def test_of_very_many_segments_the_largest_are_listed(tmp_path, monkeypatch):
    monkeypatch.setattr(properties, "MOST_LISTED", 3)
    table = np.zeros(5, scales.COUNT)
    table["id"], table["voxels"] = [1, 2, 2**50, 4, 2**60], [5, 9, 2**40, 1, 7]
    assert properties.write_properties(tmp_path, table, VOXEL) == 3
    inline = json.loads((tmp_path / "segment_properties/info").read_text())["inline"]
    assert inline["ids"] == ["2", str(2**50), str(2**60)]
    assert inline["properties"][0]["data_type"] == "float32", "what uint32 cannot hold"


def test_without_the_package_for_meshes(tmp_path, in_process, monkeypatch):
    store(tmp_path, np.ones((4, 4, 4), np.uint32))

    def missing(name):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(draco.importlib, "import_module", missing)
    with pytest.raises(ConfigError, match=r"viewers.*--no_meshes"):
        run(tmp_path, None)
    assert not (tmp_path / "out").exists()
    run(tmp_path, None, meshes=False)


def test_killed_at_any_moment_it_ends_with_the_same_files(tmp_path, in_process):
    labels = neurites((40, 60, 70))
    store(tmp_path, labels)
    options = PrecomputedOptions(tmp_path / "cell.zarr", "labels", tmp_path / "undisturbed")
    export_precomputed(options, num_workers=1)
    out = tmp_path / "killed"
    command = [
        sys.executable, "-m", "incasem", "export-precomputed", "-f", str(tmp_path / "cell.zarr"),
        "-d", "labels", "-o", str(out), "-n", "1",
    ]  # fmt: skip
    for moment in ("6_6_30/.incasem/counts/block_*.npy", "mesh/.incasem/lod_0/*.part"):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not list(out.glob(moment)):
            assert process.poll() is None, "it ended before it was killed"
            time.sleep(0.01)
        process.kill()
        process.wait()
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "scale 6_6_30: already complete" in done.stdout
    assert shown_files(out) == shown_files(tmp_path / "undisturbed")


def shown_files(root):
    return {
        str(p.relative_to(root)): p.read_bytes()
        for p in root.rglob("*")
        if p.is_file() and ".incasem" not in p.parts
    }
