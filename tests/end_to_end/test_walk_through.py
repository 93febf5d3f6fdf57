"""The walk-through of the published guide, with its commands as printed, on a phantom cell.

Only what the guide leaves to the user differs: a small network and few iterations, so that it fits a test.
"""

import json

import numpy as np
import pytest
import tifffile

from incasem.phantom import make_phantom
from incasem.volumes import open_volume
from tests.end_to_end.conftest import make_home

pytestmark = pytest.mark.slow  # `test_guide.py` types the same commands in the folders of the guide

SHAPE = (112, 120, 144)
TRAIN = {"offset": [0, 0, 0], "shape": [112, 120, 96]}
VALIDATE = {"offset": [0, 0, 96], "shape": [112, 120, 48]}
SMALL_NETWORK = (
    "model.num_fmaps=4 training.input_size_voxels=[132,132,132] training.output_size_voxels=[38,38,38] "
    "validation.input_size_voxels=[132,132,132] validation.output_size_voxels=[38,38,38] "
    "training.precache.num_workers=0 training.iterations=4 training.save_every=2 validation.validate_every=4 "
    "training.snapshot.every=4 validation.snapshot.every=1 torch.device=cpu"
)


def write_stack(folder, volume_ZYX):
    folder.mkdir(parents=True)
    for index, section_YX in enumerate(volume_ZYX):
        tifffile.imwrite(folder / f"section_{index}.tif", section_YX)


@pytest.fixture(scope="module")
def cell():
    return make_phantom(SHAPE, seed=3)


@pytest.fixture(scope="module", params=["directory", "mongodb"])
def home(request, cell, tmp_path_factory):
    """A home after formatting: everything up to and including the metric mask."""
    shell = make_home(tmp_path_factory.mktemp(request.param) / "home")
    url = None
    if request.param == "mongodb":
        url = request.getfixturevalue("mongod").address  # host:port, as the published files have it
    data = shell.home / "incasem/data"
    write_stack(shell.home / "old/data/location", cell.raw_ZYX)
    write_stack(shell.home / "old/annotations/location", (cell.labels["mito"] > 0).astype(np.uint8))
    shell.must("cp -r old/data/location ~/incasem/data/my_new_data")
    shell.must("cp -r old/annotations/location ~/incasem/data/my_new_mito_annotations")
    cwd = shell.home / "incasem/scripts/01_data_formatting"
    for command in (
        "python 00_image_sequences_to_zarr.py -i ~/incasem/data/my_new_data"
        " -f ~/incasem/data/my_new_data.zarr",
        "python 40_equalize_histogram.py -f ~/incasem/data/my_new_data.zarr -d volumes/raw"
        " -o volumes/raw_equalized",
        "python 20_create_mask.py -f ~/incasem/data/my_new_data.zarr -d volumes/raw",
        "python 00_image_sequences_to_zarr.py -i ~/incasem/data/my_new_mito_annotations"
        " -f ~/incasem/data/my_new_data.zarr -d volumes/labels/mito --dtype uint32",
        "python 60_create_metric_mask.py -f ~/incasem/data/my_new_data.zarr -d volumes/labels/mito"
        " --out_dataset volumes/metric_masks/mito --exclude_voxels_inwards 4 --exclude_voxels_outwards 4",
    ):
        shell.must(command, cwd)
    for name, roi in (("train", TRAIN), ("validate", VALIDATE)):
        entry = {
            "file": "my_new_data.zarr", **roi, "voxel_size": [5, 5, 5], "raw": "volumes/raw_equalized",
            "labels": {"volumes/labels/mito": 1}, "metric_masks": ["volumes/metric_masks/mito"],
        }  # fmt: skip
        for folder in ("02_train", "03_predict"):
            path = shell.home / f"incasem/scripts/{folder}/data_configs/{name}.json"
            path.write_text(json.dumps({f"my_cell_{name}": entry}))
    if url is not None:
        for folder, name in (("02_train", "trainings"), ("03_predict", "predictions")):
            settings = {"url": url, "db_name": f"incasem_{name}"}
            path = shell.home / f"incasem/scripts/{folder}/{name}_db.json"
            path.write_text(json.dumps(settings))
    assert open_volume(data / "my_new_data.zarr/volumes/raw").shape == SHAPE
    return shell


def test_formatting_kept_every_voxel(home, cell):
    file = home.home / "incasem/data/my_new_data.zarr"
    raw = open_volume(file / "volumes/raw")
    assert raw.voxel_size == (5, 5, 5)
    np.testing.assert_array_equal(raw.read(raw.roi), cell.raw_ZYX)
    labels = open_volume(file / "volumes/labels/mito")
    assert labels.dtype == np.uint32
    np.testing.assert_array_equal(labels.read(labels.roi), cell.labels["mito"] > 0)


def test_train_predict_export(home):
    train, predict, post = (
        home.home / "incasem/scripts" / d for d in ("02_train", "03_predict", "04_postprocessing")
    )
    output = home.must(
        "python train.py --name example_training with config_training.yaml "
        "training.data=data_configs/train.json validation.data=data_configs/validate.json " + SMALL_NETWORK,
        train,
    )
    runs = home.home / "incasem/training_runs"
    checkpoint = runs / "models/0001/model_checkpoint_4"
    assert checkpoint.exists(), output
    assert (runs / "models/0001/model_checkpoint_4.json").exists()
    assert list((runs / "tensorboard/0001/training").glob("events*"))
    assert list((runs / "tensorboard/0001/validation/my_cell_validate").glob("events*"))
    assert (runs / "snapshots/0001/training/4.zarr/raw").exists()

    output = home.must(
        "python predict.py --run_id 1 --name example_prediction with config_prediction.yaml "
        f"'prediction.data=data_configs/validate.json' 'prediction.checkpoint={checkpoint}' "
        "prediction.torch.device=cpu prediction.log_metrics=True",
        predict,
    )
    group = "volumes/predictions/train_0001/predict_0001"
    file = home.home / "incasem/data/my_new_data.zarr"
    segmentation = open_volume(file / group / "segmentation")
    assert list(segmentation.roi_voxels.offset) == VALIDATE["offset"]
    assert list(segmentation.roi_voxels.shape) == VALIDATE["shape"]
    probability = open_volume(file / group / "prob_maps/class_1").read(segmentation.roi)
    assert probability.min() > 0, "a voxel that was never written would be 0"

    home.must(
        "python 20_convert_zarr_to_image_sequence.py --filename ~/incasem/data/my_new_data.zarr "
        f"--datasets {group}/segmentation --out_directory ~/incasem/data/cell --out_datasets example",
        post,
    )
    sections = sorted((home.home / "incasem/data/cell/example").glob("section_*.tif"))
    assert len(sections) == VALIDATE["shape"][0]
    np.testing.assert_array_equal(
        tifffile.imread(sections[7]) > 0, segmentation.read(segmentation.roi)[7] > 0
    )
