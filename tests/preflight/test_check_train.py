"""Each thing that would stop a training, or spoil it, gives its finding; all come at once."""

import json

import numpy as np
import pytest
import torch

from incasem.cli import main
from incasem.preflight.train import check_training
from incasem.volumes import open_volume
from tests.training.conftest import make_project, request, write_volume


@pytest.fixture
def project(tmp_path):
    return make_project(tmp_path)


def change(project, name, **changes):
    path = project / f"{name}.json"
    data = json.loads(path.read_text())
    data[name] = {k: v for k, v in (data[name] | changes).items() if v is not None}
    path.write_text(json.dumps(data))


def files_of(project):
    return {str(p): p.stat().st_mtime_ns for p in project.rglob("*")}


def found(findings, level=None):
    return [f for f in findings.found if level in (None, f.level)]


def the(findings, level, check, *parts):
    """The findings of that level and name whose text holds all parts."""
    said = [f"{f.message} {f.todo}" for f in findings.found if (f.level, f.check) == (level, check)]
    hits = [text for text in said if all(part in text for part in parts)]
    assert hits, (level, check, parts, [(f.level, f.check, f.message) for f in findings.found])
    return hits[0]


def test_a_good_training_has_no_error_and_nothing_is_written(project):
    before = files_of(project)
    findings = check_training(request(project))
    assert found(findings, "error") == []
    assert files_of(project) == before
    assert {f.check for f in findings.found} >= {
        "settings", "run-store", "paths", "region", "context", "grey-values", "labels", "leak", "samples",
        "device", "network", "memory", "disk", "duration",
    }  # fmt: skip
    the(findings, "ok", "labels", "volumes/labels/ball", "%")
    the(findings, "ok", "run-store", "the next is 1")
    the(findings, "ok", "samples", "5 samples of 10×10×10")
    the(findings, "warning", "leak", "lie in the context of train")


def test_all_errors_are_found_at_once(project):
    change(project, "train", raw="volumes/rav", voxel_size=[4, 4, 4])
    change(project, "validate", offset=[0, 0, 60])
    findings = check_training(
        request(
            project,
            "data.num_classes=3",
            "training.input_size_voxels=[30,28,28]",
            "training.start_from=[1,'/nowhere/x']",
        )
    )
    the(findings, "error", "data", "volumes/rav", "volumes/raw")
    the(findings, "error", "classes-and-voxels", "voxel_size", "[4, 4, 4]")
    the(findings, "error", "classes-and-voxels", "numbers of classes disagree")
    the(findings, "error", "data", "region of 'validate'", "60:84")
    the(findings, "error", "network", "training.input_size_voxels")
    the(findings, "error", "checkpoint", "/nowhere/x")
    the(findings, "ok", "run-store", "the next is 1")
    assert len(found(findings, "error")) >= 6


@pytest.mark.parametrize(
    ("settings", "check", "parts"),
    [
        (["training.iteration=5"], "settings", ["training.iterations"]),
        (["training.data=gone.json"], "paths", ["gone.json"]),
        (["training.swa_start=9"], "classes-and-voxels", ["training.swa_start"]),
        (["training.start_from=[1,'/nowhere/x']"], "checkpoint", ["/nowhere/x"]),
        (["data.downsample_factor=2"], "classes-and-voxels", ["data.downsample_factor"]),
    ],
)
def test_a_bad_setting_gives_its_message(project, settings, check, parts):
    the(check_training(request(project, *settings)), "error", check, *parts)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(project):
    the(check_training(request(project, "torch.device=0")), "warning", "device", "no GPU is available")


@pytest.mark.parametrize(
    ("changes", "level", "check", "parts"),
    [
        ({"file": "gone.zarr"}, "error", "data", ["gone.zarr"]),
        ({"labels": None}, "error", "classes-and-voxels", ["labels of the training data"]),
        ({"labels": {"volumes/labels/bell": 1}}, "error", "data", ["volumes/labels/bell"]),
        ({"mask": "volumes/ones"}, "warning", "masks", ["volumes/ones has no effect"]),
        ({"mask": "volumes/zeros"}, "error", "masks", ["is 0 in the whole region"]),
        ({"metric_masks": ["volumes/ones"]}, "warning", "masks", ["no effect"]),
        ({"labels": {"volumes/ones": 1}}, "warning", "labels", ["covers 100 %", "really its background"]),
        ({"labels": {"volumes/zeros": 1}}, "warning", "labels", ["is empty", "sampling.foreground"]),
        ({"labels": {"volumes/zeros": 1}}, "error", "samples", ["background everywhere"]),
        ({"offset": [0, 0, 30]}, "warning", "leak", ["are trained on", "F1 will be too good"]),
        ({"raw": "volumes/labels/ball"}, "error", "data", ["data type of the raw data"]),
    ],
)
def test_bad_data_give_their_message(project, changes, level, check, parts):
    for name, value in (("ones", 1), ("zeros", 0)):
        write_volume(project / f"cell.zarr/volumes/{name}", np.full((32, 32, 64), value, np.uint8))
    if "offset" in changes:
        change(project, "train", offset=[0, 0, 24])
        changes = {}
    change(project, "train", **changes)
    the(check_training(request(project)), level, check, *parts)


def test_two_classes_that_overlap(project):
    labels = open_volume(project / "cell.zarr/volumes/labels/ball")
    write_volume(project / "cell.zarr/volumes/labels/other", labels.read_voxels(labels.roi_voxels))
    both = {"volumes/labels/ball": 1, "volumes/labels/other": 2}
    change(project, "train", labels=both)
    change(project, "validate", labels=both)
    settings = ["data.num_classes=3", "model.num_fmaps_out=3", "loss.weight=[1,1,1]"]
    the(check_training(request(project, *settings)), "warning", "labels", "belong to two classes")


def test_too_little_memory_and_disk(project, monkeypatch):
    monkeypatch.setattr("incasem.preflight.machine.total_memory", lambda: 1000)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    findings = check_training(request(project))
    the(findings, "error", "memory", "needed", "training.batch_size=1")
    the(findings, "error", "disk", "free", "Make room")


def test_checkpoints_of_a_run_that_is_not_recorded(project):
    folder = project / "runs/models/0001"
    folder.mkdir(parents=True)
    (folder / "model_checkpoint_7").touch()
    the(check_training(request(project)), "warning", "output", "models/0001", "mixed")


def test_a_run_store_that_is_not_there(project, monkeypatch):
    monkeypatch.setenv("INCASEM_RUNS", "nonsense")
    the(check_training(request(project)), "error", "settings", "INCASEM_RUNS", "nonsense")


def test_the_json_form_is_stable(project, capsys):
    words = ["check", "train", "--json", "with", *request(project).overrides]
    assert main(words) == 0
    document = json.loads(capsys.readouterr().out)
    assert set(document) == {"schema", "what", "subject", "passed", "counts", "findings"}
    assert (document["schema"], document["what"], document["passed"]) == (1, "train", True)
    assert set(document["counts"]) == {"ok", "warning", "error"}
    assert sum(document["counts"].values()) == len(document["findings"])
    for finding in document["findings"]:
        assert set(finding) == {"level", "check", "about", "message", "todo", "figures"}
        assert finding["level"] in ("ok", "warning", "error")
        assert isinstance(finding["figures"], dict)
        assert all(finding[key] for key in ("check", "about", "message"))
    context = next(f for f in document["findings"] if f["check"] == "context")
    assert context["figures"]["context_voxels"] == [9, 9, 9]


def test_errors_make_the_exit_code_1(project, capsys):
    change(project, "train", file="gone.zarr")
    assert main(["check", "train", "with", *request(project).overrides]) == 1
    text = capsys.readouterr().out
    assert "gone.zarr" in text
    assert text.splitlines()[-1].startswith("1 error")


def test_offsets_that_no_region_holds(project):
    offsets = [[-1, 0, 0], [0, -1, 0], [0, 0, -1], [0, -32, 0], [0, 0, -39], [-3, 0, 40]]
    words = ["task.type=affinities", f"task.offsets={offsets}", f"model.num_fmaps_out={len(offsets)}"]
    findings = check_training(request(project, *words))
    the(findings, "warning", "offsets", "[0, -32, 0], [-3, 0, 40]: longer than every training region")
    words[1:] = [f"task.offsets={offsets[:3]}", "model.num_fmaps_out=3"]
    assert not [f for f in check_training(request(project, *words)).found if f.check == "offsets"]
