"""The description of a model as BioImage.IO has it (`rdf.yaml`), in version 0.5 of its format.

Written plainly, so that an export needs none of its packages: they want other versions of ours. A test lets
them judge it, in an environment of their own. https://bioimage.io/docs
"""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from incasem.networks import ResidualUnet
from incasem.sharing.documentation import TEST_INPUT, TEST_OUTPUT
from incasem.sharing.model import SharedModel
from incasem.sharing.sample import Sample
from incasem.sharing.weights import FILES, Weights, describe_weights

DESCRIPTION, DOCUMENTATION, COVER = "rdf.yaml", "README.md", "cover.png"
FORMAT_VERSION = "0.5.12"

_RAW = "raw"
_FLOAT32 = {"id": "ensure_dtype", "kwargs": {"dtype": "float32"}}
_ARCHITECTURE = (
    "10.1007/978-3-319-46723-8_49",
    "Cicek et al., 3D U-Net: Learning dense volumetric segmentation from sparse annotation, MICCAI 2016",
)
_TAGS = ["3d", "electron-microscopy", "unet", "pytorch", "incasem"]


def description(
    model: SharedModel, sample: Sample, weights: Sequence[Weights], folder: Path
) -> dict[str, Any]:
    """Return the description of the files that lie in ``folder``.

    Sizes are those of a network that does not pad: inputs ``smallest + k * stride``, outputs smaller by
    twice the context. That is an offset of the output's size, not a `halo`, which would have to be cropped.
    Where the result depends on the tile, the size is that of the one tile that incasem predicts with.
    """
    about, outputs = model.about, model.outputs
    cite = dict([*about.cite, *outputs.cite, *([] if _is_residual(model) else [_ARCHITECTURE])])
    entries: dict[str, Any] = {
        "type": "model",
        "format_version": FORMAT_VERSION,
        "name": model.name,
        "description": model.description,
        "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        "authors": [{"name": name} for name in about.authors],
        "cite": [{"text": text, "doi": doi} for doi, text in cite.items()],
        "documentation": _file(folder, DOCUMENTATION),
        "covers": [_file(folder, COVER)],
        "tags": list(dict.fromkeys([*_TAGS, *outputs.tags])),
        "inputs": [_input(model, sample, folder)],
        "outputs": [_output(model, folder)],
        "weights": {
            name: _file(folder, FILES[name])
            | describe_weights(name)
            | ({} if name == weights[0] else {"parent": weights[0]})
            for name in weights
        },
        "config": {
            "bioimageio": {"reproducibility_tolerance": [{"absolute_tolerance": 1e-3}]},
            "incasem": {
                "run_id": model.run_id,
                "iteration": model.iteration,
                "checkpoint": model.checkpoint.name,
                "model": dict(model.settings),
                "context_voxels": list(model.network.context_voxels),
                "stride_voxels": list(model.network.stride),
                **outputs.settings(),
            },
        },
    }
    return entries | ({"license": about.license} if about.license is not None else {})


def write_description(entries: Mapping[str, Any], folder: Path) -> None:
    """Write the description to ``folder``."""
    (folder / DESCRIPTION).write_text(yaml.safe_dump(_plain(entries), sort_keys=False, allow_unicode=True))


def _input(model: SharedModel, sample: Sample, folder: Path) -> dict[str, Any]:
    return {
        "id": _RAW,
        "description": "grey values, membranes dark",
        "axes": [
            {"type": "batch"},
            {"type": "channel", "channel_names": ["raw"]},
            *(_space(model, i) | {"size": _input_size(model, i)} for i in range(3)),
        ],
        "data": {"type": str(sample.raw_NCZYX.dtype)},
        "test_tensor": _file(folder, TEST_INPUT),
        "preprocessing": [
            _FLOAT32,
            {"id": "scale_linear", "kwargs": {"gain": sample.gain, "offset": -1.0}},
            _FLOAT32,  # said again: readers turn the result back into the type of the input otherwise
        ],
    }


def _output(model: SharedModel, folder: Path) -> dict[str, Any]:
    context, outputs = model.network.context_voxels, model.outputs
    return {
        "id": outputs.tensor,
        "description": outputs.meaning,
        "axes": [
            {"type": "batch"},
            {"type": "channel", "channel_names": list(outputs.channels)},
            *(_space(model, i) | {"size": _less(axis, 2 * context[i])} for i, axis in enumerate("zyx")),
        ],
        "data": {"type": "float32"},
        "test_tensor": _file(folder, TEST_OUTPUT),
        "postprocessing": [dict(outputs.postprocessing)],
    }


def _is_residual(model: SharedModel) -> bool:
    return isinstance(model.network, ResidualUnet)


def _input_size(model: SharedModel, i: int) -> int | dict[str, int]:
    if model.fixed_input is not None:
        return model.fixed_input[i]
    return {"min": model.network.smallest_input[i], "step": model.network.stride[i]}


def _space(model: SharedModel, i: int) -> dict[str, Any]:
    return {"type": "space", "id": "zyx"[i], "unit": "nanometer", "scale": model.voxel_size[i]}


def _less(axis: str, voxels: int) -> dict[str, Any]:
    return {"tensor_id": _RAW, "axis_id": axis, "offset": -voxels}


def _file(folder: Path, name: str) -> dict[str, Any]:
    return {"source": name, "sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest()}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
