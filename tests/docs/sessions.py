"""The homes that the commands of the documentation begin in: each with what the page takes as given."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import h5py
import numpy as np
import tifffile
from numpy.typing import NDArray

from incasem.phantom import NEURON_IDS, Phantom, make_neurites, section_membranes
from incasem.volumes import create_volume
from tests.docs.blocks import ROOT, Block
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
# The same for examples/neurons, whose network pools twice.
NEURONS = (
    "model.num_fmaps=2 training.input_size_voxels=[56,56,56] training.output_size_voxels=[14,14,14] "
    "training.iterations=2 training.save_every=1 validation.validate_every=2 training.precache.num_workers=0 "
    "torch.device=cpu"
)
# And for examples/membranes, whose network sees each section by itself.
MEMBRANES = (
    "model.filters=[2,4,6,8] training.input_size_voxels=[2,190,190] training.output_size_voxels=[2,64,64] "
    "validation.input_size_voxels=[2,190,190] validation.output_size_voxels=[2,64,64] "
    "training.iterations=2 training.save_every=1 validation.validate_every=2 training.precache.num_workers=0 "
    "torch.device=cpu"
)
SECTIONS = (12, 160, 160)
# Neurons' volumes are as long as data configurations have it along the axis that these divide, and else thin.
NEURITES = (60, 70, 256)
FIB25 = (60, 250, 80)
BASELINE = (60, 70, 80)  # of FIB25, from where the page says
EPFL = (56, 60, 512)
FIB25_FILE = "fib25_medulla_neurons_10nm_open.h5"
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

# What somebody who ran the examples in this clone has got there.
_LEFT_BEHIND = shutil.ignore_patterns("*.zarr", "*.precomputed", "runs", "predictions")


def _words(shape: Sequence[int]) -> str:
    return " ".join(map(str, shape))


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
_TYPED = """
_typed() {
  case "$1 $2" in
    "incasem view"|"incasem view-rois"|"incasem compare-predictions") _look command "$@"; return;;
  esac
  command "$@" $(_added "$PWD: $*")
}
incasem() { _typed incasem "$@"; }
python() { _typed python "$@"; }
"""
# Nothing is added: every command runs as printed, for as long as that takes.
AS_PRINTED = f"""
set -euo pipefail
{_LOOK}
_added() {{ :; }}
{_TYPED}
"""
# Settings and options go behind those of the page, so that they win; everything else stays as printed.
PRELUDE = f"""
{AS_PRINTED}
_added() {{
  case "$1 " in
    *snemi/config_*) ;;
    */examples/neurons": incasem train "*) echo "{NEURONS}";;
    */examples/neurons": incasem phantom "*) echo "--shape {_words(NEURITES)}";;
    */examples/neurons": incasem baseline-affinities "*) echo "--num_workers 1 --shape {_words(BASELINE)}";;
    */examples/membranes": incasem train "*) echo "{MEMBRANES}";;
    */examples/membranes": incasem phantom "*) echo "--shape {_words((10, *SECTIONS[1:]))}";;
    */examples/membranes": incasem baseline-affinities "*) echo "--shape {_words((3, *SECTIONS[1:]))}";;
    */examples/neurons": incasem segment "*) echo "--num_workers 1 --threshold 0.3";;
    */examples/neurons": incasem e"*) echo "--num_workers 1";;
    *": incasem train"*" with "*|*": incasem check train"*" with "*|*": python train.py"*" with "*)
      echo "{TRAINING}";;
  esac
}}
"""


def typed(
    shell: Shell,
    blocks: Sequence[Block],
    *,
    begin: Path,
    prelude: str = PRELUDE,
    timeout_s: float = TIMEOUT_S,
) -> str:
    """Type blocks of a page one after the other into one shell; return what they printed.

    Args:
        shell: of the session.
        blocks: each has to succeed.
        begin: the folder that the first one is typed in.
        prelude: `PRELUDE`, or `AS_PRINTED`.
        timeout_s: for all of them.
    """
    script = prelude
    for block in blocks:
        script += f"echo '@@ {block.page}, line {block.line}' >&2\n{block.as_bash()}\n"
    done = shell.run(script, begin, timeout_s=timeout_s)
    before, _, last = done.stderr.rpartition("@@ ")
    assert done.returncode == 0, (
        f"exit code {done.returncode} in {last}\n{done.stdout[-3000:]}\n{before[-2000:]}"
    )
    assert "Traceback" not in done.stderr + done.stdout, done.stderr
    return done.stdout


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


def examples(home: Path, phantom: Phantom) -> Shell:
    """The clone with its examples, an environment to activate, and no data."""
    shell = make_home(home)
    shutil.copytree(ROOT / "examples", home / "incasem/examples", ignore=_LEFT_BEHIND)
    activate = home / "incasem/.venv/bin/activate"
    activate.parent.mkdir(parents=True)
    activate.touch()  # the tested environment is active
    return shell


def neurons(home: Path, phantom: Phantom) -> Shell:
    """The same, a stand-in of FIB-25 where the page has it, and regions that are as small as the volumes."""
    shell = examples(home, phantom)
    tissue = make_neurites((FIB25[0], FIB25[1] // 2, FIB25[2]), seed=6)
    ids_ZYX = tissue.labels[NEURON_IDS].astype(np.uint16)
    mirrored = np.concatenate([ids_ZYX, ids_ZYX[:, ::-1] + ids_ZYX.max()], axis=1)
    raw_ZYX = np.concatenate([tissue.raw_ZYX, tissue.raw_ZYX[:, ::-1]], axis=1)
    _write_hdf5(home / "shared/data" / FIB25_FILE, {"raw": raw_ZYX, "labels/neuron_ids": mirrored})
    for name, extent in (("phantom", NEURITES), ("fib25", FIB25)):
        _clip_regions(home / "incasem/examples/neurons/data_configs", name, extent)
    return shell


def organelles(home: Path, phantom: Phantom) -> Shell:
    """The same for the EPFL volume: four mirrored cells, as long as that one and else thin."""
    shell = examples(home, phantom)
    cells = {"raw": phantom.raw_ZYX, "labels/mito": phantom.semantic("mito")}
    part = np.s_[: EPFL[0], : EPFL[1]]
    there_and_back = {n: np.concatenate([a[part], a[part][..., ::-1]] * 2, axis=2) for n, a in cells.items()}
    _write_hdf5(
        home / "shared/data/epfl_ca1_mito_10nm_open.h5",
        {name: array[..., : EPFL[2]] for name, array in there_and_back.items()},
    )
    _clip_regions(home / "incasem/examples/organelles/data_configs", "epfl_mito", EPFL)
    return shell


def membranes(home: Path, phantom: Phantom) -> Shell:
    """The same for two volumes of sections of 50 nm, here parts of one."""
    shell = examples(home, phantom)
    tissue = make_neurites(SECTIONS, seed=6, voxel_size=(50, 4, 4))
    drawn = {
        "raw": tissue.raw_ZYX,
        "labels/membrane": section_membranes(tissue.labels[NEURON_IDS], (50, 4, 4)),
    }
    for name in ("isbi2012_vnc_membrane_4x4x50nm_open", "vnc_drosophila_ssTEM_4.6x4.6x50nm_open"):
        _write_hdf5(home / f"shared/data/{name}.h5", drawn, voxel_size=(50.0, 4.0, 4.0))
    folder = home / "incasem/examples/membranes/data_configs"
    for name in ("phantom", "isbi", "vnc"):
        _clip_regions(folder, name, SECTIONS)
    return shell


def _write_hdf5(
    file: Path, datasets: dict[str, NDArray], voxel_size: Sequence[float] = (10.0, 10.0, 10.0)
) -> None:
    """Write datasets below ``volumes`` as the files in `shared/data` have them; voxel size in nm."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(file, "w") as stored:
        for name, array_ZYX in datasets.items():
            dataset = stored.create_dataset(
                f"volumes/{name}", data=array_ZYX, chunks=True, compression="gzip"
            )
            dataset.attrs.update(offset=np.zeros(3), resolution=np.array(voxel_size), unit="nm")


def _clip_regions(folder: Path, name: str, extent: Sequence[int]) -> None:
    """Let the regions of data configurations that begin with a name end where a volume ends (voxels)."""
    for path in sorted(folder.glob(f"{name}*.json")):
        entries = json.loads(path.read_text())
        for entry in entries.values():
            ends = zip(entry["shape"], entry["offset"], extent, strict=True)
            entry["shape"] = [min(size, end - begin) for size, begin, end in ends]
        path.write_text(json.dumps(entries))


SESSIONS: dict[str, Callable[[Path, Phantom], Shell]] = {
    session.__name__: session
    for session in (
        empty,
        stacks,
        guide,
        cell,
        trained,
        connectomics,
        examples,
        neurons,
        organelles,
        membranes,
    )
}
# Where a session begins, below the home.
BEGINS = dict.fromkeys(("examples", "neurons", "organelles", "membranes"), "incasem")


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
