"""The OpenVINO backend; the tests that need OpenVINO are skipped where it is not installed."""

import builtins
import importlib.util

import pytest
import torch

from incasem.errors import ConfigError
from incasem.networks import InferenceNetwork, OneConv3d, Unet
from incasem.networks.openvino_backend import OpenVinoUnet

needs_openvino = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="the extra incasem[openvino] is not installed"
)
CPU = torch.device("cpu")


def _network(factors=((2, 2, 2),) * 2, **kwargs):
    torch.manual_seed(0)
    return Unet(**{"num_fmaps": 4, **kwargs}, downsample_factors=factors).eval().requires_grad_(False)


def _input(network, wanted, batch=1):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(batch, 1, *network.input_shape_for(wanted), generator=generator) * 2 - 1


@needs_openvino
@pytest.mark.parametrize(
    ("factors", "constant"),
    [
        (((2, 2, 2),) * 2, True),
        (((2, 2, 2),) * 2, False),
        (((1, 2, 2), (2, 2, 2)), True),
        (((2, 2, 2), (3, 3, 3)), True),
        (((3, 1, 4),), False),
    ],
)
def test_float32_equals_the_network(factors, constant):
    network = _network(factors, constant_upsample=constant)
    fast = OpenVinoUnet(network, CPU, torch.float32)
    for raw in (_input(network, (5, 9, 12), batch=2), _input(network, (9, 5, 5))):  # compiles again
        expected = network(raw)
        result = fast(raw)
        assert result.dtype == torch.float32
        assert result.shape == expected.shape
        assert (result - expected).abs().max() <= 1e-5


@needs_openvino
def test_published_depth():
    network = _network(((2, 2, 2),) * 3, num_fmaps=2, fmap_inc_factor=1)
    raw = _input(network, (1, 1, 9))
    assert (OpenVinoUnet(network, CPU, torch.float32)(raw) - network(raw)).abs().max() <= 1e-5


@needs_openvino
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_inference_network_uses_it(precision, caplog):
    network = _network()
    raw = _input(network, (10, 9, 8))
    fast = InferenceNetwork(network, "cpu", precision, backend="openvino")
    assert fast.precision == precision
    assert not caplog.text
    first = fast(raw)
    before = first.clone()
    fast(-raw)
    assert torch.equal(first, before)
    assert (first.softmax(1) - network(raw).softmax(1)).abs().max() <= 5e-3


@needs_openvino
def test_illegal_size_is_refused():
    with pytest.raises(ConfigError, match="Nearest legal sizes"):
        OpenVinoUnet(_network(), CPU, torch.float32)(torch.zeros(1, 1, 45, 45, 45))


def test_missing_package_is_named(monkeypatch):
    original = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.split(".")[0] == "openvino":
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ConfigError, match=r"pip install 'incasem\[openvino\]'"):
        InferenceNetwork(_network(), "cpu", torch.float32, backend="openvino")


@pytest.mark.parametrize(
    ("network", "device", "precision", "message"),
    [
        (OneConv3d(), "cpu", torch.float32, "OneConv3d"),
        (_network(), "meta", torch.float32, "torch.device is meta"),
        (_network(), "cpu", torch.float16, "precision is float16"),
    ],
)
def test_what_it_does_not_run(network, device, precision, message):
    with pytest.raises(ConfigError, match=message):
        OpenVinoUnet(network, torch.device(device), precision)
