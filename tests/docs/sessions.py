"""The homes that the commands of the documentation begin in: each with what the page takes as given."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tifffile

from incasem.phantom import Phantom
from incasem.volumes import create_volume
from tests.end_to_end.conftest import Shell, make_home
from tests.end_to_end.stand_ins import write_cell, write_checkpoint

SHAPE = (112, 116, 150)
REGIONS = {
    "my_train": ([0, 0, 0], [112, 116, 100]),
    "my_validation": ([0, 0, 100], [112, 116, 50]),
    "my_cell": ([30, 30, 90], [40, 44, 60]),
}
CHECKPOINT = "incasem/models/pretrained_checkpoints/model_checkpoint_1841_er_CF.pt"
TIMEOUT_S = 1200  # of a page, which takes half a minute on a machine with nothing else to do
# What only a test adds to the trainings in the documentation.
TRAINING = (
    "model.num_fmaps=2 training.input_size_voxels=[108,108,108] training.output_size_voxels=[14,14,14] "
    "training.iterations=2 training.save_every=1 validation.validate_every=2 training.precache.num_workers=0 "
    "torch.device=cpu"
)
_PYTC_BASE = """
SYSTEM: {NUM_GPUS: 0, NUM_CPUS: 0}
MODEL:
  INPUT_SIZE: [5, 33, 33]
  OUTPUT_SIZE: [5, 33, 33]
  FILTERS: [4, 6, 8]
  ISOTROPY: [false, false, true]
  NORM_MODE: gn
  TARGET_OPT: ["2"]
  LABEL_EROSION: 1
  LOSS_OPTION: [["WeightedBCEWithLogitsLoss", "DiceLoss"]]
  LOSS_WEIGHT: [[1.0, 0.5]]
  WEIGHT_OPT: [["1", "0"]]
DATASET:
  IMAGE_NAME: train-input.tif
  LABEL_NAME: train-labels.tif
  INPUT_PATH: datasets/SNEMI3D/
SOLVER: {ITERATION_TOTAL: 3, ITERATION_SAVE: 3, SAMPLES_PER_BATCH: 1}
INFERENCE: {IMAGE_NAME: test-input.tif, STRIDE: [4, 16, 16]}
"""
_PYTC_FILE = """
MODEL: {ARCHITECTURE: unet_3d, BLOCK_TYPE: residual_se}
DATASET: {OUTPUT_PATH: outputs/SNEMI_UNet}
INFERENCE: {OUTPUT_PATH: outputs/SNEMI_UNet/test}
"""
# What a viewer prints is waited for, then it is ended: nobody sits before it.
_LOOK = """
_look() {
  "$@" --no-browser > ~/.look.log 2>&1 &
  local viewer=$!
  for _ in $(seq 240); do
    if grep -q 'http://127.0.0.1:' ~/.look.log; then break; fi
    if ! kill -0 $viewer 2> /dev/null; then break; fi
    sleep 0.5
  done
  grep 'http://127.0.0.1:' ~/.look.log || { cat ~/.look.log >&2; return 1; }
  kill $viewer
  wait $viewer || true
}
"""
# `with` settings go behind those of the page, so that they win; everything else stays as printed.
PRELUDE = f"""
set -euo pipefail
{_LOOK}
_typed() {{
  case "$1 $2" in
    "incasem view"|"incasem view-rois"|"incasem compare-predictions") _look command "$@"; return;;
  esac
  case "$*" in
    *snemi/config_*) command "$@"; return;;
  esac
  case "$* " in
    *" with "*) case "$1 $2 $3" in
      "incasem train "*|"incasem check train"|"python train.py "*) command "$@" {TRAINING}; return;;
    esac;;
  esac
  command "$@"
}}
incasem() {{ _typed incasem "$@"; }}
python() {{ _typed python "$@"; }}
cd ~
"""


def empty(home: Path, phantom: Phantom) -> Shell:
    """A home with the clone, and nothing else."""
    return make_home(home)


def stacks(home: Path, phantom: Phantom) -> Shell:
    """Images and annotations as stacks of TIFF sections, and data configurations of the cell to be."""
    shell = make_home(home)
    _write_configs(home)
    _write_stacks(phantom, home / "my_images", home / "my_er_annotations")
    return shell


def guide(home: Path, phantom: Phantom) -> Shell:
    """The same where the published guide has them."""
    shell = make_home(home)
    data = home / "incasem/data"
    _write_stacks(phantom, data / "my_new_data", data / "my_new_er_annotations")
    return shell


def cell(home: Path, phantom: Phantom) -> Shell:
    """A formatted cell, data configurations of it, and a published checkpoint (of a small network)."""
    shell = make_home(home)
    file = home / "incasem/data/my_cell.zarr"
    write_cell(file, phantom, (0, 0, 0), "er", mask=True)
    for name, array_ZYX in (
        ("volumes/raw", phantom.raw_ZYX),
        ("volumes/metric_masks/er", np.full(SHAPE, 255, np.uint8)),
    ):
        volume = create_volume(file / name, shape=SHAPE, dtype=np.uint8, voxel_size=(5, 5, 5))
        volume.write_voxels(volume.roi_voxels, array_ZYX)
    _write_configs(home)
    write_checkpoint(home / CHECKPOINT, num_fmaps=2)  # a training here is one of a small network
    return shell


def trained(home: Path, phantom: Phantom) -> Shell:
    """The same, and training 1, validated, in the run store."""
    shell = cell(home, phantom)
    shell.must(
        f"{PRELUDE}\ncd ~/incasem/scripts/02_train\n"
        "incasem train --name my_training with config_training.yaml "
        "training.data=data_configs/my_train.json validation.data=data_configs/my_validation.json",
        timeout_s=TIMEOUT_S,
    )
    write_checkpoint(home / CHECKPOINT)  # a prediction with a published id is one of the published network
    return shell


def connectomics(home: Path, phantom: Phantom) -> Shell:
    """A clone of PyTorch Connectomics as far as its settings and volumes go, all of them small."""
    shell = make_home(home)
    root = home / "pytorch_connectomics"
    configs, data = root / "configs/SNEMI", root / "datasets/SNEMI3D"
    configs.mkdir(parents=True)
    data.mkdir(parents=True)
    (configs / "SNEMI-Base.yaml").write_text(_PYTC_BASE)
    (configs / "SNEMI-Affinity-UNet.yaml").write_text(_PYTC_FILE)
    part = np.s_[:24, :80, :80]
    for name in ("train", "test"):
        tifffile.imwrite(data / f"{name}-input.tif", phantom.raw_ZYX[part])
        tifffile.imwrite(data / f"{name}-labels.tif", (phantom.labels["er"][part] + 1).astype(np.uint16))
    return shell


SESSIONS: dict[str, Callable[[Path, Phantom], Shell]] = {
    session.__name__: session for session in (empty, stacks, guide, cell, trained, connectomics)
}


def _write_configs(home: Path) -> None:
    for name, (offset, shape) in REGIONS.items():
        entry = {
            "file": "my_cell.zarr", "offset": offset, "shape": shape,
            "voxel_size": [5, 5, 5], "raw": "volumes/raw_equalized_0.02",
            "metric_masks": ["volumes/metric_masks/er"], "labels": {"volumes/labels/er": 1},
        }  # fmt: skip
        for folder in ("02_train", "03_predict"):
            path = home / f"incasem/scripts/{folder}/data_configs/{name}.json"
            path.write_text(json.dumps({f"{name}_er": entry}))


def _write_stacks(phantom: Phantom, images: Path, annotations: Path) -> None:
    for folder, volume_ZYX in ((images, phantom.raw_ZYX), (annotations, phantom.semantic("er"))):
        folder.mkdir(parents=True)
        for z, section_YX in enumerate(volume_ZYX):
            tifffile.imwrite(folder / f"section_{z:04d}.tif", section_YX)
