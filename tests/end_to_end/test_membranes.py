"""Thick sections with membranes drawn: ids, training, prediction, segments of each section, scores."""

import json

import numpy as np
import pytest

from incasem.cli import main
from incasem.formatting.generate import GenerateOptions, generate_volumes
from incasem.volumes import open_volume

SHAPE, VOXEL_NM = (8, 112, 112), [40, 10, 10]
SETTINGS = (
    "task.type=affinities task.offsets='[[0,-1,0],[0,0,-1],[0,-6,0],[0,0,-6]]' loss.dice_weight=0.5 "
    "model.type=ResidualUnet model.num_fmaps_out=4 model.filters=[6,12] model.downsample_factors='[[1,2,2]]' "
    "model.kernel_sizes='[[1,3,3],[1,3,3]]' model.io_kernel_size=[1,3,3] "
    "training.input_size_voxels=[3,76,76] training.output_size_voxels=[3,50,50] "
    "validation.input_size_voxels=[3,76,76] validation.output_size_voxels=[3,50,50] "
    "training.optimizer.type=muon training.optimizer.lr=0.01 training.gradient_clip=1 "
    "training.augmentation.elastic=none training.augmentation.simple.transpose_only=[1,2] "
    "training.precache.num_workers=0 training.iterations=40 training.save_every=40 "
    "training.snapshot.every=40 validation.validate_every=40 torch.device=cpu seed=3"
)
GROUP = "volumes/predictions/train_0001/predict_0001"


@pytest.fixture
def sections(shell):
    """Generated neurites in thick sections, of which only the membranes are used, and data configurations."""
    folder = shell.home / "incasem/data"
    generate_volumes(GenerateOptions(folder / "block.zarr", SHAPE, VOXEL_NM, kind="neurites"))
    for name, begin, count in (("train", 0, 6), ("validate", 6, 2)):
        entry = {
            "file": "block.zarr", "voxel_size": VOXEL_NM, "raw": "volumes/raw", "offset": [begin, 0, 0],
            "shape": [count, *SHAPE[1:]], "labels": {"volumes/labels/cell_ids": 1},
        }  # fmt: skip
        (folder / f"{name}.json").write_text(json.dumps({name: entry}))
    return shell


@pytest.mark.slow
def test_membranes_are_learnt_and_sections_segmented(sections, capsys):
    def here(command):
        """Run a command in this process, which spares it the imports; return exit code and output."""
        capsys.readouterr()
        code = main([*command.split(), "-n", "1"])
        return code, "".join(capsys.readouterr())

    data = sections.home / "incasem/data"
    cell = data / "block.zarr"
    code, made = here(
        f"components -f {cell} -d volumes/labels/membrane -o volumes/labels/cell_ids --invert --per_section"
    )
    truth = open_volume(cell / "volumes/labels/cell_ids")
    ids = truth.read_voxels(truth.roi_voxels)
    assert (code, f"{ids.max()} objects" in made) == (0, True)
    places = f"directories.data={data} directories.runs={sections.home}/runs data.voxel_size='{VOXEL_NM}'"
    sections.must(
        f"incasem train --name membranes with {SETTINGS} {places} training.data={data}/train.json "
        f"validation.data={data}/validate.json"
    )
    output = sections.must(
        f"incasem predict --run_id 1 --name all with {places} prediction.data={data}/validate.json "
        "prediction.torch.device=cpu prediction.log_metrics=True"
    )
    scored = next(line for line in output.splitlines() if line.startswith("validate, class 1"))
    assert float(scored.split("F1 ")[1].split(",")[0]) > 0.5

    command = f"segment -f {cell} -d {GROUP}/affinities -t 0.5 0.7 --min_size 20"
    code, message = here(command)
    assert code != 0
    assert "segment each section by itself with --per_section" in message
    assert here(f"{command} --per_section")[0] == 0
    segments = open_volume(cell / GROUP / "segmentation/mean_0.5")
    assert segments.shape == (2, *SHAPE[1:])
    one, two = segments.read_voxels(segments.roi_voxels)
    assert not np.intersect1d(one[one > 0], two[two > 0]).size
    code, evaluated = here(
        f"evaluate-segmentation -l {truth.path} --no_boundaries -s {cell}/{GROUP}/segmentation"
    )
    assert f"{np.count_nonzero(ids[6:])} voxels counted" in evaluated, "all but the membranes"
    errors = [float(line.split()[1]) for line in evaluated.splitlines() if line.startswith("mean_0.")]
    assert len(errors) == 2
    assert min(errors) < 0.25, "0.05 after 60 iterations"
