"""Neurons with the commands of organelles: check, train, predict, score."""

import json

import numpy as np
import pytest

from incasem.tasks.affinity_targets import affinity_targets
from incasem.volumes import create_volume, open_volume

SHAPE = (48, 48, 112)
OFFSETS = [[-1, 0, 0], [0, -1, 0], [0, 0, -1], [0, 0, -6]]
SETTINGS = (
    "task.type=affinities task.offsets='[[-1,0,0],[0,-1,0],[0,0,-1],[0,0,-6]]' task.border_erosion=1 "
    "loss.dice_weight=0.5 model.num_fmaps_out=4 "
    "training.precache.num_workers=1 training.iterations=60 training.save_every=60 "
    "validation.validate_every=60 training.snapshot.every=60 training.augmentation.elastic=none "
    "torch.device=cpu training.precision=fp32 validation.precision=fp32 seed=3"
)
NETWORKS = {
    "Unet": "training.optimizer.lr=0.003 model.num_fmaps=4 model.downsample_factors='[[2,2,2]]' "
    "training.input_size_voxels=[44,44,44] training.output_size_voxels=[26,26,26]",
    "ResidualUnet": "training.optimizer.lr=0.01 model.type=ResidualUnet model.filters=[4,8] "
    "model.downsample_factors='[[1,2,2]]' "
    "model.kernel_sizes='[[1,3,3],[3,3,3]]' model.io_kernel_size=[1,3,3] model.norm=group "
    "model.activation=elu training.input_size_voxels=[32,44,44] training.output_size_voxels=[26,18,18] "
    "validation.input_size_voxels=[32,44,44] validation.output_size_voxels=[26,18,18]",
}


@pytest.fixture
def neurons(shell):
    """Boxes of random ids beyond 32 bits with dark borders, and a volume without labels."""
    rng = np.random.default_rng(1)
    coarse = rng.permutation(np.prod([size // 8 for size in SHAPE])).reshape([size // 8 for size in SHAPE])
    ids = (coarse.repeat(8, 0).repeat(8, 1).repeat(8, 2) + 2**35).astype(np.int64)
    border = (affinity_targets(ids)[0] == 0).any(axis=0)
    raw = np.clip(np.where(border, 60, 170) + rng.normal(0, 8, SHAPE), 0, 255).astype(np.uint8)
    folder = shell.home / "incasem/data"
    for name, array in (("raw", raw), ("labels/neuron_ids", ids)):
        volume = create_volume(
            folder / f"block.zarr/volumes/{name}", shape=SHAPE, dtype=array.dtype, voxel_size=(8, 8, 8),
            chunk_shape=(32, 32, 32),
        )  # fmt: skip
        volume.write_voxels(volume.roi_voxels, array)
    for name, begin, width in (("train", 0, 72), ("validate", 72, 40)):
        entry = {
            "file": "block.zarr", "voxel_size": [8, 8, 8], "raw": "volumes/raw", "offset": [0, 0, begin],
            "shape": [48, 48, width], "labels": {"volumes/labels/neuron_ids": 1},
        }  # fmt: skip
        (folder / f"{name}.json").write_text(json.dumps({name: entry}))
    return shell


@pytest.mark.slow  # `tests/docs` types the same commands, those of examples/neurons
@pytest.mark.parametrize("network", ["Unet", "ResidualUnet"])
def test_neurons_are_trained_predicted_and_scored(neurons, network):
    data, runs = neurons.home / "incasem/data", neurons.home / "runs"
    places = f"directories.data={data} directories.runs={runs} data.voxel_size=[8,8,8]"
    training = (
        f"--name neurons with {SETTINGS} {NETWORKS[network]} {places} training.data={data}/train.json "
        f"validation.data={data}/validate.json"
    )
    checked = neurons.must(f"incasem check train {training}")
    assert "neuron_ids: 324 objects" in checked
    output = neurons.must(f"incasem train {training}")
    assert "class 1 is the boundary" in output
    prediction = (
        f"--run_id 1 --name boxes with {places} prediction.data={data}/validate.json "
        "prediction.precision=fp32 prediction.torch.device=cpu prediction.log_metrics=True"
    )
    if network == "ResidualUnet":
        prediction += " prediction.input_size_voxels=[32,44,44] prediction.output_size_voxels=[26,18,18]"
    assert "affinities" in neurons.must(f"incasem check predict {prediction}")
    output = neurons.must(f"incasem predict {prediction}")
    scored = next(line for line in output.splitlines() if line.startswith("validate, class 1"))
    assert float(scored.split("F1 ")[1].split(",")[0]) > 0.8
    affinities = open_volume(data / "block.zarr/volumes/predictions/train_0001/predict_0001/affinities")
    assert affinities.attributes["offsets"] == OFFSETS
    assert affinities.shape == (4, 48, 48, 40)
    (report,) = (runs / "reports/predict_0001").glob("*.html")
    page = report.read_text()
    for shown in (
        "class 1 is the boundary",
        "objects of the labels",
        "affinities z, y, x as red, green, blue",
    ):
        assert shown in page
    assert "incasem export" not in page, "which writes volumes of three axes"
    assert "incasem segment" in page
    group = "volumes/predictions/train_0001/predict_0001"
    neurons.must(f"incasem segment -f {data}/block.zarr -d {group}/affinities -t 0.5")
    (segmentation,) = (data / "block.zarr" / group / "segmentation").glob("mean*")
    objects = open_volume(segmentation)
    assert objects.shape == (48, 48, 40)
    assert np.unique(objects.read_voxels(objects.roi_voxels)).size > 50, "of 180 boxes"
