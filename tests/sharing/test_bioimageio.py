"""BioImage.IO's own package accepts the models and reproduces their outputs.

It wants other versions of pydantic than gunpowder leaves us, so it lives in an environment of its own
(`make test-all` makes it). It borrows torch, which is large, from this one.
"""

import os
import subprocess
from pathlib import Path

import pytest
import torch

from incasem.cli import main
from tests.sharing.conftest import RESIDUAL, make_affinities, make_checkpoint

PYTHON = Path(__file__).parents[2] / ".venv-bioimageio/bin/python"
# Three input sizes and two batch sizes a format, besides the test tensors.
TEST = """
import sys
sys.path.append(sys.argv[1])
from bioimageio.core import test_model
for weights in sys.argv[3:]:
    summary = test_model(sys.argv[2], weight_format=weights)
    summary.display()
    assert summary.status == "passed", weights
print("all passed")
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["classes", "affinities", "group norm"])
def test_bioimageio_core_passes_both_formats(tmp_path, kind):
    if not PYTHON.exists():
        pytest.skip(f"{PYTHON.parents[1]} is not there; `make test-all` makes it")
    pytest.importorskip("onnx")
    out = tmp_path / "model.zip"
    checkpoint, size = tmp_path / "checkpoint", []
    if kind == "classes":
        make_checkpoint(checkpoint)
    elif kind == "affinities":
        make_affinities(checkpoint, descriptors=True)
    else:
        make_affinities(checkpoint, RESIDUAL | {"filters": [8, 16], "norm": "group"})
        size = ["--output_size_voxels", "6", "16", "12"]
    words = ["--weights", "torchscript", "onnx", "--author", "A. Uthor", "--license", "CC-BY-4.0"]
    assert main(["export-model", "--checkpoint", str(checkpoint), "-o", str(out), *words, *size]) == 0
    libraries = str(Path(torch.__file__).parents[1])
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment["BIOIMAGEIO_CACHE_PATH"] = str(tmp_path / "cache")
    done = subprocess.run(
        [PYTHON, "-c", TEST, libraries, out, "torchscript", "onnx"],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all passed" in done.stdout
