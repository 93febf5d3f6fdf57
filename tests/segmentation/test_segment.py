import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from incasem.cli import main
from incasem.errors import ConfigError, DataError
from incasem.metrics.partition import PartitionAccumulator
from incasem.segmentation.agglomeration import SizeRules
from incasem.segmentation.fragment_settings import FragmentSettings
from incasem.segmentation.segment import SegmentOptions, segment
from incasem.volumes import open_volume
from tests.segmentation.maps import phantom, store
from tests.segmentation.plain import same_partition
from tests.segmentation.test_agglomeration import NAMES, silence

SHAPE = (32, 40, 48)
HIGH_LOW = FragmentSettings(low=0.05, high=0.995)
GROUP = "volumes/predictions/train_0001/predict_0001"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Affinities of a phantom, stored, and its neurites."""
    folder = tmp_path_factory.mktemp("map")
    values, neurites = phantom(SHAPE)
    store(folder / f"cell.zarr/{GROUP}/affinities", values, chunks=(8, 8, 8))
    return folder / "cell.zarr", values, neurites


def options(source, out, **kwargs):
    settings = {"fragments": HIGH_LOW, "scoring": "aff50_his256", "thresholds": (0.2, 0.6)}
    settings |= {"chunk_shape": (8, 8, 8)} | kwargs
    return SegmentOptions(source[0], f"{GROUP}/affinities", out_file=out, out_group="", **settings)


def arrays(out, group=""):
    """Everything that was written below ``segmentation``, and the fragments."""
    root = Path(out) / group
    names = [
        "fragments",
        *sorted(f"segmentation/{p.parent.name}" for p in root.glob("segmentation/*/.zarray")),
    ]
    volumes = [open_volume(root / name) for name in names]
    return {name: v.read_voxels(v.roi_voxels) for name, v in zip(names, volumes, strict=True)}


@pytest.fixture(scope="module")
def whole(source, tmp_path_factory):
    """The result of one block and one worker."""
    out = tmp_path_factory.mktemp("whole") / "out.zarr"
    return segment(options(source, out, block_shape=SHAPE), num_workers=1, progress=False), arrays(out)


def test_other_blocks_and_more_workers_give_the_same_bytes(source, whole, tmp_path):
    report = segment(
        options(source, tmp_path / "out.zarr", block_shape=(16, 16, 24)), num_workers=2, progress=False
    )
    made = arrays(tmp_path / "out.zarr")
    assert made.keys() == whole[1].keys()
    for name, values in made.items():
        np.testing.assert_array_equal(values, whole[1][name])
    assert [s.segments for s in report.segmentations] == [s.segments for s in whole[0].segmentations]
    assert (report.fragments, report.edges) == (whole[0].fragments, whole[0].edges)


def test_equal_to_waterz_in_memory(source, whole):
    waterz = pytest.importorskip("waterz")
    with silence():
        theirs = [
            segments.copy()
            for segments in waterz.agglomerate(
                source[1] / np.float32(255), [0.2, 0.6], fragments=whole[1]["fragments"].copy(),
                scoring_function=f"OneMinus<{NAMES['aff50_his256']}>",
            )
        ]  # fmt: skip
    for name, wanted in zip(("aff50_his256_0.2", "aff50_his256_0.6"), theirs, strict=True):
        accumulator = PartitionAccumulator(None)
        accumulator.add(whole[1][f"segmentation/{name}"], wanted)
        assert accumulator.scores().voi < 0.02


def test_the_neurites_are_found(source, whole):
    scores = []
    for name in ("fragments", "segmentation/aff50_his256_0.6"):
        accumulator = PartitionAccumulator(None)
        accumulator.add(whole[1][name], source[2])
        scores.append(accumulator.scores())
    assert scores[1].adapted_rand_error < scores[0].adapted_rand_error
    assert scores[1].voi < scores[0].voi


def test_what_is_finished_is_kept(source, whole):
    first, out = whole[0], whole[0].output
    assert list(first.seconds) == ["fragments", "edges", "agglomeration", "writing"]
    assert [s.threshold for s in first.segmentations] == [0.2, 0.6]
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    again = segment(options(source, out, scoring="hist_quant_50_initmax"), num_workers=1, progress=False)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == before
    assert again.segmentations == first.segmentations
    more = segment(options(source, out, thresholds=[0.6, 0.4]), num_workers=1, progress=False)
    assert [s.threshold for s in more.segmentations] == [0.4, 0.6]
    other = segment(options(source, out, scoring="hist_quant_50", thresholds=[0.5]), num_workers=1)
    assert other.fragments == first.fragments
    names = sorted(path.name for path in out.iterdir() if not path.name.startswith(".z"))
    assert names == ["edges.sqlite", "edges_histograms.sqlite", "fragments", "lookup", "segmentation"]
    for change, words in (
        ({"rules": SizeRules(dust=9)}, "dust: was 0, is now 9"),
        ({"fragments": FragmentSettings(low=0.1, high=0.995)}, "low: was 0.05, is now 0.1"),
    ):
        with pytest.raises(DataError, match=words):
            segment(options(source, out, **change), num_workers=1, progress=False)


def test_what_is_deleted_is_made_again(source, whole):
    out, name = whole[0].output, "aff50_his256_0.6"
    (out / "edges.sqlite").unlink()
    shutil.rmtree(out / "lookup" / name)
    shutil.rmtree(out / "segmentation" / name)
    segment(options(source, out), num_workers=1, progress=False)
    np.testing.assert_array_equal(arrays(out)[f"segmentation/{name}"], whole[1][f"segmentation/{name}"])


def test_fragments_from_elsewhere_with_sparse_ids(source, whole, tmp_path):
    ids = whole[1]["fragments"] * np.uint64(5_000_000_029)
    own = tmp_path / "own.zarr/fragments"
    store(own, ids, chunks=(8, 8, 8))
    segment(
        options(source, tmp_path / "out.zarr", own_fragments=str(own), thresholds=[0.6]),
        num_workers=1, progress=False,
    )  # fmt: skip
    made = open_volume(tmp_path / "out.zarr/segmentation/aff50_his256_0.6")
    wanted = whole[1]["segmentation/aff50_his256_0.6"] * np.uint64(5_000_000_029)
    np.testing.assert_array_equal(made.read_voxels(made.roi_voxels), wanted)


@pytest.mark.parametrize("value", [0, 255])
def test_background_and_one_object(tmp_path, value):
    values = np.full((3, 9, 9, 9), value, np.uint8)
    store(tmp_path / "a.zarr/affinities", values)
    report = segment(
        SegmentOptions(tmp_path / "a.zarr", "affinities", fragments=HIGH_LOW, chunk_shape=(4, 4, 4)),
        num_workers=1, progress=False,
    )  # fmt: skip
    made = arrays(tmp_path / "a.zarr")["segmentation/mean_0.5"]
    assert report.edges == 0
    assert np.unique(made).tolist() == ([1] if value else [0])


def test_an_empty_block_and_a_mask(tmp_path):
    values, _ = phantom(SHAPE)
    values[:, :16] = values[0, 16] = 0
    store(tmp_path / "a.zarr/affinities", values, chunks=(8, 8, 8))
    mask = np.ones(SHAPE, np.uint8)
    mask[:, :, 24:] = 0
    store(tmp_path / "a.zarr/mask", mask)
    words = ["segment", "-f", str(tmp_path / "a.zarr"), "-d", "affinities", "-n", "1", "--low", "0.05"]
    words += ["--mask", str(tmp_path / "a.zarr/mask"), "-c", "8", "8", "8", "-b", "16", "16", "16"]
    assert main(words) == 0
    made = arrays(tmp_path / "a.zarr")["segmentation/mean_0.5"]
    assert not made[:16].any()
    assert not made[:, :, 24:].any()
    assert made[17:, :, :24].any()


def test_the_command_tells_what_is_there(source, whole, capsys):
    out = whole[0].output
    words = ["segment", "-f", str(source[0]), "-d", f"{GROUP}/affinities", "-n", "1", "-c", "8", "8", "8"]
    words += ["--out_filename", str(out), "-o", "", "--low", "0.05", "--high", "0.995"]
    words += ["-s", "aff50_his256", "-t", "0.2"]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert f"segment: {whole[0].fragments:,} fragments, {whole[0].edges:,} pairs of them touch" in shown
    path = out / "segmentation/aff50_his256_0.2"
    assert f"  {path}: {whole[0].segmentations[0].segments:,} segments" in shown


def test_a_map_that_does_not_say_its_offsets(source, whole, tmp_path, capsys):
    """As HDF5 files of other programs, with any channels in any order."""
    with h5py.File(tmp_path / "result.h5", "w") as file:
        file["vol0"] = np.concatenate([source[1][::-1], source[1][:1]])
    words = ["segment", "-f", str(tmp_path / "result.h5"), "-d", "vol0", "-n", "1", "-o", ""]
    words += ["--out_filename", str(tmp_path / "out.zarr"), "-c", "8", "8", "8"]
    words += ["--low", "0.05", "--high", "0.995", "-s", "aff50_his256", "-t", "0.2"]
    assert main(words) == DataError.exit_code
    assert "by --offsets" in capsys.readouterr().err
    assert main([*words, "--offsets", *map(str, (0, 0, -1, 0, -1, 0, -1, 0, 0, -2, 0, 0))]) == 0
    found = arrays(tmp_path / "out.zarr")
    for name, wanted in whole[1].items():
        if name in found:
            np.testing.assert_array_equal(found[name], wanted)
    assert "segmentation/aff50_his256_0.2" in found


def test_by_default_all_lies_beside_the_affinities():
    assert SegmentOptions(Path("c.zarr"), "a/b/affinities").output == Path("c.zarr/a/b")
    assert SegmentOptions(Path("c.zarr"), "affinities").output == Path("c.zarr")
    assert SegmentOptions(Path("c.zarr"), "a/affinities", out_group="x").output == Path("c.zarr/x")
    with pytest.raises(DataError, match=r"Name one with --out_filename"):
        _ = SegmentOptions(Path("result.h5"), "vol0").output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-s", "aff50his256"], "Did you mean 'aff50_his256'"),
        (["-t", "1.5"], "threshold is 1.5"),
        (["-t", "0.5", "0.5"], "threshold is 0.5 0.5"),
        (["-t", "0.5", "0.50000001"], "differ in six digits"),
        (["-n", "0"], "num_workers is 0"),
        (["--min_size", "-1"], "min_size is -1"),
        (["--edge_store", "mysql://x/y"], "allowed: a file, or postgresql"),
        (["--method", "watershet"], "watershed"),
        (["--low", "2"], "low"),
        (["--offsets", "-1", "0"], "--offsets is -1 0; allowed: z y x of each channel"),
        (["--mask", "m.zarr/m", "--fragments", "f.zarr/f"], "mask is m.zarr/m; allowed: only where"),
    ],
)
def test_senseless_settings_are_refused_before_anything_is_written(source, tmp_path, capsys, words, message):
    out = tmp_path / "out.zarr"
    code = main(
        ["segment", "-f", str(source[0]), "-d", f"{GROUP}/affinities", "--out_filename", str(out), *words]
    )
    assert code == ConfigError.exit_code
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_fragments_of_a_file_that_states_no_voxel_size(tmp_path, caplog):
    values, neurites = phantom((16, 16, 16))
    store(tmp_path / "a.zarr/affinities", values, begin=(0, 0, 0))
    with h5py.File(tmp_path / "theirs.h5", "w") as file:
        file["main"] = neurites
    own = SegmentOptions(
        tmp_path / "a.zarr", "affinities", own_fragments=f"{tmp_path}/theirs.h5/main", thresholds=[0]
    )
    report = segment(own, num_workers=1, progress=False)
    found = open_volume(report.segmentations[0].path)
    np.testing.assert_array_equal(found.read_voxels(found.roi_voxels), neurites)
    assert found.voxel_size == open_volume(tmp_path / "a.zarr/affinities").voxel_size
    assert "theirs.h5/main states no voxel size" in caplog.text


@pytest.fixture(scope="module")
def flat(tmp_path_factory):
    """A map without edges between sections, and one with them."""
    values, neurites = phantom((4, 48, 64), noise=0.15)
    folder = tmp_path_factory.mktemp("flat")
    store(folder / "flat.zarr/affinities", values[1:], chunks=(2, 16, 16), offsets=[[0, -1, 0], [0, 0, -1]])
    store(folder / "deep.zarr/affinities", values, chunks=(2, 16, 16))
    return folder, values, neurites


def by_section(source, out, *words, method="watershed"):
    arguments = ["segment", "-f", str(source), "-d", "affinities", "--out_filename", str(out), "-n", "1"]
    arguments += ["--method", method, "-t", "0.4", "--low", "0.05", "--high", "0.995", "-c", "2", "16", "16"]
    arguments += ["--context", "16", *words]
    assert main(arguments) == 0
    return arrays(out)


def test_a_map_without_edges_between_sections_is_segmented_only_when_asked_to(flat, tmp_path, capsys):
    words = ["segment", "-f", str(flat[0] / "flat.zarr"), "-d", "affinities", "-n", "1"]
    out = tmp_path / "out.zarr"
    assert main([*words, "--out_filename", str(out)]) == DataError.exit_code
    assert "or segment each section by itself with --per_section" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize("method", ["watershed", "seeded", "mutex"])
def test_section_by_section_each_is_segmented_as_if_it_were_alone(flat, tmp_path, method):
    source = flat[0] / "flat.zarr"
    # Small segments have no neighbour in another section to join.
    words = ["--per_section", "--min_size", "30"]
    if method == "watershed":  # the blocks of the other methods can be seen
        made = by_section(source, tmp_path / "all.zarr", *words, "-b", "2", "32", "16", method=method)
    else:
        made = by_section(source, tmp_path / "all.zarr", *words, "-b", "2", "48", "64", method=method)
    ids = made["segmentation/mean_0.4"]
    for z, section in enumerate(ids):
        assert not np.isin(section[section > 0], np.delete(ids, z, axis=0)).any(), "ids of one section only"
    z = 2
    alone = tmp_path / "alone.zarr"
    store(alone / "affinities", flat[1][1:, z : z + 1], chunks=(1, 16, 16), offsets=[[0, -1, 0], [0, 0, -1]])
    own = by_section(alone, alone, *words, "-b", "1", "48", "64", method=method)["segmentation/mean_0.4"]
    assert same_partition(own[0], ids[z])
    if method != "mutex":  # whose pieces, from edges to direct neighbours only, are small
        score = PartitionAccumulator(None)
        truth = flat[2] + np.arange(4, dtype=np.uint64)[:, None, None] * np.uint64(1000)
        score.add(ids, truth)
        assert score.scores().adapted_rand_error < 0.3


@pytest.mark.parametrize("method", ["watershed", "seeded", "mutex"])
def test_fragments_of_sections_are_joined_across_them_where_there_are_edges(flat, tmp_path, method):
    made = by_section(flat[0] / "deep.zarr", tmp_path / "out.zarr", "--per_section", method=method)
    per_section = [set(np.unique(section[section > 0])) for section in made["fragments"]]
    assert len(set().union(*per_section)) == sum(map(len, per_section)), "each of one section"
    joined = [set(np.unique(section[section > 0])) for section in made["segmentation/mean_0.4"]]
    assert len(set().union(*joined)) < 0.7 * sum(map(len, joined)), "of several"
