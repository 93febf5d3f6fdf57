"""From the YAML files of PyTorch Connectomics v1 to ours: training, prediction, and volumes."""

import json
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from incasem.config import load_data_config, load_prediction_config, load_training_config
from incasem.durable import sync, write_durably
from incasem.errors import ConfigError, DataError, explain
from incasem.sharing.connectomics.data import Volumes, common_folder, data_config, map_volumes
from incasem.sharing.connectomics.listing import Listing
from incasem.sharing.connectomics.settings import read_settings
from incasem.sharing.connectomics.task import map_network, map_task
from incasem.sharing.connectomics.training import map_training, number, sizes

TRAINING, PREDICTION, LISTING = "config_training.yaml", "config_prediction.yaml", "import-pytc.txt"
_HEADER = "# Made of PyTorch Connectomics settings; import-pytc.txt says what became of each of them.\n"


@dataclass(frozen=True)
class ImportRequest:
    """What is to be imported, and where to.

    Attributes:
        base: file of ``--config-base``.
        file: file of ``--config-file``.
        options: KEY VALUE KEY VALUE …
        output: folder of the files to write.
        resolution: voxel size, nm, z, y, x, which the other program does not know; None: what the images
            state.
        ignore_unknown: take keys that version 1 does not have, rather than refuse them.
    """

    base: Path | None
    file: Path | None
    options: Sequence[str] = ()
    output: Path = Path()
    resolution: tuple[float, float, float] | None = None
    ignore_unknown: bool = False


@dataclass(frozen=True)
class Import:
    """What was written.

    Attributes:
        files: in the order of their use.
        listing: what became of each key.
        missing: volumes that are not there now.
        gpus: how many there were to be.
        predicts: whether volumes to predict were named.
    """

    files: tuple[Path, ...]
    listing: Listing
    missing: tuple[str, ...]
    gpus: int
    predicts: bool

    def commands(self) -> list[str]:
        """Return what to type next."""
        folder = self.files[0].parent
        start = f"torchrun --nproc_per_node={self.gpus} -m incasem" if self.gpus > 1 else "incasem"
        train = f"{start} train --name NAME with {folder / TRAINING}"
        predict = f"incasem predict --run_id ID --name NAME with {folder / PREDICTION}"
        return [train, predict] if self.predicts else [train]


def import_settings(request: ImportRequest) -> Import:
    """Write our settings of a training (and of a prediction) that PyTorch Connectomics' settings describe.

    The files are checked by the loader that reads them later; only then they appear.

    Raises:
        ConfigError: settings that cannot be read, that have no counterpart at all, or no voxel size; files
            exist.
    """
    if request.base is None and request.file is None:
        raise ConfigError(explain("--config-file", "missing", "a YAML file", "Give it, and --config-base"))
    settings = read_settings(
        request.base, request.file, request.options, ignore_unknown=request.ignore_unknown
    )
    listing = Listing(settings)
    purposes = {
        "training": (
            "DATASET.INPUT_PATH",
            ("DATASET.IMAGE_NAME", "DATASET.LABEL_NAME", "DATASET.VALID_MASK_NAME"),
        ),
        "validation": (
            "DATASET.INPUT_PATH",
            ("DATASET.VAL_IMAGE_NAME", "DATASET.VAL_LABEL_NAME", "DATASET.VAL_VALID_MASK_NAME"),
        ),
        "prediction": ("INFERENCE.INPUT_PATH", ("INFERENCE.IMAGE_NAME",)),
    }
    volumes = {purpose: map_volumes(listing, purpose, *keys) for purpose, keys in purposes.items()}
    found = {purpose: one for purpose, one in volumes.items() if one is not None}
    if "training" not in found:
        raise ConfigError(
            explain("DATASET.IMAGE_NAME", None, "a file, or several separated by @", "Name the images")
        )
    if any("labels" not in entry for entry in found["training"].entries.values()):
        raise ConfigError(
            explain("DATASET.LABEL_NAME", None, "a file, or one for each image", "Name the annotations")
        )
    voxel_size = _voxel_size(request, list(found.values()))
    folder = request.output.expanduser().absolute()
    learnt_from = common_folder([found[name] for name in ("training", "validation") if name in found])
    predicted = common_folder([found["prediction"]]) if "prediction" in found else learnt_from
    texts = {}
    for purpose, one in found.items():
        data = data_config(one, predicted if purpose == "prediction" else learnt_from, voxel_size)
        texts[f"{purpose}.json"] = json.dumps(data, indent=4) + "\n"
    directories = {"data": learnt_from}
    if "DATASET.OUTPUT_PATH" in settings.given:
        directories["runs"] = _absolute(settings["DATASET.OUTPUT_PATH"])
        listing.take("directories.runs", "DATASET.OUTPUT_PATH")
    training = {"directories": directories, **_training(listing, folder, found, voxel_size)}
    directories = directories | {"data": predicted}
    prediction = {"directories": directories, **_prediction(listing, folder, found, training)}
    texts[TRAINING], texts[PREDICTION] = _yaml(training), _yaml(prediction)
    gpus = number(listing, "SYSTEM.NUM_GPUS", whole=True)
    listing.take("processes of torchrun", "SYSTEM.NUM_GPUS")
    listing.finish()
    texts[LISTING] = "\n".join(listing.lines(with_taken=True)) + "\n"
    _write(folder, texts)
    missing = tuple(dict.fromkeys(file for one in found.values() for file in one.missing))
    return Import(tuple(folder / name for name in texts), listing, missing, gpus, "prediction" in found)


def _voxel_size(request: ImportRequest, volumes: Sequence[Volumes]) -> tuple[float, float, float]:
    given = request.resolution
    if given is not None:
        if not all(math.isfinite(v) and v > 0 for v in given):
            raise ConfigError(explain("--resolution", list(given), "three sizes above 0, nm", "Correct it"))
        return given
    stated = {one.stated for one in volumes}
    (size,) = stated if len(stated) == 1 else (None,)
    if size is None:
        raise ConfigError(
            explain(
                "the voxel size", "neither in the settings nor the same in all images", "sizes in nm",
                "Give it, for SNEMI3D: --resolution 30 6 6",
            )
        )  # fmt: skip
    return size


def _training(
    listing: Listing, folder: Path, found: Mapping[str, Volumes], voxel_size: Sequence[float]
) -> dict[str, Any]:
    task = map_task(listing)
    channels = len(task["task"].get("offsets", ())) or 2
    model = map_network(listing, channels)
    size = _network_sizes(listing, model)
    validation = {
        "data": str(folder / "validation.json") if "validation" in found else None,
        "validate_every": number(listing, "SOLVER.ITERATION_VAL", whole=True, least=1),
        **size,
    }
    listing.take("validation.validate_every", "SOLVER.ITERATION_VAL")
    on_cpu = listing.settings["SYSTEM.NUM_GPUS"] == 0
    return {
        "training": {"data": str(folder / "training.json"), **map_training(listing), **size},
        "validation": validation,
        "task": task["task"],
        "data": {"voxel_size": list(voxel_size), **task["data"]},
        "model": model,
        "loss": task["loss"],
        "torch": {"device": "cpu" if on_cpu else 0},
    }


def _network_sizes(listing: Listing, model: Mapping[str, Any]) -> dict[str, list[int]]:
    """Return input and output of a sample: at least what is learnt of there, with the context it takes."""
    from incasem.networks import build_network

    wanted = sizes(listing, "MODEL.OUTPUT_SIZE")
    network = build_network(model)
    read = network.input_shape_for(wanted)
    kept = network.output_shape(read)
    listing.take(
        "training.output_size_voxels", "MODEL.OUTPUT_SIZE", but="at least that; the next size of the network"
    )
    listing.take(
        "training.input_size_voxels",
        "MODEL.INPUT_SIZE",
        but="with the context that the network reads around its output",
    )
    return {"input_size_voxels": list(map(int, read)), "output_size_voxels": list(map(int, kept))}


def _prediction(
    listing: Listing, folder: Path, found: Mapping[str, Volumes], training: Mapping[str, Any]
) -> dict[str, Any]:
    settings = listing.settings
    made: dict[str, Any] = {"data": str(folder / "prediction.json") if "prediction" in found else None}
    if settings["INFERENCE.OUTPUT_PATH"]:
        made["directories"] = {"prefix": _absolute(settings["INFERENCE.OUTPUT_PATH"])}
        listing.take("prediction.directories.prefix", "INFERENCE.OUTPUT_PATH")
    listing.lose("INFERENCE.OUTPUT_NAME", "results are Zarr; for one HDF5 file: incasem export-h5")
    views = settings["INFERENCE.AUG_NUM"]
    if views is not None:
        views = number(listing, "INFERENCE.AUG_NUM", whole=True)
    made["tta"] = {None: "none", 0: "none", 4: 8, 8: 8, 16: 16}.get(views, 8)
    if views in (None, 0, 8, 16):
        listing.take("prediction.tta", "INFERENCE.AUG_NUM")
    else:
        listing.take("prediction.tta", "INFERENCE.AUG_NUM", but="of 8 mirror images")
    if settings["INFERENCE.AUG_MODE"] == "mean":
        listing.take("prediction.tta", "INFERENCE.AUG_MODE")
    else:
        listing.lose(
            "INFERENCE.AUG_MODE",
            "views are averaged, edges moved and exchanged with them (there they are not)",
        )
    device = training["torch"]["device"]
    shared = {name: training[name] for name in ("task", "data", "model")}
    return {**shared, "prediction": made | {"torch": {"device": device}}}


def _absolute(path: Any) -> str:
    return os.path.abspath(os.path.expanduser(str(path)))


def _yaml(values: Mapping[str, Any]) -> str:
    plain = json.loads(json.dumps(values))  # no two places share a list, which YAML would show
    return _HEADER + yaml.safe_dump(plain, sort_keys=False, default_flow_style=None, width=100)


def _write(folder: Path, texts: Mapping[str, str]) -> None:
    """Write all files or none: they are read by their own loaders first."""
    existing = [name for name in texts if (folder / name).exists()]
    if existing:
        raise ConfigError(
            explain(
                "--output",
                folder,
                "a folder without " + ", ".join(existing),
                "Choose another one, or delete them",
            )
        )
    with tempfile.TemporaryDirectory() as place:
        for name, text in texts.items():
            Path(place, name).write_text(text)
        try:
            load_training_config(Path(place, TRAINING))
            load_prediction_config(Path(place, PREDICTION))
            for name in texts:
                if name.endswith(".json"):
                    load_data_config(Path(place, name), folder)
        except ConfigError as error:
            said = str(error).replace(f"{place}/", "")
            raise ConfigError(f"what these settings become cannot be, nothing was written: {said}") from error
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            write_durably(folder / name, text.encode())
        sync(folder)
    except OSError as error:
        raise DataError(f"{folder} cannot be written: {error}. Choose a folder you may write.") from error
