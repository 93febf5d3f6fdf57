"""The settings of a prediction, and that nothing is recorded of one that cannot run."""

import json

import numpy as np
import pytest
import torch

from incasem.cli import main
from incasem.config import load_prediction_config
from incasem.errors import CheckpointError, ConfigError, DataError
from incasem.networks import Unet, save_checkpoint
from incasem.runs.predict import PredictionRequest, predict
from incasem.volumes import create_volume, open_volume

MODEL = {
    "type": "Unet", "num_fmaps": 2, "num_fmaps_out": 2, "fmap_inc_factor": 2,
    "downsample_factors": [[2, 2, 2]], "constant_upsample": True,
}  # fmt: skip
SHAPE = (40, 40, 40)


def make_home(folder):
    """Write a volume, a data configuration, a recorded training and its checkpoint into a folder."""
    raw = create_volume(folder / "cell.zarr/raw", shape=SHAPE, dtype=np.uint8, voxel_size=(5, 5, 5))
    raw.write_voxels(raw.roi_voxels, np.random.default_rng(0).integers(0, 256, SHAPE, dtype=np.uint8))
    write_data(folder)
    torch.manual_seed(0)
    network = Unet(num_fmaps=2, downsample_factors=((2, 2, 2),))
    save_checkpoint(folder / "checkpoint", network, None, {"data": {"voxel_size": [5.0, 5.0, 5.0]}})
    training = folder / "runs/sacred/incasem_trainings/1"
    training.mkdir(parents=True)
    (training / "config.json").write_text(json.dumps({"model": MODEL, "data": {"voxel_size": [5, 5, 5]}}))
    (training / "run.json").write_text(json.dumps({"status": "COMPLETED", "experiment": {"name": "by hand"}}))


@pytest.fixture
def home(tmp_path):
    """A folder with all that a prediction needs."""
    make_home(tmp_path)
    return tmp_path


def write_data(home, **changes):
    entry = {"file": "cell.zarr", "offset": [0, 0, 0], "shape": SHAPE, "voxel_size": [5, 5, 5], "raw": "raw"}
    (home / "cell.json").write_text(json.dumps({"cell": entry | changes}))


def overrides(home, *more):
    return [
        f"prediction.data={home / 'cell.json'}", f"directories.data={home}",
        f"directories.runs={home / 'runs'}", f"prediction.checkpoint={home / 'checkpoint'}",
        "prediction.torch.device=cpu", "prediction.precision=fp32", *more,
    ]  # fmt: skip


def start(home, *more):
    return predict(PredictionRequest("p", 1, overrides=overrides(home, *more)), lambda line: None)


def recorded(home):
    folder = home / "runs/sacred/incasem_predictions"
    return sorted(path.name for path in folder.glob("[0-9]*"))


@pytest.mark.parametrize(
    ("changes", "settings", "error", "message"),
    [
        ({"raw": "row"}, (), DataError, "row"),
        ({"file": "gone.zarr"}, (), DataError, "gone.zarr"),
        ({"offset": [0, 0, 20]}, (), DataError, "region of 'cell'"),
        ({"voxel_size": [4, 4, 4]}, ("data.voxel_size=[4,4,4]",), CheckpointError, "trained for is .5, 5, 5"),
        ({"mask": "musk"}, (), DataError, "musk"),
        ({}, ("model.num_fmaps=3",), CheckpointError, "does not fit the network"),
        ({}, ("data.num_classes=3", "model.num_fmaps_out=3"), CheckpointError, "num_fmaps_out"),
        ({}, ("prediction.block_size_voxels=[30,40,40]",), ConfigError, "block_size_voxels"),
        ({}, ("prediction.tiling=published",), ConfigError, "prediction.output_size_voxels"),
        ({}, ("prediction.torch.device=[0,9]",), ConfigError, "torch.device"),
        ({}, ("model.downsample_factors=[[1,1,2]]", "prediction.tta=16"), ConfigError, "prediction.tta"),
    ],
)  # fmt: skip
def test_what_cannot_be_predicted_is_refused_before_it_is_recorded(home, changes, settings, error, message):
    write_data(home, **changes)
    with pytest.raises(error, match=message):
        start(home, *settings)
    assert recorded(home) == []
    assert not (home / "cell.zarr/volumes").exists()


def test_a_prediction_is_recorded_with_its_settings(home):
    assert start(home, "prediction.tta=8") == 1
    config = json.loads((home / "runs/sacred/incasem_predictions/1/config.json").read_text())

    assert config["prediction"]["tta"] == 8
    stored = open_volume(home / "cell.zarr/volumes/predictions/train_0001/predict_0001/segmentation")
    assert tuple(stored.shape) == SHAPE
    assert stored.attributes["incasem"]["identity"]["tta"] == 8


@pytest.fixture
def asked(monkeypatch):
    """What the command line asks for, as settings."""
    found = []
    monkeypatch.setattr("incasem.runs.predict.predict", lambda request, tell: found.append(request))

    def ask(*words):
        assert main(["predict", "--run_id", "1", *map(str, words)]) == 0
        request = found.pop()
        return load_prediction_config(
            request.settings_file, request.overrides, {"model": MODEL | {"num_fmaps": 7}}
        )

    return ask


def test_the_order_of_precedence(asked, tmp_path):
    """Prediction YAML < settings of the training run < command line."""
    yaml = tmp_path / "p.yaml"
    yaml.write_text("prediction: {precision: bf16, output_dtype: float32}\nmodel: {num_fmaps: 5}\n")

    config = asked("with", yaml)
    assert (config.prediction.precision, config.prediction.output_dtype) == ("bf16", "float32")
    assert config.model.num_fmaps == 7
    config = asked("with", yaml, "model.num_fmaps=9", "prediction.precision=fp32")
    assert (config.prediction.precision, config.model.num_fmaps) == ("fp32", 9)
    config = asked("--precision", "fp16", "with", yaml, "prediction.precision=fp32")
    assert config.prediction.precision == "fp16"


def test_an_unknown_precision_is_refused(capsys):
    assert main(["predict", "--run_id", "1", "--precision", "fp8"]) == ConfigError.exit_code
    assert "fp8" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("torch.device=[0,1]", (0, 1)), ("torch.device=all", "all"), ("torch.device=cpu", "cpu"),
        ("torch.device=1", 1), ("torch.device=[cpu,cuda:1]", ("cpu", 1)), ("tta=none", "none"), ("tta=8", 8),
        ("tta=16", 16), ("precision=fp16", "fp16"), ("output_dtype=float32", "float32"), ("num_workers=3", 3),
        ("block_size_voxels=[64,128,256]", (64, 128, 256)), ("tiling=published", "published"),
    ],
)  # fmt: skip
def test_settings_that_are_allowed(word, value):
    found = load_prediction_config(None, [f"prediction.{word}"]).prediction
    for part in word.partition("=")[0].split("."):
        found = getattr(found, part)
    assert found == value


@pytest.mark.parametrize(
    "word",
    ["torch.device=gpu", "torch.device=[]", "torch.device=[0,gpu]", "torch.device=-1", "tta=4", "tta=flips",
     "precision=int8", "output_dtype=uint16", "num_workers=0", "tiling=free", "block_size_voxels=[64,64]"],
)  # fmt: skip
def test_settings_that_are_not_allowed(word):
    name = word.partition("=")[0]
    with pytest.raises(ConfigError, match=rf"prediction\.{name}"):
        load_prediction_config(None, [f"prediction.{word}"])
