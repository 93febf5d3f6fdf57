"""What `incasem export-model` makes, finds and refuses."""

import importlib
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from incasem.cli import main
from incasem.errors import CheckpointError, ConfigError, DataError, TrackingError
from incasem.networks import (
    Unet,
    build_network,
    initialise,
    load_checkpoint,
    load_into,
    plain_state,
    standardise,
)
from incasem.sharing import About, ModelChoice
from incasem.sharing.model import find_model
from incasem.sharing.weights import run_weights
from incasem.tasks.grey_values import normalise
from incasem.volumes import create_volume
from tests.sharing.conftest import MODEL, RESIDUAL, make_checkpoint


def export(*words):
    return main(["export-model", *map(str, words)])


def softmax(logits):
    return torch.from_numpy(logits).softmax(dim=1).numpy()


def test_a_model_of_bioimage_io_from_a_checkpoint_alone(tmp_path, checkpoint, capsys):
    out = tmp_path / "shared"
    assert export("--checkpoint", checkpoint, "-o", out) == 0
    assert "before you publish it" in capsys.readouterr().out
    described = yaml.safe_load((out / "rdf.yaml").read_text())
    assert described["name"] == "incasem mito mito training run 5"
    (given,), (made,) = described["inputs"], described["outputs"]
    network = Unet(num_fmaps=2, downsample_factors=((2, 2, 2),))
    smallest, context = network.smallest_input[0], network.context_voxels[0]
    for axis in given["axes"][2:]:
        assert axis["size"] == {"min": smallest, "step": 2}
        assert (axis["scale"], axis["unit"]) == (4.0, "nanometer")
    for axis in made["axes"][2:]:
        assert axis["size"] == {"tensor_id": "raw", "axis_id": axis["id"], "offset": -2 * context}
        assert "halo" not in axis, "it would be cropped once more"
    assert given["preprocessing"][1]["kwargs"] == {"gain": 2 / 255, "offset": -1.0}
    assert made["axes"][1]["channel_names"] == ["background", "mito"]
    raw = np.load(out / "test_input.npy")
    assert raw.dtype == np.uint8
    theirs = softmax(run_weights(out / "model.pt", "torchscript")(normalise(raw)))
    np.testing.assert_allclose(np.load(out / "test_output.npy"), theirs, atol=1e-5)
    assert "| validation | f1_class_1 | 0.7500 |" in (out / "README.md").read_text()
    assert (out / "cover.png").stat().st_size < 500_000


def test_what_the_user_says_of_it(tmp_path, checkpoint):
    out = tmp_path / "shared"
    words = [
        "--name", "Mitochondria of my cell", "--author", "A. Uthor", "--author", "B. Other",
        "--license", "MIT", "--cite", "10.1000/182", "My paper",
        "--classes", "outer", "--description", "Mine.",
    ]  # fmt: skip
    assert export("--checkpoint", checkpoint, "-o", out, *words) == 0
    described = yaml.safe_load((out / "rdf.yaml").read_text())
    assert described["name"] == "Mitochondria of my cell"
    assert described["authors"] == [{"name": "A. Uthor"}, {"name": "B. Other"}]
    assert described["license"] == "MIT"
    assert described["cite"][0] == {"text": "My paper", "doi": "10.1000/182"}
    assert described["outputs"][0]["axes"][1]["channel_names"] == ["background", "outer"]
    assert described["description"] == "Mine."


def test_a_sample_of_16_bits_of_ones_own(tmp_path, checkpoint):
    raw = create_volume(
        tmp_path / "cell.zarr/volumes/raw", shape=(90, 90, 90), dtype="uint16", voxel_size=(4, 4, 4)
    )
    values = np.random.default_rng(0).integers(0, 65536, (90, 90, 90)).astype(np.uint16)
    raw.write_voxels(raw.roi_voxels, values)
    out = tmp_path / "shared"
    assert export("--checkpoint", checkpoint, "-o", out, "--sample", tmp_path / "cell.zarr/volumes/raw") == 0
    (given,) = yaml.safe_load((out / "rdf.yaml").read_text())["inputs"]
    assert given["data"] == {"type": "uint16"}
    assert given["preprocessing"][1]["kwargs"]["gain"] == 2 / 65535
    cut = np.load(out / "test_input.npy")[0, 0]
    begin = [(90 - size) // 2 for size in cut.shape]
    assert min(begin) >= 0
    where = tuple(slice(b, b + size) for b, size in zip(begin, cut.shape, strict=True))
    np.testing.assert_array_equal(cut, values[where])


def test_a_zip_file_holds_the_same(tmp_path, checkpoint):
    assert export("--checkpoint", checkpoint, "-o", tmp_path / "model.zip") == 0
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        assert archive.testzip() is None
        assert {"rdf.yaml", "README.md", "cover.png", "model.pt"} <= set(archive.namelist())
    assert not list(tmp_path.glob(".*"))


def record_training(runs, run_id, model, **training):
    folder = runs / f"sacred/incasem_trainings/{run_id}"
    folder.mkdir(parents=True)
    settings = {"model": model, "data": {"voxel_size": [6, 6, 6]}, "training": training}
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "run.json").write_text(json.dumps({"status": "COMPLETED", "experiment": {"name": "recorded"}}))


def test_a_run_gives_its_best_checkpoint(tmp_path, monkeypatch):
    monkeypatch.delenv("INCASEM_RUNS", raising=False)
    runs = tmp_path / "runs"
    record_training(runs, 3, MODEL)
    for iteration, f1 in ((10, 0.9), (20, 0.4)):
        sidecar = {"model": MODEL, "data": {"voxel_size": [4, 4, 4]}, "iteration": iteration}
        scores = {"scores": {"v": {"f1_class_1": f1}}}
        make_checkpoint(runs / f"models/0003/model_checkpoint_{iteration}", sidecar=sidecar | scores)
    assert export("--run_id", 3, "--runs", runs, "-o", tmp_path / "a", "--format", "torchscript") == 0
    assert "- checkpoint: model_checkpoint_10\n" in (tmp_path / "a/README.md").read_text()
    record_training(runs, 4, MODEL, continue_id=3)
    assert export("--run_id", 4, "--runs", runs, "-o", tmp_path / "b", "--format", "torchscript") == 0


def test_a_published_model_needs_its_number_only(tmp_path, capsys, monkeypatch):
    """Published checkpoints have no file beside them; the card says what the network is."""
    monkeypatch.delenv("INCASEM_RUNS", raising=False)
    cards = tmp_path / "cards"
    cards.mkdir()
    config = {"model": MODEL, "data": {"voxel_size": [5, 5, 5]}}
    (cards / "1841_er_CF.json").write_text(json.dumps({"config": config}))
    file = tmp_path / "model_checkpoint_1841_er_CF.pt"
    make_checkpoint(file)
    (tmp_path / "model_checkpoint_1841_er_CF.pt.json").unlink()
    words = ["--checkpoint", file, "--runs", tmp_path, "-o", tmp_path / "out", "--format", "torchscript"]
    assert export(*words) == CheckpointError.exit_code
    assert "--run_id" in capsys.readouterr().err
    assert export(*words, "--run_id", 77) == TrackingError.exit_code
    model = find_model(ModelChoice(1841, file, tmp_path, cards=cards), About())
    assert model.run_id == 1841
    assert model.voxel_size == (5, 5, 5)
    assert model.name == "incasem class_1 run 1841"


def test_a_training_with_weight_standardisation_leaves_a_plain_network(tmp_path):
    """The published U-Net comes out: what predictions load is what is exported."""
    trained = Unet(num_fmaps=2, downsample_factors=((2, 2, 2),))
    torch.manual_seed(1)
    initialise(trained, centred=True)
    standardise(trained)
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter += 0.01 * torch.randn_like(parameter)
    make_checkpoint(
        tmp_path / "model_checkpoint_1", change=lambda network: network.load_state_dict(plain_state(trained))
    )
    out = tmp_path / "out"
    assert export("--checkpoint", tmp_path / "model_checkpoint_1", "-o", out, "--format", "torchscript") == 0
    raw = normalise(np.load(out / "test_input.npy"))
    with torch.inference_mode():
        ours = trained.eval()(torch.from_numpy(raw)).numpy()
    np.testing.assert_allclose(run_weights(out / "model.pt", "torchscript")(raw), ours, atol=1e-5)


def test_nothing_is_overwritten(tmp_path, checkpoint, capsys):
    for name in ("folder", "file.zip"):
        out = tmp_path / name
        out.mkdir() if name == "folder" else out.write_text("mine")
        assert export("--checkpoint", checkpoint, "-o", out) == DataError.exit_code
        assert "which exists" in capsys.readouterr().err
    assert (tmp_path / "file.zip").read_text() == "mine"
    assert not list((tmp_path / "folder").iterdir())


def test_a_failure_leaves_nothing_behind(tmp_path, capsys):
    def break_it(network):
        with torch.no_grad():
            network.final_conv_pass.conv_pass[0].bias[0] = float("nan")

    make_checkpoint(tmp_path / "model_checkpoint_1", change=break_it)
    before = sorted(tmp_path.iterdir())
    words = [
        "--checkpoint",
        tmp_path / "model_checkpoint_1",
        "-o",
        tmp_path / "out",
        "--format",
        "torchscript",
    ]
    assert export(*words) == CheckpointError.exit_code
    assert "not finite" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before


def test_a_missing_package_is_named_before_anything_is_written(tmp_path, checkpoint, capsys, monkeypatch):
    def import_(name, *arguments):
        if name.partition(".")[0] == "onnx":
            raise ModuleNotFoundError(name)
        return real(name, *arguments)

    real = importlib.import_module
    monkeypatch.setattr(importlib, "import_module", import_)
    assert (
        export("--checkpoint", checkpoint, "-o", tmp_path / "out", "--format", "onnx")
        == ConfigError.exit_code
    )
    error = capsys.readouterr().err
    assert "incasem[share]" in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["-o", "out"], "--run_id"),
        (["-o", "out", "--checkpoint", "{c}", "--name", "ab"], "--name"),
        (["-o", "out", "--checkpoint", "{c}", "--cite", "doi", "text"], "--cite"),
        (["-o", "out", "--checkpoint", "{c}", "--license", "my own"], "--license"),
        (["-o", "out", "--checkpoint", "{c}", "--classes", "a", "b"], "--classes"),
        (["-o", "out", "--checkpoint", "{c}", "--format", "onnx", "--weights", "onnx"], "--weights"),
        (["-o", "out", "--checkpoint", "{c}", "--output_size_voxels", "8", "8", "8"], "model.norm=group"),
        (["-o", "no/such/folder", "--checkpoint", "{c}"], "no/such"),
        (["-o", "out", "--checkpoint", "{c}", "--sample", "nowhere.zarr/raw"], "nowhere.zarr"),
    ],
)
def test_mistakes_are_named(tmp_path, checkpoint, capsys, monkeypatch, words, part):
    monkeypatch.chdir(tmp_path)
    assert export(*(word.format(c=checkpoint) for word in words)) != 0
    assert part in capsys.readouterr().err
    assert not Path("out").exists()


def test_a_residual_network_as_torchscript(tmp_path):
    make_checkpoint(tmp_path / "residual", model=RESIDUAL | {"norm": "channel"})
    out = tmp_path / "shared"
    assert export("--checkpoint", tmp_path / "residual", "-o", out, "--format", "torchscript") == 0
    script = run_weights(out / "model.pt", "torchscript")
    network = build_network(RESIDUAL | {"norm": "channel"})
    load_into(network, load_checkpoint(tmp_path / "residual"))
    raw = torch.rand(1, 1, *network.input_shape_for((5, 12, 9))) * 2 - 1
    with torch.no_grad():
        expected = network(raw).numpy()
    np.testing.assert_allclose(script(raw.numpy()), expected, rtol=1e-3, atol=1e-5)
