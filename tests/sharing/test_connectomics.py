"""Settings of PyTorch Connectomics v1: which wins, what becomes of each, and what is said of the rest."""

import json

import h5py
import numpy as np
import pytest
import tifffile
import yaml

from incasem.cli import main
from incasem.config import check_classes, load_data_config, load_prediction_config, load_training_config
from incasem.errors import ConfigError
from incasem.networks import build_network
from incasem.preflight.train import check_training
from incasem.sharing.connectomics import ImportRequest, import_settings
from incasem.sharing.connectomics.keys import DEFAULTS, known_keys
from incasem.sharing.connectomics.settings import read_settings
from incasem.sharing.connectomics.task import offsets_of
from incasem.training.preparation import TrainingRequest
from incasem.training.sources import open_entry

SMALL = {
    "SYSTEM": {"NUM_GPUS": 2, "NUM_CPUS": 3},
    "MODEL": {
        "INPUT_SIZE": [9, 33, 33], "OUTPUT_SIZE": [9, 33, 33], "IN_PLANES": 1, "OUT_PLANES": 3,
        "FILTERS": [4, 6, 8], "ISOTROPY": [False, False, True], "NORM_MODE": "gn",
        "TARGET_OPT": ["2"], "LABEL_EROSION": 1,
        "LOSS_OPTION": [["WeightedBCEWithLogitsLoss", "DiceLoss"]], "LOSS_WEIGHT": [[1.0, 0.5]],
        "WEIGHT_OPT": [["1", "0"]], "OUTPUT_ACT": [["none", "sigmoid"]],
    },
    "DATASET": {
        "IMAGE_NAME": "img.tif", "LABEL_NAME": "seg.h5", "INPUT_PATH": "raw", "OUTPUT_PATH": "runs/base",
    },
    "SOLVER": {"ITERATION_TOTAL": 900, "BASE_LR": 0.02, "LR_SCHEDULER_NAME": "WarmupCosineLR"},
    "INFERENCE": {"IMAGE_NAME": "test.tif", "OUTPUT_PATH": "results", "AUG_NUM": 16, "STRIDE": [4, 16, 16]},
}  # fmt: skip
FILE = {
    "MODEL": {"ARCHITECTURE": "unet_3d"},
    "SOLVER": {"ITERATION_TOTAL": 700},
    "DATASET": {"OUTPUT_PATH": "runs/file"},
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with the two files, and volumes as such trainings have them."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "base.yaml", SMALL)
    write(tmp_path / "file.yaml", FILE)
    (tmp_path / "raw").mkdir()
    rng = np.random.default_rng(0)
    for name in ("img", "test"):
        tifffile.imwrite(tmp_path / f"raw/{name}.tif", rng.integers(0, 256, (12, 40, 50)).astype(np.uint8))
    with h5py.File(tmp_path / "raw/seg.h5", "w") as file:
        file["main"] = rng.integers(0, 4, (12, 40, 50)).astype(np.uint16)
    return tmp_path


def write(path, content):
    path.write_text(yaml.safe_dump(content))


def run(folder, *options, resolution=(30, 6, 6), **arguments):
    return import_settings(
        ImportRequest(
            folder / "base.yaml", folder / "file.yaml", options, folder / "out", resolution, **arguments
        )
    )


def configs(folder):
    return (
        load_training_config(folder / "out/config_training.yaml"),
        load_prediction_config(folder / "out/config_prediction.yaml"),
    )


def test_a_training_as_the_guide_has_it(folder):
    made = run(folder)
    training, prediction = configs(folder)
    check_classes(training)
    assert training.task == prediction.task
    assert training.model == prediction.model
    assert training.task.type == "affinities"
    assert training.task.offsets == ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
    assert training.task.border_erosion == 1
    loss = training.loss
    assert (loss.cross_entropy_weight, loss.bce_weight, loss.dice_weight) == (1, 0, 0.5)
    assert (loss.balance_labels.clipmin, loss.balance_labels.clipmax) == (0.05, 0.95), "of weight option 1"
    model = training.model
    assert (model.type, model.filters, model.norm, model.activation) == (
        "ResidualUnet", (4, 6, 8), "group", "elu",
    )  # fmt: skip
    assert model.kernel_sizes == ((1, 3, 3), (1, 3, 3), (3, 3, 3))
    assert model.downsample_factors == ((1, 2, 2), (2, 2, 2))
    assert model.io_kernel_size == (1, 5, 5)
    assert model.num_fmaps_out == 3
    network = build_network(model.model_dump())
    sizes = training.training
    assert tuple(network.output_shape(sizes.input_size_voxels)) == sizes.output_size_voxels
    assert all(kept >= wanted for kept, wanted in zip(sizes.output_size_voxels, (9, 33, 33), strict=True))
    assert sizes.input_size_voxels == training.validation.input_size_voxels
    assert (sizes.iterations, sizes.batch_size, sizes.precache.num_workers) == (700, 2, 3)
    assert (sizes.optimizer.type, sizes.optimizer.schedule) == ("adam", "cosine")
    assert sizes.optimizer.lr != 0.02, "a rate of SGD"
    augmentation = sizes.augmentation
    assert augmentation.simple.transpose_only == (1, 2)
    assert augmentation.scaling.probability == 0.5
    assert augmentation.missing_sections.probability == pytest.approx(0.5 * 2 / 9, abs=1e-4)
    assert augmentation.misalignment.max_voxels == 16
    assert augmentation.motion_blur.probability == pytest.approx(0.5 * 2 / 9, abs=1e-4)
    assert augmentation.motion_blur.reach == (1, 5)
    assert training.directories.runs == folder / "runs/file"
    assert prediction.prediction.directories.prefix == folder / "results"
    assert prediction.prediction.tta == 16
    assert made.commands()[0].startswith("torchrun --nproc_per_node=2 -m incasem train --name NAME with")
    assert made.missing == ()


def test_its_volumes_are_what_is_trained_on(folder, caplog):
    run(folder)
    training, prediction = configs(folder)
    (entry,) = load_data_config(training.training.data, training.directories.data)
    opened = open_entry(entry)
    assert tuple(opened.roi.shape) == (12, 40, 50)
    assert opened.raw.voxel_size == (30, 6, 6)
    assert (opened.raw.read_voxels(opened.roi) == tifffile.imread(folder / "raw/img.tif")).all()
    assert opened.truth.instances(opened.roi).max() == 3
    findings = check_training(TrainingRequest("t", folder / "out/config_training.yaml", ()))
    assert [f for f in findings.found if f.check == "region" and f.level == "ok"]
    assert "assumed" not in caplog.text, "the entry states the voxel size that the HDF5 file does not"
    assert not [f.message for f in findings.found if "assumed" in f.message]
    assert json.loads((folder / "out/training.json").read_text()) == {
        "training": {"raw": "img.tif", "voxel_size": [30, 6, 6], "labels": {"seg.h5/main": 1}}
    }
    (unseen,) = load_data_config(prediction.prediction.data, prediction.directories.data)
    assert unseen.output_file(prediction.output_directory) == folder / "results/test.tif"


def test_what_is_not_taken_over_is_listed_with_the_reason(folder, capsys):
    command = ["import-pytc", "--config-base", "base.yaml", "--config-file", "file.yaml", "-o", "out"]
    off = ["AUGMENTOR.CUTBLUR.ENABLED", "False", "SOLVER.SWA.ENABLED", "False"]
    assert main([*command, "--resolution", "30", "6", "6", *off]) == 0
    told = capsys.readouterr().out
    assert "SOLVER.BASE_LR = 0.02: it is a rate for SGD" in told
    assert "INFERENCE.STRIDE = [4, 16, 16]: predictions read real context" in told
    assert "AUGMENTOR.CUTNOISE: " in told
    assert "AUGMENTOR.CUTBLUR" not in told, "what is off there is not missed here"
    assert "SWA" not in told
    assert "MODEL.FILTERS" not in told, "the terminal shows what differs"
    listed = (folder / "out/import-pytc.txt").read_text()
    assert "MODEL.FILTERS = [4, 6, 8]: model.filters" in listed
    # Nothing that was given is left without a word.
    for group, keys in SMALL.items():
        for key in keys:
            assert f"{group}.{key}" in listed, key
    assert f"wrote {folder}/out/config_training.yaml" in told


def test_the_command_line_wins_over_the_file_and_that_over_the_base(folder):
    settings = read_settings(
        folder / "base.yaml", folder / "file.yaml",
        [
            "SOLVER.BASE_LR", "1e-3", "MODEL.FILTERS", "(8, 16,)", "DATASET.LABEL_NAME", "None",
            "SOLVER.NAME", "Adam",
        ],
        ignore_unknown=False,
    )  # fmt: skip
    assert settings["SOLVER.BASE_LR"] == 0.001
    assert settings["MODEL.FILTERS"] == [8, 16]
    assert settings["DATASET.LABEL_NAME"] is None
    assert settings["SOLVER.NAME"] == "Adam"
    assert settings["SOLVER.ITERATION_TOTAL"] == 700
    assert settings["SYSTEM.NUM_CPUS"] == 3
    assert settings["SOLVER.WEIGHT_DECAY"] == DEFAULTS["SOLVER.WEIGHT_DECAY"]


def test_several_volumes_validation_masks_and_more_of_the_solver(folder):
    run(
        folder, "DATASET.IMAGE_NAME", "img.tif@test.tif", "DATASET.LABEL_NAME", "seg.h5@seg.h5",
        "DATASET.VAL_IMAGE_NAME", "img.tif", "DATASET.VAL_LABEL_NAME", "seg.h5",
        "DATASET.VALID_MASK_NAME", "seg.h5@seg.h5",
        "SOLVER.NAME", "Adam", "SOLVER.BASE_LR", "0.003", "SOLVER.SWA.ENABLED", "True",
        "SOLVER.SWA.START_ITER", "500", "SOLVER.CLIP_GRADIENTS.ENABLED", "True",
        "SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "norm", "SOLVER.CLIP_GRADIENTS.CLIP_VALUE", "2",
        "MODEL.NORM_MODE", "sync_bn", "MODEL.MIXED_PRECESION", "False", "SYSTEM.NUM_GPUS", "0",
        "DATASET.REJECT_SAMPLING.SIZE_THRES", "1000", "AUGMENTOR.ELASTIC.ENABLED", "False",
        "AUGMENTOR.ROTATE.ROT90", "False", "AUGMENTOR.FLIP.ENABLED", "False",
    )  # fmt: skip
    training, prediction = configs(folder)
    entries = load_data_config(training.training.data, training.directories.data)
    assert [e.nickname for e in entries] == ["training_1_img", "training_2_test"]
    assert all(e.mask and e.mask.endswith("seg.h5/main") for e in entries)
    assert [e.nickname for e in load_data_config(training.validation.data, training.directories.data)] == [
        "validation"
    ]
    settings = training.training
    assert (settings.optimizer.lr, settings.swa_start, settings.gradient_clip) == (0.003, 500, 2)
    assert (training.model.norm, settings.precision, training.torch.device) == ("channel", "fp32", "cpu")
    assert prediction.prediction.torch.device == "cpu"
    assert settings.reject.min_masked == pytest.approx(1000 / (9 * 33 * 33), abs=1e-5)
    assert (settings.augmentation.elastic, settings.augmentation.simple) == (None, None)
    assert settings.augmentation.rotation.probability == 1


def test_long_range_targets_are_offsets_of_one_task(folder):
    loss = (
        "[['WeightedBCEWithLogitsLoss','DiceLoss'],['WeightedBCEWithLogitsLoss','DiceLoss'],['WeightedMSE']]"
    )
    made = run(
        folder, "MODEL.TARGET_OPT", "['2-1-1-1-v1','2-2-3-4-v1','5']", "MODEL.LOSS_OPTION", loss,
        "MODEL.LOSS_WEIGHT", "[[1,0.5],[1,0.5],[1]]", "MODEL.WEIGHT_OPT", "[['0','0'],['0','0'],['0']]",
    )  # fmt: skip
    training, _ = configs(folder)
    assert training.task.offsets[3:] == ((-2, 0, 0), (0, -3, 0), (0, 0, -4))
    assert training.model.num_fmaps_out == 6
    assert (training.loss.bce_weight, training.loss.cross_entropy_weight) == (1, 0)
    assert any("5 (distance of instances)" in key for key in made.listing.lost)


def test_offsets_of_targets():
    assert offsets_of("2") == [[-1, 0, 0], [0, -1, 0], [0, 0, -1]]
    assert offsets_of("2-2-3-4") == [[-2, 0, 0], [0, -3, 0], [0, 0, -4]]
    assert offsets_of("2-2-3-4-pni") == [[0, 0, -4], [0, -3, 0], [-2, 0, 0]]
    assert offsets_of("2-2-3-4-v0") == offsets_of("2")
    for bad in ("2-1", "2-0-1-1", "2-a-b-c", "2-1-1-1-v2", "2-1-1-1-v1-x"):
        with pytest.raises(ConfigError, match="TARGET_OPT"):
            offsets_of(bad)


def test_a_foreground_target_is_semantic(folder):
    run(
        folder, "MODEL.TARGET_OPT", "['0']", "MODEL.LOSS_OPTION", "[['WeightedBCE']]",
        "MODEL.LOSS_WEIGHT", "[[1.0]]", "MODEL.WEIGHT_OPT", "[['1']]",
    )  # fmt: skip
    training, _ = configs(folder)
    check_classes(training, load_data_config(training.training.data, training.directories.data))
    assert (training.task.type, training.model.num_fmaps_out) == ("semantic", 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["SOLVER.BASE_LR"], "KEY VALUE"),
        (["MODEL.FILTRS", "[1]"], r"MODEL\.FILTRS.*MODEL\.FILTERS"),
        (["MODEL.FILTERS", "[1,"], "MODEL.FILTERS"),
        (["MODEL.FILTERS", "32"], "MODEL.FILTERS"),
        (["MODEL.FILTERS", "[1, 2, 3, 4, 5, 6]"], "ISOTROPY"),
        (["MODEL.OUTPUT_SIZE", "[0, 3, 3]"], "OUTPUT_SIZE"),
        (["MODEL.TARGET_OPT", "['9-4']"], "TARGET_OPT"),
        (["MODEL.TARGET_OPT", "['2-2-3-3']"], "nearest"),
        (["MODEL.TARGET_OPT", "['2-1-1-1-v2']"], "v2"),
        (["MODEL.LOSS_OPTION", "[['WeightedMSE', 'JaccardLoss']]"], "LOSS_OPTION"),
        (["MODEL.LOSS_WEIGHT", "[[1.0]]"], "LOSS_WEIGHT"),
        (["MODEL.LOSS_WEIGHT", "[['one', 0.5]]"], "LOSS_WEIGHT.*a number"),
        (["MODEL.LOSS_WEIGHT", "[[-1, 0.5]]"], "LOSS_WEIGHT.*at least 0"),
        (["AUGMENTOR.ENABLED", "maybe"], "AUGMENTOR.ENABLED is maybe; allowed: True or False"),
        (["SOLVER.SWA.ENABLED", "1"], "SWA.ENABLED is 1; allowed: True or False"),
        (["DATASET.REJECT_SAMPLING.P", "1.5"], r"REJECT_SAMPLING\.P is 1\.5; allowed: a number from 0 to 1"),
        (["SOLVER.BASE_LR", "0", "SOLVER.NAME", "Adam"], r"SOLVER\.BASE_LR is 0"),
        (["DATASET.IMAGE_NAME", "5"], "nothing was written: training.json: training.file"),
        (["MODEL.LABEL_EROSION", "-1"], "LABEL_EROSION"),
        (["SOLVER.ITERATION_TOTAL", "many"], "ITERATION_TOTAL"),
        (["SOLVER.ITERATION_TOTAL", "1.5"], "ITERATION_TOTAL"),
        (["DATASET.IMAGE_NAME", "None"], "IMAGE_NAME"),
        (["DATASET.LABEL_NAME", "a.h5@b.h5"], "LABEL_NAME"),
        (["DATASET.LABEL_NAME", "None"], "LABEL_NAME"),
        (["DATASET.INPUT_PATH", "a@b"], "INPUT_PATH"),
        (["INFERENCE.AUG_NUM", "[4]"], "AUG_NUM"),
    ],
)
def test_settings_that_cannot_be_are_named_and_nothing_is_written(folder, options, message):
    with pytest.raises(ConfigError, match=message):
        run(folder, *options)
    assert not (folder / "out").exists()


def test_unknown_keys_are_listed_where_that_is_wanted(folder):
    made = run(folder, "MODEL.NEW_IDEA", "3", ignore_unknown=True)
    assert "not a key of version 1" in made.listing.lost["MODEL.NEW_IDEA"]


def test_the_voxel_size_comes_from_the_images_or_is_asked_for(folder):
    with pytest.raises(ConfigError, match="--resolution 30 6 6"):
        run(folder, resolution=None)
    with pytest.raises(ConfigError, match="--resolution"):
        run(folder, resolution=(30, 0, 6))
    with h5py.File(folder / "raw/placed.h5", "w") as file:
        file["main"] = np.zeros((12, 40, 50), np.uint8)
        file["main"].attrs["resolution"] = [29.0, 6.0, 6.0]
    run(folder, "DATASET.IMAGE_NAME", "placed.h5", "INFERENCE.IMAGE_NAME", "placed.h5", resolution=None)
    assert configs(folder)[0].data.voxel_size == (29, 6, 6)


def test_files_that_are_there_stay(folder):
    run(folder)
    (folder / "out/config_training.yaml").write_text("mine")
    with pytest.raises(ConfigError, match=r"config_training\.yaml"):
        run(folder)
    assert (folder / "out/config_training.yaml").read_text() == "mine"


def test_missing_volumes_are_said_and_stacks_are_folders(folder):
    made = run(folder, "DATASET.IMAGE_NAME", "sections/*.png", "INFERENCE.IMAGE_NAME", "later.h5")
    assert f"{folder}/raw/later.h5" in made.missing
    training, prediction = configs(folder)
    (entry,) = load_data_config(training.training.data, training.directories.data)
    assert entry.file == folder / "raw/sections"
    (unseen,) = load_data_config(prediction.prediction.data, prediction.directories.data)
    assert unseen.file / unseen.raw == folder / "raw/later.h5/main"


def test_names_may_be_whole_paths(folder):
    raw = folder / "raw"
    run(
        folder, "DATASET.IS_ABSOLUTE_PATH", "True", "DATASET.IMAGE_NAME", f"{raw}/img.tif",
        "DATASET.LABEL_NAME", f"{raw}/seg.h5", "INFERENCE.IMAGE_NAME", "raw/test.tif",
    )  # fmt: skip
    training, prediction = configs(folder)
    assert training.directories.data == prediction.directories.data == raw
    (entry,) = load_data_config(training.training.data, training.directories.data)
    assert entry.file == raw / "img.tif"


def test_files_that_are_no_settings(folder, tmp_path):
    (folder / "base.yaml").write_text("!!python/object/apply:os.system [echo]")
    with pytest.raises(ConfigError, match=r"base\.yaml"):
        run(folder)
    (folder / "base.yaml").write_text("MODEL:\n  FILTERS:\n    a: 1\n")
    with pytest.raises(ConfigError, match=r"MODEL\.FILTERS"):
        run(folder)
    with pytest.raises(ConfigError, match="--config-file"):
        import_settings(ImportRequest(None, None))
    assert len(set(known_keys())) == len(known_keys())
