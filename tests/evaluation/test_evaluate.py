"""`incasem evaluate`: exact for any blocks, resumed, and right about what was never predicted."""

import csv
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from incasem.blockwise import run_in_process
from incasem.cli import main
from incasem.errors import ConfigError, DataError, FailedBlocksError
from incasem.evaluation import evaluate
from incasem.evaluation.evaluate import EvaluateOptions, open_inputs, prepare_evaluation, read_sweep
from incasem.metrics import ThresholdSweep
from incasem.volumes import create_volume

SHAPE = (19, 22, 25)
RNG = np.random.default_rng(0)
LABELS = (RNG.random((24, 26, 28)) > 0.7).astype(np.uint32) * 9
NOISE = RNG.normal(0, 0.2, SHAPE)
# The prediction begins at voxel (2, 1, 3) of the labels.
TRUTH = LABELS[2:21, 1:23, 3:28] != 0
PROBABILITIES = np.clip(np.where(TRUTH, 0.7, 0.3) + NOISE, 0, 1)
MASK = RNG.integers(0, 4, LABELS.shape).astype(np.uint8)
ZONE = RNG.integers(0, 4, LABELS.shape).astype(np.uint8) * 255
COUNTED = (MASK != 0)[2:21, 1:23, 3:28] & (ZONE != 0)[2:21, 1:23, 3:28]
GROUP = "volumes/predictions/train_0001/predict_0001"


def store(path, array, offset=(0, 0, 0), voxel_size=(5, 4, 4), **attributes):
    volume = create_volume(
        path, shape=array.shape, dtype=array.dtype, voxel_size=voxel_size, attributes=attributes,
        offset_nm=tuple(o * v for o, v in zip(offset, voxel_size, strict=True)), chunk_shape=(8, 8, 8),
    )  # fmt: skip
    volume.write_voxels(volume.roi_voxels, array)


@pytest.fixture(scope="module")
def cell(tmp_path_factory):
    file = tmp_path_factory.mktemp("evaluate") / "cell.zarr"
    store(file / "volumes/labels/er", LABELS)
    store(file / "volumes/mask", MASK)
    store(file / "volumes/zone", ZONE)
    place = {"offset": (2, 1, 3)}
    store(file / "bytes", np.rint(PROBABILITIES * 255).astype(np.uint8), **place)
    store(file / "floats", PROBABILITIES.astype(np.float32), **place)
    store(file / "segmentation", (PROBABILITIES > 0.4).astype(np.uint8) * 2, **place)
    return file


def options(cell, prediction="bytes", **kwargs):
    return EvaluateOptions(
        str(cell / "volumes/labels/er"), str(cell / prediction),
        **{"masks": (str(cell / "volumes/mask"), str(cell / "volumes/zone")), **kwargs},
    )  # fmt: skip


def expected(prediction, thresholds, region=np.s_[:, :, :]):
    values = {
        "bytes": np.rint(PROBABILITIES * 255).astype(np.uint8),
        "floats": PROBABILITIES.astype(np.float32),
    }[prediction]
    sweep = ThresholdSweep(thresholds)
    sweep.add(values[region], TRUTH[region], COUNTED[region])
    return sweep.counts


@settings(max_examples=8)
@given(data=st.data())
def test_any_blocks_give_the_counts_of_the_whole(cell, tmp_path_factory, data):
    name = data.draw(st.sampled_from(["bytes", "floats"]))
    thresholds = sorted(data.draw(st.sets(st.floats(0, 1, width=16), min_size=1, max_size=4)))
    padding = data.draw(st.tuples(*[st.integers(0, 5)] * 3))
    asked = options(
        cell, name, thresholds=thresholds, roi_padding=padding, out_directory=tmp_path_factory.mktemp("out")
    )
    job, counts = prepare_evaluation(
        asked, open_inputs(asked), data.draw(st.tuples(*[st.integers(6, 30)] * 3))
    )
    run_in_process(job)
    region = tuple(slice(p, n - p) for p, n in zip(padding, SHAPE, strict=True))
    np.testing.assert_array_equal(read_sweep(asked, counts).counts, expected(name, thresholds, region))


def test_the_published_command_writes_table_json_csv_and_page(cell, tmp_path, capsys):
    words = [
        "-l", str(cell / "volumes/labels/er"), "-p", str(cell / "bytes"), "-n", "1",
        "--mask", str(cell / "volumes/mask"), "--metric_mask", str(cell / "volumes/zone"),
        "--metric", "dice", "-o", str(tmp_path / "out"),
        "--threshold_start", "0.3", "--threshold_stop", "0.7", "--threshold_step", "0.1",
    ]  # fmt: skip
    assert main(["evaluate", *words]) == 0
    text = capsys.readouterr().out
    assert "best F1" in text
    assert "roi_padding 0 0 0 (all of it was predicted)" in text
    record = json.loads((tmp_path / "out/scores.json").read_text())
    rows = list(csv.DictReader((tmp_path / "out/scores.csv").read_text().splitlines()))
    assert [float(row["threshold"]) for row in rows] == [0.3, 0.4, 0.5, 0.6, 0.7]
    sweep = ThresholdSweep([0.3, 0.4, 0.5, 0.6, 0.7])
    sweep.add_counts(expected("bytes", [0.3, 0.4, 0.5, 0.6, 0.7]))
    f1 = [at.scores.f1 for at in sweep.scores()]
    assert [float(row["f1"]) for row in rows] == f1
    assert record["best"]["score"] == max(f1)
    assert record["voxels"] == int(COUNTED.sum())
    assert 0.5 < record["average_precision"] < 1
    page = (tmp_path / "out/report.html").read_text()
    assert "Scores over the threshold" in page
    assert "Precision and recall" in page
    assert "Slowest blocks" in page
    assert "<h2>Blocks</h2>" in page
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "report.html", "report.png", "scores.csv", "scores.json"
    ]  # fmt: skip


def test_a_segmentation_is_scored_class_by_class(cell, tmp_path, capsys):
    words = [
        "-l",
        str(cell / "volumes/labels/er"),
        "-p",
        str(cell / "segmentation"),
        "-n",
        "1",
        "-o",
        str(tmp_path),
    ]
    for arguments, jaccard in ((["--class_id", "2"], None), (["--class_id", "1"], 0.0)):
        assert main(["evaluate", *words, *arguments, "--threshold_start", "0.1"]) == 0
        (row,) = json.loads((tmp_path / "scores.json").read_text())["thresholds"]
        found = PROBABILITIES > 0.4
        assert row["jaccard"] == (
            jaccard if jaccard is not None else pytest.approx((found & TRUTH).sum() / (found | TRUTH).sum())
        )
    capsys.readouterr()
    assert (
        main(["evaluate", *words[:2], "-p", str(cell / "bytes"), "--class_id", "1"]) == ConfigError.exit_code
    )


def test_the_shell_of_a_published_prediction_is_not_scored(tmp_path):
    """Defect I: the default of 46 scored a shell of zeros. Ours have no shell."""
    cell = tmp_path / "cell.zarr"
    shape = (100, 99, 98)
    labels = np.ones(shape, np.uint32)
    store(cell / "volumes/labels/er", labels)
    inner = np.zeros(shape, np.float32)
    inner[47:-47, 47:-47, 47:-47] = 1
    store(cell / GROUP / "prob_maps/class_1", inner)
    asked = EvaluateOptions(str(cell / "volumes/labels/er"), str(cell / GROUP / "prob_maps/class_1"))
    opened = open_inputs(asked)
    assert tuple(opened.roi_voxels.shape) == (6, 5, 4)
    assert "never written" in opened.padding_reason
    store(
        cell / GROUP / "segmentation",
        inner.astype(np.uint8),
        incasem={"job": "predict", "identity": {"tiling": "aligned"}, "region": {}},
    )
    assert tuple(open_inputs(asked).roi_voxels.shape) == shape


def test_an_interrupted_evaluation_goes_on(cell, tmp_path, monkeypatch):
    asked = options(cell, out_directory=tmp_path)
    job, counts = prepare_evaluation(asked, open_inputs(asked), (8, 22, 25))
    rows = counts.shape[0]
    assert rows == 3
    run_in_process(job)
    again, same = prepare_evaluation(asked, open_inputs(asked), (8, 22, 25))
    assert same.path == counts.path
    assert again.identity == job.identity
    other = prepare_evaluation(options(cell, thresholds=(0.4,), out_directory=tmp_path), open_inputs(asked))[
        1
    ]
    assert other.path != counts.path


def test_bad_input(cell, tmp_path):
    def run(**kwargs):
        fields = {
            "labels": str(cell / "volumes/labels/er"),
            "prediction": str(cell / "bytes"),
            "out_directory": tmp_path / "out",
        }
        return evaluate.evaluate(EvaluateOptions(**{**fields, **kwargs}), num_workers=1, progress=False)

    with pytest.raises(ConfigError, match="less than half"):
        run(roi_padding=(9, 11, 12))
    with pytest.raises(ConfigError, match="roi_padding is"):
        run(roi_padding=(-1, 0, 0))
    with pytest.raises(ConfigError, match="thresholds is"):
        run(thresholds=(0.5, 0.4))
    with pytest.raises(DataError, match=r"'volumes/labels/err' is not in .* Did you mean"):
        run(labels=str(cell / "volumes/labels/err"))
    with pytest.raises(DataError, match="integers"):
        run(labels=str(cell / "floats"))
    store(tmp_path / "o.zarr/far", LABELS, offset=(500, 0, 0))
    with pytest.raises(DataError, match="an overlap with the prediction's region"):
        run(labels=str(tmp_path / "o.zarr/far"))
    store(tmp_path / "o.zarr/coarse", LABELS, voxel_size=(8, 8, 8))
    with pytest.raises(DataError, match="voxel size"):
        run(masks=(str(tmp_path / "o.zarr/coarse"),))
    assert not (tmp_path / "out").exists()


def test_nothing_to_count_and_no_probabilities(cell, tmp_path):
    store(tmp_path / "o.zarr/empty", np.zeros(LABELS.shape, np.uint8))
    fields = {"labels": str(cell / "volumes/labels/er"), "out_directory": tmp_path / "out"}
    with pytest.raises(DataError, match="some voxels to count"):
        evaluate.evaluate(
            EvaluateOptions(
                prediction=str(cell / "bytes"), masks=(str(tmp_path / "o.zarr/empty"),), **fields
            ),
            num_workers=1, progress=False,
        )  # fmt: skip
    store(tmp_path / "o.zarr/logits", np.full(SHAPE, 3, np.float32))
    with pytest.raises(FailedBlocksError, match="outside 0 to 1"):
        evaluate.evaluate(
            EvaluateOptions(prediction=str(tmp_path / "o.zarr/logits"), **fields),
            num_workers=1,
            progress=False,
        )
