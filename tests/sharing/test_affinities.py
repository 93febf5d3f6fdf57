"""Trainings of affinities in the files of other programs: the same bytes as `incasem predict` stores."""

import json

import numpy as np
import pytest
import yaml

from incasem.cli import main
from incasem.errors import CheckpointError, ConfigError
from incasem.geometry import Coordinate, Roi
from incasem.prediction import Predictor, tiling_for
from incasem.sharing import About, ModelChoice
from incasem.sharing.model import find_model
from incasem.sharing.weights import FILES, run_weights
from incasem.tasks.affinities import AFFINITIES, Affinities
from incasem.tasks.grey_values import normalise
from incasem.volumes import create_volume
from tests.sharing.conftest import MODEL, OFFSETS, RESIDUAL, make_affinities

NAMES = ["affinity_z", "affinity_y", "affinity_x", "affinity_x_minus_3", "affinity_z_plus_2_y_minus_1"]
WIDE = RESIDUAL | {"filters": [8, 16], "activation": "elu"}
CHANNEL, GROUP = WIDE | {"norm": "channel"}, WIDE | {"norm": "group"}
VOXEL = (16, 8, 8)
TILE = (6, 16, 12)


def export(checkpoint, out, *words):
    return main(["export-model", "--checkpoint", str(checkpoint), "-o", str(out), *map(str, words)])


def stored(folder, network, raw_ZYX, *, descriptors):
    """What `incasem predict` stores where the exported network has its output, uint8 (K, z, y, x)."""
    context, tile = network.context_voxels, TILE if network.depends_on_tile else None
    tiling = tiling_for(network, tile)
    step = tiling.step if network.depends_on_tile else network.stride
    # Tiles lie on multiples of the stride of the whole volume: so does the output here.
    begin = Coordinate(-(-c // s) * s for c, s in zip(context, step, strict=True))
    corner = [(b - c) * v for b, c, v in zip(begin, context, VOXEL, strict=True)]
    volume = create_volume(
        folder / "cell.zarr/raw", shape=raw_ZYX.shape, dtype=raw_ZYX.dtype, voxel_size=VOXEL,
        offset_nm=corner,
    )  # fmt: skip
    volume.write_voxels(volume.roi_voxels, raw_ZYX)
    task = Affinities(tuple(map(tuple, OFFSETS)), descriptor_sigma=(1, 2, 2) if descriptors else None)
    predictor = Predictor(
        network, "cpu", "fp32", tiling=tiling if network.depends_on_tile else None, task=task
    )
    shape = [n - 2 * c for n, c in zip(raw_ZYX.shape, context, strict=True)]
    return task.decode(predictor.logits(volume, Roi(begin, shape)))[AFFINITIES]


@pytest.mark.parametrize(
    ("model", "descriptors"),
    [(MODEL, False), (MODEL, True), (CHANNEL, False), (GROUP, False)],
    ids=["unet", "unet with descriptors", "anisotropic residual", "group norm"],
)
def test_what_comes_out_is_what_predictions_store(tmp_path, model, descriptors):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    network = make_affinities(tmp_path / "checkpoint", model, descriptors)
    out = tmp_path / "out"
    size = ["--output_size_voxels", *TILE] if network.depends_on_tile else []
    assert export(tmp_path / "checkpoint", out, "--weights", *FILES, *size) == 0
    raw = np.load(out / "test_input.npy")
    ours = stored(tmp_path, network, raw[0, 0], descriptors=descriptors)
    for format_name in FILES:
        logits = run_weights(out / FILES[format_name], format_name)(normalise(raw))
        assert logits.shape[1] == len(OFFSETS), "no descriptors"
        assert np.ptp(logits) > 0.01
        theirs = 1 / (1 + np.exp(-logits[0].astype(np.float64)))
        np.testing.assert_allclose(np.load(out / "test_output.npy")[0], theirs, atol=1e-4)
        assert np.abs(theirs * 255 - ours).max() <= 0.5 + 2e-2, "rounded to the nearest 1/255"


def test_the_description_says_what_each_channel_is(tmp_path):
    make_affinities(tmp_path / "checkpoint", CHANNEL)
    out = tmp_path / "out"
    assert export(tmp_path / "checkpoint", out) == 0
    described = yaml.safe_load((out / "rdf.yaml").read_text())
    assert described["name"] == "incasem affinities neurons run 7"
    (given,), (made,) = described["inputs"], described["outputs"]
    assert made["id"] == "affinities"
    assert made["axes"][1]["channel_names"] == NAMES
    assert all(name.isidentifier() for name in NAMES), "which BioImage.IO asks for"
    assert "offsets_zyx" in made["description"]
    assert len(made["description"]) <= 128, "which BioImage.IO asks for"
    assert made["postprocessing"] == [{"id": "sigmoid"}]
    assert described["config"]["incasem"]["offsets_zyx"] == OFFSETS
    assert [axis["scale"] for axis in given["axes"][2:]] == list(VOXEL)
    assert [axis["size"]["step"] for axis in given["axes"][2:]] == [1, 2, 2], "anisotropic poolings"
    assert {"instance-segmentation", "affinities"} <= set(described["tags"])
    assert "semantic-segmentation" not in described["tags"]
    cited = [one["doi"] for one in described["cite"]]
    assert len(cited) == len(set(cited))
    page = (out / "README.md").read_text()
    for wanted in ("| 4 | `affinity_z_plus_2_y_minus_1` | 2, -1, 0 |", "`incasem segment`", "boundary",
                   "| validation | f1_class_1 | 0.7500 |", "| x | ", "adapted Rand"):  # fmt: skip
        assert wanted in page
    assert "escriptors" not in page
    assert "oftmax" not in page


def test_descriptors_are_said_to_be_left_out(tmp_path):
    make_affinities(tmp_path / "checkpoint", descriptors=True)
    assert export(tmp_path / "checkpoint", tmp_path / "out") == 0
    assert "descriptors were learnt beside the affinities" in (tmp_path / "out/README.md").read_text()
    described = yaml.safe_load((tmp_path / "out/rdf.yaml").read_text())
    assert described["outputs"][0]["axes"][1]["channel_names"] == NAMES
    assert any("shape descriptors" in one["text"] for one in described["cite"])


def test_group_normalisation_has_one_size(tmp_path):
    network = make_affinities(tmp_path / "checkpoint", GROUP)
    out = tmp_path / "out"
    assert export(tmp_path / "checkpoint", out, "--output_size_voxels", *TILE) == 0
    described = yaml.safe_load((out / "rdf.yaml").read_text())
    sizes = [axis["size"] for axis in described["inputs"][0]["axes"][2:]]
    assert sizes == list(network.input_shape_for(TILE))
    assert list(np.load(out / "test_input.npy").shape[2:]) == sizes
    assert "made for inputs of" in described["description"]
    page = (out / "README.md").read_text()
    assert "a voxel's result depends a little on the tile" in page
    assert "without seams" not in page


def test_the_page_runs_as_printed(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    make_affinities(tmp_path / "checkpoint")
    out = tmp_path / "out"
    assert export(tmp_path / "checkpoint", out, "--weights", "onnx") == 0
    monkeypatch.chdir(out)
    found: dict = {}
    exec(
        compile((out / "README.md").read_text().split("```python\n")[1].split("```")[0], "page", "exec"),
        found,
    )
    np.testing.assert_allclose(found["affinities"], np.load("test_output.npy"), atol=1e-5)


def test_a_run_says_its_offsets_where_the_checkpoint_does_not(tmp_path, monkeypatch):
    monkeypatch.delenv("INCASEM_RUNS", raising=False)
    make_affinities(tmp_path / "checkpoint")
    sidecar = tmp_path / "checkpoint.json"
    described = json.loads(sidecar.read_text())
    task, settings = described.pop("task"), described.pop("task_settings")
    sidecar.write_text(json.dumps(described | {"task": task}))
    choice = ModelChoice(None, tmp_path / "checkpoint", tmp_path)
    with pytest.raises(
        CheckpointError, match=r"affinities without offsets; allowed: semantic, or affinities"
    ):
        find_model(choice, About())
    sidecar.unlink()
    folder = tmp_path / "sacred/incasem_trainings/7"
    folder.mkdir(parents=True)
    recorded = {name: described[name] for name in ("model", "data")} | {"task": settings}
    (folder / "config.json").write_text(json.dumps(recorded))
    (folder / "run.json").write_text(json.dumps({"status": "COMPLETED", "experiment": {"name": "recorded"}}))
    model = find_model(ModelChoice(7, tmp_path / "checkpoint", tmp_path), About())
    assert list(model.outputs.channels) == NAMES


@pytest.mark.parametrize("settings", [{"offsets": [[0, 0, 0]]}, {"offsets": "all"}, {"type": "stardist"}])
def test_a_task_that_is_not_known_is_named(tmp_path, settings):
    make_affinities(tmp_path / "checkpoint", **settings)
    with pytest.raises(CheckpointError, match=r"the task of .*checkpoint.* allowed: semantic, or affinities"):
        find_model(ModelChoice(None, tmp_path / "checkpoint", tmp_path), About())


def test_channels_and_names_that_do_not_fit_are_refused(tmp_path):
    make_affinities(tmp_path / "checkpoint", offsets=OFFSETS[:2])
    choice = ModelChoice(None, tmp_path / "checkpoint", tmp_path)
    with pytest.raises(
        CheckpointError, match=r"num_fmaps_out is 5; allowed: 2, one for each of task.offsets"
    ):
        find_model(choice, About())
    make_affinities(tmp_path / "checkpoint")
    with pytest.raises(ConfigError, match=r"--classes is neurons; allowed: no names"):
        find_model(choice, About(classes=("neurons",)))
