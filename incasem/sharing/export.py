"""Exporting a model: all files are written and checked under another name, then renamed at once."""

import secrets
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from incasem.durable import sync
from incasem.errors import ConfigError, DataError, explain
from incasem.sharing.cover import cover_png
from incasem.sharing.description import COVER, DOCUMENTATION, description, write_description
from incasem.sharing.documentation import TEST_INPUT, TEST_OUTPUT, readme
from incasem.sharing.model import About, ModelChoice, SharedModel, find_model
from incasem.sharing.sample import Sample, make_sample
from incasem.sharing.weights import Weights, check_weights, write_weights

Format = Literal["bioimageio", "torchscript", "onnx"]
_ZIP = ".zip"


@dataclass(frozen=True)
class ExportRequest:
    """What the command line asked for.

    Attributes:
        choice: which model.
        output: folder to make, or a file that ends in .zip.
        format: what to make.
        weights: formats of the weights in a BioImage.IO model, the first one being the original.
        sample: dataset to cut the test input from; None: a generated cell.
        about: what only the user knows.
    """

    choice: ModelChoice
    output: Path
    format: Format = "bioimageio"
    weights: tuple[Weights, ...] = ("torchscript",)
    sample: str | None = None
    about: About = field(default_factory=About)


def export_model(request: ExportRequest, tell: Callable[[str], None]) -> Path:
    """Export a model as asked and return where it lies.

    The folder appears whole or not at all, and only after each file of weights was run and gave the numbers
    of our own prediction.

    Raises:
        IncasemError: there is something at the output already, the model is not found or damaged, a package
            is missing, or a format would give other numbers.
    """
    output = request.output
    _refuse_existing(output)
    model = find_model(request.choice, request.about)
    tell(f"{model.name}: {model.checkpoint}")
    sample = make_sample(model, request.sample)
    with _appearing(output) as folder:
        for line in _write(request, model, sample, folder):
            tell(f"  {line}")
    tell(f"exported to {output}")
    if request.format == "bioimageio" and not (request.about.authors and request.about.license):
        tell("  before you publish it: name --author and --license, without which nobody may use it")
    return output


def _write(request: ExportRequest, model: SharedModel, sample: Sample, folder: Path) -> Iterator[str]:
    """Write all files to ``folder``; yield what is worth telling."""
    described = request.format == "bioimageio"
    weights: tuple[Weights, ...] = request.weights if request.format == "bioimageio" else (request.format,)
    for name in weights:
        path = write_weights(model, name, folder)
        worst = check_weights(path, name, sample)
        yield f"{path.name}: {name}, largest difference to incasem in the logits {worst:.1e}"
    tested = model.outputs.activated(sample.logits_NCZYX) if described else sample.logits_NCZYX
    np.save(folder / TEST_INPUT, sample.raw_NCZYX)
    np.save(folder / TEST_OUTPUT, tested)
    (folder / DOCUMENTATION).write_text(readme(model, sample, weights, described=described))
    if described:
        (folder / COVER).write_bytes(cover_png(sample, model))
        write_description(description(model, sample, weights, folder), folder)


def _refuse_existing(output: Path) -> None:
    if output.exists() or output.is_symlink():
        raise DataError(
            explain("-o", f"{output}, which exists", "a new folder or .zip file", "Choose another name")
        )
    if not output.parent.is_dir():
        raise ConfigError(
            explain("-o", output, "a name in an existing folder", f"Make the folder {output.parent} first")
        )


@contextmanager
def _appearing(output: Path) -> Iterator[Path]:
    """Give a folder to write into, and make it (or a zip file of it) ``output`` if nothing went wrong."""
    hidden = output.with_name(f".{output.name}.{secrets.token_hex(4)}.tmp")
    packed = hidden.with_name(hidden.name + _ZIP)
    hidden.mkdir()
    try:
        yield hidden
        if output.suffix == _ZIP:
            _pack(hidden, packed)
        whole = packed if output.suffix == _ZIP else hidden
        for path in [*whole.iterdir(), whole] if whole.is_dir() else [whole]:
            sync(path)
        _refuse_existing(output)
        whole.rename(output)
        sync(output.parent)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
        packed.unlink(missing_ok=True)


def _pack(folder: Path, target: Path) -> None:
    with zipfile.ZipFile(target, "x", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, path.name)
