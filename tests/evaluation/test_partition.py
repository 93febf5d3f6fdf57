"""`incasem evaluate-segmentation`: exact for any blocks, several in one pass, and places to look at."""

import csv
import json
import subprocess
import sys
from dataclasses import replace

import h5py
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import adapted_rand_error, variation_of_information

from incasem.blockwise import run_in_process
from incasem.errors import ConfigError, DataError, FailedBlocksError
from incasem.evaluation import partition
from incasem.evaluation.partition import evaluate_segmentations, gather, prepare
from incasem.evaluation.partition_inputs import PartitionOptions, open_inputs
from incasem.evaluation.partition_report import table
from incasem.metrics import PartitionAccumulator
from incasem.metrics.boundaries import ball_offsets, boundaries, boundary_scores, count_boundaries, reach
from incasem.phantom import NEURON_IDS, make_neurites
from incasem.volumes import create_volume

SHAPE = (16, 26, 30)
VOXEL_NM = (8.0, 4.0, 4.0)
TRUTH = make_neurites(SHAPE, 3, (30, 30, 30)).labels[NEURON_IDS].astype(np.uint64)
TRUTH[:3, :4] = 0
RNG = np.random.default_rng(0)
MASK = RNG.integers(0, 5, SHAPE).astype(np.uint8)
# Begins at voxel (2, 1, 3) and ends beyond the truth.
PLACE, SIZE = (2, 1, 3), (14, 25, 29)


def segmentation(seed):
    """Merge and cut the objects at random; ids beyond 2³² with gaps, some background."""
    rng = np.random.default_rng(seed)
    padded = np.pad(TRUTH, ((0, 0), (0, 0), (0, 4)), mode="edge")
    ids = padded[tuple(slice(b, b + n) for b, n in zip(PLACE, SIZE, strict=True))]
    merged = rng.integers(0, ids.max() // 2 + 1, int(ids.max()) + 1).astype(np.uint64)[ids]
    halves = (np.arange(SIZE[2]) > rng.integers(5, 25)).astype(np.uint64)
    found = merged + halves * np.uint64(100)
    return np.where(found == 5, np.uint64(0), found * np.uint64(2**35) + np.uint64(found.max()))


def store(path, array, offset=(0, 0, 0), voxel_size=VOXEL_NM, **attributes):
    volume = create_volume(
        path, shape=array.shape, dtype=array.dtype, voxel_size=voxel_size, attributes=attributes,
        offset_nm=tuple(o * v for o, v in zip(offset, voxel_size, strict=True)), chunk_shape=(8, 8, 8),
    )  # fmt: skip
    volume.write_voxels(volume.roi_voxels, array)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    file = tmp_path_factory.mktemp("partition") / "cell.zarr"
    store(file / "volumes/labels/neuron_ids", TRUTH)
    store(file / "volumes/mask", MASK)
    store(file / "volumes/raw", RNG.integers(0, 256, SHAPE).astype(np.uint8))
    for seed in (1, 2, 3):
        store(file / f"segmentation/mean_0.{seed}", segmentation(seed), PLACE)
    return file


def options(file, *names, **fields):
    asked = {"masks": (str(file / "volumes/mask"),), "out_directory": file.parent / "out"} | fields
    paths = tuple(str(file / name) for name in names or ("segmentation/mean_0.1", "segmentation/mean_0.2"))
    return PartitionOptions(str(file / "volumes/labels/neuron_ids"), paths, **asked)


def evaluated(asked, block_shape=None):
    """Evaluate without worker processes."""
    opened = open_inputs(asked)
    job, counts = prepare(asked, opened, block_shape)
    run_in_process(job)
    return gather(asked, opened, job.grid, counts)


def common(seed):
    """Return segmentation, truth and mask where both volumes are."""
    region = tuple(slice(b, None) for b in PLACE)
    truth = TRUTH[region]
    return segmentation(seed)[:, :, : truth.shape[2]], truth, MASK[region] != 0


def edges(seed, tolerance, ignored):
    ids, truth, mask = common(seed)
    counted = mask if ignored is None else mask & (truth != ignored)
    offsets = ball_offsets(tolerance, VOXEL_NM)
    around = reach(offsets)
    full = np.pad(segmentation(seed), [(c, c) for c in around], mode="reflect")
    whole = np.pad(TRUTH, [(c, c) for c in around], mode="reflect")
    window = tuple(slice(b, b + n + 2 * c) for b, n, c in zip(PLACE, truth.shape, around, strict=True))
    part = tuple(slice(0, n + 2 * c) for n, c in zip(ids.shape, around, strict=True))
    return boundary_scores(
        count_boundaries(boundaries(full[part]), boundaries(whole[window]), counted, offsets)
    )


@settings(max_examples=10, deadline=None)
@given(
    block=st.tuples(*[st.integers(5, 32)] * 3),
    ignored=st.sampled_from([0, None, 7]),
    tolerance=st.sampled_from([0, 4, 9]),
)
def test_any_blocks_give_the_scores_of_the_whole(file, tmp_path_factory, block, ignored, tolerance):
    asked = options(
        file, ignored_truth=ignored, boundary_tolerance_nm=tolerance,
        out_directory=tmp_path_factory.mktemp("out"),
    )  # fmt: skip
    found = evaluated(asked, block)
    for seed, scored in zip((1, 2), found.scored, strict=True):
        whole = PartitionAccumulator(ignored)
        whole.add(*common(seed))
        assert scored.scores == whole.scores()
        assert scored.boundary == edges(seed, tolerance, ignored)


def test_scores_are_those_of_scikit_image(file):
    (scored,) = evaluated(options(file, "segmentation/mean_0.3")).scored
    ids, truth, mask = common(3)
    counted = mask & (truth != 0)
    ids, truth = (np.unique(a[counted], return_inverse=True)[1] + 1 for a in (ids, truth))
    merge, split = variation_of_information(ids, truth)
    error, recall, precision = adapted_rand_error(truth, ids)
    ours = scored.scores
    assert (ours.voi_split, ours.voi_merge) == pytest.approx((split, merge), abs=1e-10)
    assert ours.adapted_rand_error == pytest.approx(error, abs=1e-10)
    assert (ours.rand_precision, ours.rand_recall) == pytest.approx((precision, recall), abs=1e-10)
    assert scored.objects == len(np.unique(truth))


def test_a_group_is_all_its_segmentations_and_the_best_is_marked(file, tmp_path):
    found = evaluate_segmentations(
        options(file, "segmentation", out_directory=tmp_path), num_workers=2, progress=False
    )
    assert [one.name for one in found.scored] == ["mean_0.1", "mean_0.2", "mean_0.3"]
    errors = [one.scores.adapted_rand_error for one in found.scored]
    assert found.best == found.scored[int(np.argmin(errors))]
    starred = [line for line in table(found).splitlines() if "* best adapted Rand" in line]
    assert [line.split()[0] for line in starred] == [found.best.name]
    vois = [one.scores.voi for one in found.scored]
    by_voi = evaluated(options(file, "segmentation", metric="voi", out_directory=tmp_path / "other"))
    assert by_voi.best.name == found.scored[int(np.argmin(vois))].name
    # Nothing but the report's place is left.
    assert not list(tmp_path.glob(".tables*"))


def test_thresholds_are_in_order_of_their_values(tmp_path):
    for name in ("mean_0.35", "mean_0.5", "mean_0.4", "aff50_his256_0.10", "plain"):
        store(tmp_path / "x.zarr/segmentation" / name, np.ones((8, 8, 8), np.uint8))
    store(tmp_path / "x.zarr/segmentation/pyramid_1/s0", np.ones((8, 8, 8), np.uint8))
    group = str(tmp_path / "x.zarr/segmentation")
    opened = open_inputs(PartitionOptions(f"{group}/plain", (group,)))
    assert [volume.path.rsplit("/", 1)[1] for volume in opened.segmentations] == [
        "aff50_his256_0.10", "mean_0.35", "mean_0.4", "mean_0.5", "plain", "pyramid_1"
    ]  # fmt: skip


def test_places_of_mergers_and_splits(file, tmp_path):
    truth = np.ones((8, 8, 40), np.uint64)
    truth[:, :, 10:] = 2
    truth[:, :, 20:] = 3
    ids = np.full(truth.shape, 7, np.uint64)
    ids[:, :, 20:] = 8
    ids[:4, :, 20:] = 9
    store(tmp_path / "x.zarr/truth", truth)
    store(tmp_path / "x.zarr/ids", ids)
    asked = PartitionOptions(
        str(tmp_path / "x.zarr/truth"), (str(tmp_path / "x.zarr/ids"),), out_directory=tmp_path / "out"
    )
    found = evaluated(asked)
    (merger,), (split,) = found.mergers, found.splits
    assert (merger.offender.id, merger.offender.parts) == (7, ((1, 640), (2, 640)))
    assert merger.place.contact
    assert merger.place.voxel[2] == 9  # of the first part, at its face to the second
    assert (split.offender.id, split.offender.parts) == (3, ((8, 640), (9, 640)))
    assert split.place.voxel[0] == 4


def test_after_a_torn_chunk_is_mended_only_its_block_is_counted(file, tmp_path, monkeypatch):
    store(tmp_path / "x.zarr/ids", segmentation(1), PLACE)
    chunk = tmp_path / "x.zarr/ids/1/1/1"
    whole_chunk = chunk.read_bytes()
    chunk.write_bytes(whole_chunk[: len(whole_chunk) // 2])
    monkeypatch.setattr(partition, "_BLOCK_VOXELS", 8 * 16 * 32)
    monkeypatch.setattr(partition.shutil, "rmtree", lambda *_, **__: None)
    asked = options(tmp_path / "x.zarr", "ids", out_directory=tmp_path / "out", boundaries=False)
    asked = replace(asked, labels=str(file / "volumes/labels/neuron_ids"), masks=())
    with pytest.raises(FailedBlocksError):
        evaluate_segmentations(asked, num_workers=1, progress=False)
    tables = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("tables/*.npy")}
    chunk.write_bytes(whole_chunk)
    found = evaluate_segmentations(asked, num_workers=1, progress=False)
    assert len(list((tmp_path / "out").rglob("tables/*.npy"))) > len(tables) > 0
    assert {path: path.stat().st_mtime_ns for path in tables} == tables
    ids, truth, _ = common(1)
    whole = PartitionAccumulator()
    whole.add(ids, truth)
    assert found.scored[0].scores == whole.scores()


def test_one_object_and_all_background(file, tmp_path):
    own = tmp_path / "x.zarr"
    store(own / "one", np.ones(SHAPE, np.uint8))
    store(own / "nothing", np.zeros(SHAPE, np.int64))
    paths = (str(own / "one"), str(own / "nothing"))
    truth = str(file / "volumes/labels/neuron_ids")
    one, nothing = evaluated(PartitionOptions(truth, paths, out_directory=tmp_path / "out")).scored
    for scored in (one, nothing):
        assert scored.scores.rand_recall == 1
        assert scored.scores.voi_split == 0
        assert scored.scores.voi_merge > 1
    # As the challenge counts it, background is no segment that merges, but nothing is found.
    assert nothing.scores.adapted_rand_snemi > one.scores.adapted_rand_snemi
    asked = PartitionOptions(str(own / "nothing"), (str(own / "one"),), out_directory=tmp_path / "out")
    with pytest.raises(DataError, match="some voxels to count"):
        evaluated(asked)


def test_bad_input(file, tmp_path):
    own = tmp_path / "x.zarr"
    store(own / "floats", np.zeros(SHAPE, np.float32))
    store(own / "negative", np.full(SHAPE, -3, np.int32))
    store(own / "far", np.zeros(SHAPE, np.uint8), offset=(400, 0, 0))
    store(own / "coarse", np.zeros(SHAPE, np.uint8), voxel_size=(8, 8, 8))
    store(own / "begun", np.zeros(SHAPE, np.uint8), incasem={"begun_by": "segment"})

    def run(path, **fields):
        asked = PartitionOptions(
            str(file / "volumes/labels/neuron_ids"), (str(own / path),),
            **({"out_directory": tmp_path / "out"} | fields),
        )  # fmt: skip
        return evaluate_segmentations(asked, num_workers=1, progress=False)

    for path, message in (
        ("floats", "integers"), ("far", "an overlap"), ("coarse", "voxel size"), ("begun", "not finished"),
        ("gone", "gone"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=message):
            run(path)
    with pytest.raises(ConfigError, match="boundary_tolerance"):
        run("negative", boundary_tolerance_nm=-1)
    with pytest.raises(ConfigError, match="ignored_id is -1"):
        run("negative", ignored_truth=-1)
    with pytest.raises(ConfigError, match="worst"):
        run("negative", worst=-1)
    with pytest.raises(ConfigError, match="each once"):
        evaluate_segmentations(options(file, "segmentation", "segmentation/mean_0.1"), num_workers=1)
    assert not (tmp_path / "out").exists()
    with pytest.raises(FailedBlocksError, match="id in the segmentation is -3"):
        run("negative")


def test_files_without_a_voxel_size_take_that_of_the_others(file, tmp_path, caplog):
    """As volumes of challenges are: HDF5 or TIFF, and nothing else is said."""
    tifffile.imwrite(tmp_path / "truth.tif", TRUTH.astype(np.uint16))
    with h5py.File(tmp_path / "truth.h5", "w") as h5:
        h5["main"] = TRUTH
    wanted = evaluated(options(file, masks=(), out_directory=tmp_path / "out")).best.scores
    for name in ("truth.tif", "truth.h5/main"):
        caplog.clear()
        asked = replace(options(file, masks=(), out_directory=tmp_path / "out"), labels=str(tmp_path / name))
        assert evaluated(asked).best.scores == wanted
        assert f"{name} states no voxel size; that of {file}/segmentation/mean_0.1 is taken" in caplog.text
        assert "assumed" not in caplog.text


def test_the_command(file, tmp_path):
    words = [
        "evaluate-segmentation", "-l", str(file / "volumes/labels/neuron_ids"),
        "-s", str(file / "segmentation"), "--mask", str(file / "volumes/mask"), "-n", "1",
        "-o", str(tmp_path / "out"), "--worst", "4",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "incasem", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "* best adapted Rand" in done.stdout
    assert "worst mergers of" in done.stdout
    record = json.loads((tmp_path / "out/scores.json").read_text())
    rows = list(csv.DictReader((tmp_path / "out/scores.csv").read_text().splitlines()))
    whole = PartitionAccumulator()
    whole.add(*common(2))
    second = record["segmentations"][1]
    assert second["adapted_rand_error"] == float(rows[1]["adapted_rand_error"])
    assert second["adapted_rand_error"] == whole.scores().adapted_rand_error
    assert second["boundary_f1"] == edges(2, 8, 0).f1
    assert len(record["mergers"]) == 4
    assert record["mergers"][0]["nm"][0] == (record["mergers"][0]["voxel"][0] + 0.5) * VOXEL_NM[0]
    page = (tmp_path / "out/report.html").read_text()
    for text in ("Worst mergers", "Worst splits", "Adapted Rand error over the threshold", "Merger 1"):
        assert text in page
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "report.html", "report.png", "scores.csv", "scores.json"
    ]  # fmt: skip
    wrong = subprocess.run(
        [sys.executable, "-m", "incasem", *words[:3], "-s", str(file / "segmentations")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert wrong.returncode != 0
    assert "Did you mean" in wrong.stderr
    assert "Traceback" not in wrong.stderr
