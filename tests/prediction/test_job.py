import json
import math
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from incasem.blockwise import Grid, Job, run_in_process
from incasem.blockwise._lanes import work_in_lanes
from incasem.config import DataEntry, load_prediction_config
from incasem.errors import CheckpointError, ConfigError, DataError
from incasem.geometry import Coordinate, Roi
from incasem.networks import Unet, save_checkpoint
from incasem.prediction import Predictor, output_group, predict_entries, prepare_prediction
from incasem.prediction.outputs import OutputSet
from incasem.prediction.worker import PredictionWorker, PublishedSizes
from incasem.tasks.semantic import Semantic
from incasem.tasks.semantic_decoding import stored_classes
from incasem.volumes import create_volume, open_volume

VOXEL_SIZE = (5.0, 5.0, 5.0)
RAW_OFFSET = (-2, 3, 5)
RAW_SHAPE = (80, 76, 90)
ROI = Roi((0, 6, 5), (70, 70, 81))
"""Neither on the stride grid nor on that of the chunks; ends where the volume ends on the last axis."""
GROUP = output_group(1, 2)


def store(path, array, offset=RAW_OFFSET):
    volume = create_volume(
        path, shape=array.shape, dtype=array.dtype, voxel_size=VOXEL_SIZE,
        offset_nm=tuple(o * v for o, v in zip(offset, VOXEL_SIZE, strict=True)), chunk_shape=(32, 32, 32),
    )  # fmt: skip
    volume.write_voxels(volume.roi_voxels, array)


@pytest.fixture(scope="module")
def grey_values():
    return np.random.default_rng(0).integers(0, 256, RAW_SHAPE, dtype=np.uint8)


@pytest.fixture(scope="module")
def checkpoint(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "model_checkpoint_1"
    save_checkpoint(path, network, None, {})
    return path


@pytest.fixture(scope="module")
def probabilities(network, grey_values, memory_raw, reference):
    """One pass over the whole region."""
    return reference(network, memory_raw(grey_values, RAW_OFFSET), ROI)


@pytest.fixture
def cell(tmp_path, grey_values):
    store(tmp_path / "cell.zarr/volumes/raw", grey_values)
    return tmp_path / "cell.zarr"


def entry_of(file, nickname="cell", roi=ROI, **fields):
    return DataEntry(
        nickname=nickname, file=file, voxel_size=VOXEL_SIZE, offset=tuple(roi.begin), shape=tuple(roi.shape),
        raw="volumes/raw", file_as_given=file.name, **fields,
    )  # fmt: skip


@pytest.fixture
def configure(tmp_path, small_model):
    def configure(**prediction):
        settings = {"precision": "fp32", "torch.device": "cpu", "output_dtype": "float32"} | prediction
        overrides = [f"prediction.{key}={json.dumps(value)}" for key, value in settings.items()]
        overrides += [f"model.{key}={json.dumps(value)}" for key, value in small_model.items()]
        return load_prediction_config(None, [*overrides, f"directories.data={tmp_path}"])

    return configure


@pytest.fixture
def predict(configure, checkpoint):
    def predict(*entries, num_workers=1, **prediction):
        return predict_entries(
            configure(**prediction), entries, checkpoint=checkpoint, output_group=GROUP,
            num_workers=num_workers, progress=False,
        )  # fmt: skip

    return predict


@pytest.fixture
def in_process(monkeypatch):
    """The same blocks without worker processes, whose start takes seconds."""

    def run_stage(job, output, num_workers, progress):
        return run_in_process(job)

    monkeypatch.setattr("incasem.prediction.job.run_stage", run_stage)


def read(path):
    volume = open_volume(path)
    return volume.read_voxels(volume.roi_voxels)


def prob_maps(result):
    return np.stack([read(path) for path in result.others])


def test_the_whole_region_equals_one_pass_and_lies_where_the_guide_says(cell, predict, probabilities):
    (result,) = predict(entry_of(cell), block_size_voxels=[64, 64, 64], num_workers=2)

    assert result.folder == cell / "volumes/predictions/train_0001/predict_0002"
    assert [str(p.relative_to(result.folder)) for p in result.others] == [
        "prob_maps/class_0", "prob_maps/class_1",
    ]  # fmt: skip
    np.testing.assert_allclose(prob_maps(result), probabilities, rtol=0, atol=1e-6)
    segmentation = open_volume(result.main)
    assert segmentation.roi_voxels == ROI
    assert segmentation.dtype == np.uint8
    assert segmentation.offset_nm == (0.0, 30.0, 25.0)
    differing = read(result.main) != probabilities.argmax(axis=0)
    assert np.abs(probabilities[0] - probabilities[1])[differing].max(initial=0) < 1e-5
    assert result.report.blocks_done == 8
    assert str(result.folder) in result.summary()
    assert not (result.main / ".incasem").exists(), "a finished job leaves no marks behind"

    (again,) = predict(entry_of(cell), num_workers=1)
    assert again.report.blocks_done == 0


@pytest.mark.usefixtures("in_process")
def test_probabilities_of_one_byte_are_within_one_step(cell, predict, probabilities):
    (result,) = predict(entry_of(cell), output_dtype="uint8")

    assert [path.name for path in result.others] == ["class_1"]
    stored = prob_maps(result)
    assert stored.dtype == np.uint8
    assert np.abs(stored - probabilities[1:] * 255).max() <= 0.5 + 1e-3


def run_in_any_order(job, lanes, seed):
    """The job's blocks, in lanes and in an order of chance, as workers on several machines would do them."""
    blocks = list(job.grid.blocks())
    random.Random(seed).shuffle(blocks)
    left, lock = iter(blocks), threading.Lock()

    def serve(one_block):
        while True:
            with lock:
                block = next(left, None)
            if block is None:
                return
            one_block(block)

    work_in_lanes(job.start_worker(), lanes, serve)


@settings(deadline=None, max_examples=12)
@given(data=st.data())
def test_no_cut_into_blocks_and_tiles_shows_in_the_result(
    data, tmp_path_factory, grey_values, checkpoint, small_model, probabilities
):
    file = tmp_path_factory.mktemp("cut") / "cell.zarr"
    store(file / "volumes/raw", grey_values)
    raw = open_volume(file / "volumes/raw")
    begin = [data.draw(st.integers(b, e - 1)) for b, e in zip(ROI.begin, ROI.end, strict=True)]
    roi = Roi(begin, [data.draw(st.integers(1, e - b)) for b, e in zip(begin, ROI.end, strict=True)])
    target = file if data.draw(st.booleans(), label="Zarr v2") else file.with_name("sharded.zarr")
    if target != file:
        create_volume(target / "x", shape=(2, 2, 2), dtype=np.uint8, voxel_size=VOXEL_SIZE, zarr_format=3)
    output_type = data.draw(st.sampled_from(["float32", "uint8"]))
    outputs = OutputSet(target / "prediction", roi, VOXEL_SIZE, Semantic(2), output_type)
    volumes = outputs.open()
    units = data.draw(st.tuples(*[st.integers(1, 2)] * 3))
    worker = PredictionWorker(
        model=small_model, checkpoint=checkpoint, devices=["cpu"], precision="fp32",
        tile_shape=Coordinate(data.draw(st.tuples(*[st.integers(16, 90)] * 3))),
        published=None, raw=raw, mask=None, outputs=volumes, task=Semantic(2),
        output_dtype=output_type,
    )  # fmt: skip
    block = outputs.write_shape * Coordinate(units)
    grid = Grid(roi, block, Coordinate(13, 21, 21))
    job = Job("predict", grid, worker, identity={}, state_dir=file / "state")
    run_in_any_order(job, data.draw(st.integers(1, 3), label="lanes"), data.draw(st.integers(0, 9)))

    place = (roi - ROI.begin).to_slices()
    scale, tolerance = (1, 1e-6) if output_type == "float32" else (255, 0.5 + 1e-3)
    for c in stored_classes(2, output_type):
        stored = read(target / f"prediction/prob_maps/class_{c}")
        np.testing.assert_allclose(stored, probabilities[(c, *place)] * scale, rtol=0, atol=tolerance)
    shutil.rmtree(file.parent)


@pytest.mark.usefixtures("in_process")
def test_nothing_is_predicted_outside_the_mask_whatever_the_blocks(cell, predict, probabilities):
    mask = np.zeros(RAW_SHAPE, np.uint8)
    mask[40:68, 10:60, 20:60] = 255
    store(cell / "volumes/mask", mask)
    inside = mask[(ROI - Coordinate(RAW_OFFSET)).to_slices()] != 0
    entry = entry_of(cell, mask="volumes/mask")

    (result,) = predict(entry, block_size_voxels=[64, 64, 64])

    assert result.report.blocks_skipped == 6
    np.testing.assert_allclose(prob_maps(result), probabilities * inside, rtol=0, atol=1e-6)
    assert not read(result.main)[~inside].any()
    one_block = prob_maps(result)
    shutil.rmtree(result.folder)
    (result,) = predict(entry, block_size_voxels=[128, 128, 128])
    assert result.report.blocks_skipped == 0
    np.testing.assert_allclose(prob_maps(result), one_block, rtol=0, atol=1e-6)


@pytest.mark.usefixtures("in_process")
def test_several_regions_of_one_file_get_folders_of_their_own(cell, predict, probabilities):
    first, second = Roi(ROI.begin, (20, 70, 81)), Roi((10, 8, 9), (30, 40, 50))
    results = predict(entry_of(cell, "left", first), entry_of(cell, "right", second))

    for result, roi, name in zip(results, (first, second), ("left", "right"), strict=True):
        assert result.folder == cell / GROUP / name
        place = (roi - ROI.begin).to_slices()
        np.testing.assert_allclose(prob_maps(result), probabilities[(slice(None), *place)], rtol=0, atol=1e-6)


@pytest.mark.usefixtures("in_process")
def test_an_hdf5_file_gets_a_zarr_container_beside_it(tmp_path, predict, grey_values):
    with h5py.File(tmp_path / "cell.h5", "w") as file:
        file["volumes/raw"] = grey_values
        file["volumes/raw"].attrs["resolution"] = VOXEL_SIZE
        file["volumes/raw"].attrs["offset"] = [o * 5 for o in RAW_OFFSET]
    before = (tmp_path / "cell.h5").read_bytes()
    (result,) = predict(entry_of(tmp_path / "cell.h5", roi=Roi((0, 6, 5), (9, 9, 9))))

    assert result.folder == tmp_path / "cell.zarr" / GROUP
    assert "Zarr container beside it" in result.summary()
    assert (tmp_path / "cell.h5").read_bytes() == before


@pytest.mark.usefixtures("in_process")
def test_plan_and_gaps_are_told_before_the_work(cell, configure, checkpoint, caplog):
    next((cell / "volumes/raw").glob("1/1/1")).unlink()
    lines = []
    predict_entries(
        configure(), [entry_of(cell, roi=Roi((20, 25, 30), (20, 20, 20)))], checkpoint=checkpoint,
        output_group=GROUP, num_workers=1, progress=False, tell=lines.append,
    )  # fmt: skip

    assert lines[0].startswith("cell: 1 block of 20×20×20 voxels")
    assert "1 chunks of" in caplog.text
    assert "the first at [30:62, 35:67, 37:69]" in caplog.text


@pytest.mark.usefixtures("in_process")
def test_the_output_directory_may_be_another_one(cell, predict, tmp_path):
    (result,) = predict(
        entry_of(cell, roi=Roi((0, 6, 5), (9, 9, 9))), **{"directories.prefix": str(tmp_path / "results")}
    )
    assert result.folder == tmp_path / "results/cell.zarr" / GROUP


def test_the_published_tiling_leaves_the_shell_empty(tmp_path, grey_values, checkpoint, small_model, network):
    store(tmp_path / "cell.zarr/volumes/raw", grey_values)
    size = (40, 60, 60)
    roi = Roi(ROI.begin, (60, 64, 75))
    outputs = OutputSet(tmp_path / "cell.zarr/prediction", roi, VOXEL_SIZE, Semantic(2), "float32")
    volumes = outputs.open()
    worker = PredictionWorker(
        model=small_model, checkpoint=checkpoint, devices=["cpu"], precision="fp32",
        tile_shape=Coordinate(8, 8, 8), output_dtype="float32", mask=None, outputs=volumes,
        task=Semantic(2),
        published=PublishedSizes(roi, Coordinate(size), network.output_shape(size)),
        raw=open_volume(tmp_path / "cell.zarr/volumes/raw"),
    )  # fmt: skip
    grid = Grid(roi, Coordinate(64, 64, 64))
    run_in_process(Job("predict", grid, worker, identity={}, state_dir=tmp_path / "state"))

    total = sum(read(tmp_path / f"cell.zarr/prediction/prob_maps/class_{c}") for c in range(2))
    inner = tuple(slice(c, s - c) for c, s in zip(network.context_voxels, roi.shape, strict=True))
    np.testing.assert_allclose(total[inner], 1, atol=1e-5)
    total[inner] = 0
    assert not total.any()


def test_an_unfit_checkpoint_is_refused_before_anything_is_written(
    cell, configure, tmp_path, make_network
):  # fmt: skip
    other = tmp_path / "other"
    save_checkpoint(other, make_network(num_fmaps=4), None, {})
    for path in (tmp_path / "missing", other):
        with pytest.raises(CheckpointError):
            predict_entries(configure(), [entry_of(cell)], checkpoint=path, output_group=GROUP)
    assert not (cell / "volumes/predictions").exists()


def test_bad_input_is_refused_before_anything_is_written(cell, predict, grey_values):
    good = entry_of(cell, "good", Roi((0, 6, 5), (9, 9, 9)))
    store(cell / "volumes/mask", grey_values[:5, :5, :5], offset=(500, 500, 500))
    outside = Roi((0, 6, 5), (9, 9, 900))
    for bad, error, message in (
        (entry_of(cell, "bad", outside), DataError, "region of 'bad'"),
        (entry_of(cell, "bad", mask="volumes/mask"), DataError, "the place of .*mask"),
        (entry_of(cell, "bad", mask="volumes/mosk"), DataError, "mosk"),
        (entry_of(cell, "bad", labels={"volumes/raw": 1, "volumes/mask": 2}), ConfigError, "bad.labels"),
    ):
        with pytest.raises(error, match=message):
            predict(good, bad)
    with pytest.raises(ConfigError, match="block_size_voxels"):
        predict(entry_of(cell), block_size_voxels=[60, 60, 60])
    with pytest.raises(ConfigError, match=r"prediction\.input_size_voxels is \[110, 108, 108\]"):
        predict(entry_of(cell), input_size_voxels=[110, 108, 108])
    with pytest.raises(ConfigError, match=r"fp32 or bf16 with prediction\.backend=openvino"):
        predict(entry_of(cell), backend="openvino", precision="fp16")
    with pytest.raises(DataError, match=r"prediction\.tiling=published"):
        predict(good, tiling="published", input_size_voxels=[40, 60, 60], output_size_voxels=[14, 18, 18])
    assert not (cell / "volumes/predictions").exists()


def test_an_output_of_another_shape_stays_as_it_is(cell, predict, checkpoint):
    small = Roi((0, 6, 5), (9, 9, 9))
    (result,) = predict(entry_of(cell, roi=small))
    before = prob_maps(result)
    with pytest.raises(DataError, match="shape"):
        predict(entry_of(cell, roi=Roi((0, 6, 5), (10, 9, 9))))
    with pytest.raises(DataError, match="precision"):
        predict(entry_of(cell, roi=small), precision="bf16")
    shutil.rmtree(result.others[0])
    with pytest.raises(DataError, match="lacks prob_maps/class_0"):
        predict(entry_of(cell, roi=small))
    np.testing.assert_array_equal(read(result.others[1]), before[1])


def test_a_sharded_container_gets_sharded_outputs_of_the_same_values(
    tmp_path, grey_values, predict, probabilities
):
    """Two workers, each of which owns whole shards."""
    raw = create_volume(
        tmp_path / "cell.zarr/volumes/raw", shape=RAW_SHAPE, dtype=np.uint8, voxel_size=VOXEL_SIZE,
        offset_nm=[o * 5 for o in RAW_OFFSET], chunk_shape=(16,) * 3, shard_shape=(32,) * 3, zarr_format=3,
    )  # fmt: skip
    raw.write_voxels(raw.roi_voxels, grey_values)
    (result,) = predict(entry_of(tmp_path / "cell.zarr"), num_workers=2, block_size_voxels=[64, 64, 64])

    np.testing.assert_allclose(prob_maps(result), probabilities, rtol=0, atol=1e-6)
    assert (result.main / "zarr.json").exists()


@pytest.mark.usefixtures("in_process")
def test_the_views_are_averaged_and_belong_to_the_result(cell, predict, grey_values, memory_raw, network):
    small = Roi((0, 6, 5), (20, 24, 17))
    (result,) = predict(entry_of(cell, roi=small), tta=8)
    expected = Predictor(network, "cpu", "fp32", tta=8).probabilities(
        memory_raw(grey_values, RAW_OFFSET), small
    )
    np.testing.assert_allclose(prob_maps(result), expected, rtol=0, atol=1e-6)


def test_a_result_with_other_views_is_another_result(cell, predict):
    small = entry_of(cell, roi=Roi((0, 6, 5), (9, 9, 9)))
    predict(small)
    with pytest.raises(DataError, match="tta: was null, is now 8"):
        predict(small, tta=8)


@pytest.mark.usefixtures("in_process")
def test_what_the_mask_leaves_out_is_said(cell, configure, checkpoint):
    mask = np.zeros(RAW_SHAPE, np.uint8)
    mask[:20, :20, :20] = 1
    store(cell / "volumes/mask", mask)
    lines = []
    predict_entries(
        configure(block_size_voxels=[64, 64, 64]), [entry_of(cell, mask="volumes/mask")],
        checkpoint=checkpoint, output_group=GROUP, progress=False, tell=lines.append,
    )  # fmt: skip
    assert "7 blocks outside the mask" in lines[0]


def test_preparing_writes_nothing(cell, configure, checkpoint):
    before = sorted(cell.rglob("*"))
    prepared = prepare_prediction(configure(), [entry_of(cell)], checkpoint=checkpoint)
    assert sorted(cell.rglob("*")) == before
    assert prepared.num_workers == 1
    assert prepared.plans[0].num_blocks >= 1


def test_one_worker_a_device(cell, configure, checkpoint):
    prepared = prepare_prediction(
        configure(**{"torch.device": ["cpu", "cpu"]}), [entry_of(cell)], checkpoint=checkpoint
    )
    assert prepared.num_workers == 2
    assert prepared.devices == (torch.device("cpu"),) * 2


def test_devices_of_different_arithmetic_are_refused(cell, configure, checkpoint, monkeypatch):
    monkeypatch.setattr(
        "incasem.prediction.preparation.choose_precision",
        lambda setting, device: torch.bfloat16 if device.index == 0 else torch.float16,
    )
    config = configure(**{"torch.device": ["cpu", "cpu"]})
    monkeypatch.setattr(
        "incasem.prediction.preparation.choose_devices",
        lambda setting: (torch.device("cpu", 0), torch.device("cpu")),
    )
    with pytest.raises(ConfigError, match=r"bfloat16 on cpu:0, float16 on cpu; allowed: the same"):
        prepare_prediction(config, [entry_of(cell)], checkpoint=checkpoint)


def test_a_network_for_another_voxel_size_is_refused(cell, configure, network, tmp_path):
    path = tmp_path / "of_4_nm"
    save_checkpoint(path, network, None, {"data": {"voxel_size": [4.0, 4.0, 4.0]}})
    with pytest.raises(CheckpointError, match=r"trained for is \[4, 4, 4\] nm; allowed: \[5, 5, 5\] nm"):
        prepare_prediction(configure(), [entry_of(cell)], checkpoint=path)


EPFL = Path(__file__).parents[3] / "shared/data/epfl_ca1_mito_5nm_open.h5"


@pytest.mark.slow
@pytest.mark.skipif(not EPFL.exists(), reason=f"needs {EPFL}")
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_a_whole_volume_gives_the_same_bytes_from_any_blocks_and_workers(tmp_path, network, precision):
    """80 × 400 × 400 voxels of the EPFL CA1 volume."""
    model = {"num_fmaps": 6, "downsample_factors": [[2, 2, 2], [2, 2, 2]]}
    torch.manual_seed(0)
    save_checkpoint(tmp_path / "checkpoint", Unet(**model), None, {})
    shutil.copy(EPFL, tmp_path / "cell.h5")
    entry = DataEntry(
        "cell", tmp_path / "cell.h5", VOXEL_SIZE, None, None, "volumes/raw", file_as_given="cell.h5"
    )
    contents = []
    for number, (block, workers) in enumerate([([64, 64, 128], 1), ([128, 192, 256], 2)]):
        config = load_prediction_config(
            None,
            [
                f"prediction.precision={precision}", f"prediction.block_size_voxels={block}",
                "prediction.torch.device=cpu", f"directories.data={tmp_path}",
                *(f"model.{key}={json.dumps(value)}" for key, value in model.items()),
            ],
        )  # fmt: skip
        (result,) = predict_entries(
            config, [entry], checkpoint=tmp_path / "checkpoint", output_group=output_group(1, number),
            num_workers=workers, progress=False,
        )  # fmt: skip
        contents.append({
            str(path.relative_to(result.folder)): path.read_bytes()
            for path in result.folder.rglob("*") if path.is_file() and not path.name.startswith(".z")
        })  # fmt: skip
    assert len(contents[0]) == 2 * 2 * 7 * 7  # two arrays
    assert contents[0] == contents[1]


SCRIPT = """
import json, sys
from pathlib import Path
from incasem.config import DataEntry, load_prediction_config
from incasem.prediction import predict_entries
if __name__ == "__main__":
    order = json.loads(sys.argv[1])
    entry = DataEntry(**order["entry"] | {"file": Path(order["entry"]["file"])})
    predict_entries(
        load_prediction_config(None, order["overrides"]), [entry], checkpoint=order["checkpoint"],
        output_group=order["group"], num_workers=1, progress=False,
    )
"""


def test_a_killed_prediction_continues_to_the_same_bytes(
    cell, configure, checkpoint, probabilities, small_model
):
    """Kill -9 of the whole command while blocks are done; the next run does the rest."""
    entry = entry_of(cell)
    overrides = [
        "prediction.precision=fp32",
        "prediction.torch.device=cpu",
        "prediction.output_dtype=float32",
    ]
    overrides += ["prediction.block_size_voxels=[64,64,64]"]
    overrides += [f"model.{key}={json.dumps(value)}" for key, value in small_model.items()]
    overrides += [f"directories.data={cell.parent}"]
    fields = {
        k: getattr(entry, k) for k in ("nickname", "voxel_size", "offset", "shape", "raw", "file_as_given")
    }
    order = {
        "entry": fields | {"file": str(cell)}, "overrides": overrides, "checkpoint": str(checkpoint),
        "group": GROUP,
    }  # fmt: skip
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, json.dumps(order)])
    first_block = cell / GROUP / "segmentation"
    deadline = time.monotonic() + 120
    while not list(first_block.glob("[0-9]*/*/*")) and time.monotonic() < deadline:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()

    config = load_prediction_config(None, overrides)
    (result,) = predict_entries(
        config, [entry], checkpoint=checkpoint, output_group=GROUP, num_workers=1, progress=False
    )

    assert result.report.blocks_done >= 1
    assert result.report.blocks_done + result.report.blocks_resumed == 8
    np.testing.assert_allclose(prob_maps(result), probabilities, rtol=0, atol=1e-6)
    assert math.isclose(prob_maps(result).sum(), math.prod(ROI.shape), rel_tol=1e-4)
