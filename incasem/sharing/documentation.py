"""The page that travels with a shared model: what it is for, how to run it, how good it is."""

from collections.abc import Sequence

from incasem.sharing.model import SharedModel
from incasem.sharing.sample import Sample
from incasem.sharing.weights import FILES, Weights

TEST_INPUT, TEST_OUTPUT = "test_input.npy", "test_output.npy"

_ANY_TILE = (
    "let neighbouring inputs overlap by twice that context, and begin tiles on multiples of the stride: then "
    "they fit together without seams. `incasem predict` does that."
)
_ONE_TILE = (
    "take inputs of the one size below, and overlap them by twice that context. This network normalises over "
    "the whole of its input (`model.norm: group`), so a voxel's result depends a little on the tile around "
    "it: other sizes are possible, but give other numbers, and tiles show faint seams. The numbers are those "
    "of `incasem predict` for the same tile; it lays tiles on multiples of the output's size (rounded down "
    "to the stride) from the origin of the volume, other programs elsewhere."
)


def readme(model: SharedModel, sample: Sample, weights: Sequence[Weights], *, described: bool) -> str:
    """Return the page in Markdown.

    Args:
        model: what is shared.
        sample: its test.
        weights: formats that lie beside the page.
        described: a model description (``rdf.yaml``) lies there, too, and with it the output behind the
            activation as test.
    """
    parts = [
        f"# {model.name}\n\n{model.description}",
        _use(model, sample, weights, described),
        _sizes(model),
        _validation(model, described),
        _origin(model),
    ]
    return "\n\n".join(parts) + "\n"


def _use(model: SharedModel, sample: Sample, weights: Sequence[Weights], described: bool) -> str:
    lines = ["## Use", ""]
    if described:
        lines += [
            "Programs that read BioImage.IO models (ilastik, deepImageJ, `bioimageio.core`) need nothing but "
            "`rdf.yaml` beside this page, or the whole folder as a zip file. In Python by hand:",
        ]
    else:
        lines += ["In Python:"]
    lines += ["", "```python", "import numpy as np"]
    if "torchscript" in weights:
        lines += ["import torch", "", f'network = torch.jit.load("{FILES["torchscript"]}")']
        call = "network(torch.from_numpy(raw)).numpy()"
    else:
        lines += ["import onnxruntime", "", f'network = onnxruntime.InferenceSession("{FILES["onnx"]}")']
        call = 'network.run(None, {"raw": raw})[0]'
    lines += [
        f'stored = np.load("{TEST_INPUT}")  # {sample.raw_NCZYX.dtype}, batch, channel, z, y, x',
        f"raw = stored.astype(np.float32) * np.float32({sample.gain!r}) - 1",
        f"logits = {call}  # batch, channel, z, y, x",
        model.outputs.code(),
        "```",
        "",
        model.outputs.explanation(),
        "",
        "Raw data of 16 bits are divided by 65535 instead of 255: `raw * (2 / 65535) - 1`.",
    ]
    return "\n".join(lines)


def _sizes(model: SharedModel) -> str:
    network = model.network
    sizes = model.fixed_input or [
        f"{least} + {step} k" for least, step in zip(network.smallest_input, network.stride, strict=True)
    ]
    rows = [
        f"| {axis} | {sizes[i]} | input − "
        f"{2 * network.context_voxels[i]} | {network.stride[i]} | {model.voxel_size[i]:g} nm |"
        for i, axis in enumerate("zyx")
    ]
    return "\n".join(
        [
            "## Sizes",
            "",
            "Convolutions are valid: nothing is padded, and the output is the middle of the input, smaller "
            "by the context that the network needs. To predict a volume in tiles, "
            + (_ANY_TILE if model.fixed_input is None else _ONE_TILE),
            "",
            "| axis | input, voxels | output, voxels | stride | voxel size |",
            "|---|---|---|---|---|",
            *rows,
        ]
    )


def _validation(model: SharedModel, described: bool) -> str:
    lines = ["## Validation", ""]
    rows = [
        f"| {dataset} | {name} | {value:.4f} |"
        for dataset, scores in sorted(model.scores.items())
        for name, value in sorted(scores.items())
        if isinstance(value, int | float) and "class_" in name
    ]
    scored = model.outputs.scored()
    if rows:
        lines += [
            "On data that were not trained on, as recorded with the checkpoint:",
            "",
            "| dataset | score | value |",
            "|---|---|---|",
            *rows,
            "",
            *([scored, ""] if scored else []),
        ]
    what = f"the {model.outputs.tensor}" if described else "the logits"
    lines += [
        f"To check an installation: `{TEST_OUTPUT}` holds {what} for `{TEST_INPUT}`, computed by incasem in "
        "float32.",
        "",
        f"To validate on other data: {model.outputs.validation()} Data of another fixation, contrast or "
        "voxel size need a training of their own, for which this model is a good start.",
    ]
    return "\n".join(lines)


def _origin(model: SharedModel) -> str:
    known = {
        "checkpoint": model.checkpoint.name,
        "training": model.run_name,
        "run": model.run_id,
        "iteration": model.iteration,
        "parameters": f"{sum(p.numel() for p in model.network.parameters()):,}",
    }
    lines = [f"- {what}: {value}" for what, value in known.items() if value is not None]
    return "\n".join(["## Origin", "", "Trained and exported by incasem.", "", *lines])
