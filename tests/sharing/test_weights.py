"""The exported weights, run as another program runs them, give our numbers."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch

from incasem.cli import main
from incasem.networks import InferenceNetwork
from incasem.sharing.weights import FILES, run_weights
from tests.sharing.conftest import RESIDUAL, make_checkpoint

WIDE = RESIDUAL | {"filters": [8, 16]}  # two channels alone are hardly to be normalised
MODELS = {
    "unet": {"num_fmaps": 2, "downsample_factors": [[2, 2, 2]]},
    "learnt upsampling": {
        "num_fmaps": 2, "downsample_factors": [[1, 2, 2]], "constant_upsample": False, "num_fmaps_out": 3,
    },
    "residual, learnt upsampling": WIDE | {
        "constant_upsample": False, "norm": "channel", "activation": "elu", "io_kernel_size": [1, 3, 3],
    },
    "residual, three levels": RESIDUAL | {
        "filters": [2, 4, 6], "downsample_factors": [[1, 2, 2], [2, 2, 2]],
        "kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3]],
    },
    "residual, group norm": WIDE | {"norm": "group", "activation": "elu"},
}  # fmt: skip


@pytest.mark.parametrize("format_name", FILES)
@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_same_numbers_for_any_legal_size_and_batch(tmp_path, model, format_name):
    if format_name == "onnx":
        pytest.importorskip("onnx")
        pytest.importorskip("onnxruntime")
    network = make_checkpoint(
        tmp_path / "checkpoint", model=model, sidecar={"model": model, "data": {"voxel_size": [5, 5, 5]}}
    )
    words = ["--checkpoint", tmp_path / "checkpoint", "-o", tmp_path / "out", "--format", format_name]
    if network.depends_on_tile:
        words += ["--output_size_voxels", 4, 8, 12]
    assert main(["export-model", *map(str, words)]) == 0
    run = run_weights(tmp_path / "out" / FILES[format_name], format_name)
    ours = InferenceNetwork(network, "cpu", torch.float32)
    for number, (batch, more) in enumerate([(1, (0, 0, 0)), (1, (3, 1, 2)), (2, (1, 2, 0))]):
        size = [s + k * step for s, step, k in zip(network.smallest_input, network.stride, more, strict=True)]
        raw = np.random.default_rng(number).random((batch, 1, *size), dtype=np.float32) * 2 - 1
        theirs = run(raw)
        assert theirs.shape == (batch, network.num_fmaps_out, *network.output_shape(size))
        expected = ours(raw).numpy()
        np.testing.assert_allclose(theirs, expected, atol=1e-5 * max(1, np.abs(expected).max()), rtol=0)


@pytest.mark.parametrize("format_name", FILES)
def test_the_test_that_travels_along(tmp_path, checkpoint, format_name):
    """The page's own lines, on the files beside it."""
    if format_name == "onnx":
        pytest.importorskip("onnx")
        pytest.importorskip("onnxruntime")
    out = tmp_path / "out"
    words = ["--checkpoint", str(checkpoint), "-o", str(out), "--format", format_name]
    assert main(["export-model", *words]) == 0
    assert sorted(p.name for p in out.iterdir()) == sorted(
        ["README.md", FILES[format_name], "test_input.npy", "test_output.npy"]
    )
    code = (out / "README.md").read_text().split("```python\n")[1].split("```")[0]
    for name in (FILES[format_name], "test_input.npy"):
        code = code.replace(f'"{name}"', f'r"{out / name}"')
    found: dict = {}
    with (
        pytest.warns(DeprecationWarning, match="torch.jit.load")
        if format_name == "torchscript"
        else nullcontext()
    ):
        exec(compile(code, "README.md", "exec"), found)
    np.testing.assert_allclose(found["logits"], np.load(out / "test_output.npy"), atol=1e-5, rtol=0)
