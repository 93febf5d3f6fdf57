import logging

import numpy as np
import pytest
import torch

from incasem.errors import ConfigError
from incasem.networks import InferenceNetwork, OneConv3d, Unet, choose_precision, inference


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Unet(num_fmaps=4, downsample_factors=((2, 2, 2),) * 2)


@pytest.fixture
def raw(network):
    rng = np.random.default_rng(0)
    return rng.uniform(-1, 1, (1, 1, *network.input_shape_for((10, 9, 8)))).astype(np.float32)


def test_float32_equals_the_network(network, raw):
    fast = InferenceNetwork(network, "cpu", torch.float32)
    logits = fast(raw)
    with torch.no_grad():
        expected = network(torch.from_numpy(raw))
    assert logits.dtype == torch.float32
    assert logits.shape[2:] == fast.output_shape(raw.shape[2:])
    assert (logits - expected).abs().max() <= 1e-5


def test_bf16_is_close(network, raw):
    fast = InferenceNetwork(network, "cpu", torch.bfloat16)
    assert fast.precision == torch.bfloat16
    logits = fast(torch.from_numpy(raw))
    with torch.no_grad():
        expected = network(torch.from_numpy(raw))
    assert logits.dtype == torch.float32
    difference = (logits.softmax(1) - expected.softmax(1)).abs().max()
    assert 0 < difference <= 5e-3


def test_the_network_itself_is_left_alone(network, raw):
    network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    InferenceNetwork(network, "cpu", torch.bfloat16)(raw)
    assert network.training
    assert all(p.requires_grad and p.dtype == torch.float32 for p in network.parameters())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_check_leaves_the_random_generator_alone(network):
    state = torch.get_rng_state()
    InferenceNetwork(network, "cpu", torch.bfloat16)
    assert torch.equal(state, torch.get_rng_state())


class _BadInLowPrecision(OneConv3d):
    """A network whose bfloat16 kernel gives something else."""

    def __init__(self, wrong):
        super().__init__()
        self.wrong = wrong

    def forward(self, raw_NCZYX):
        logits = super().forward(raw_NCZYX)
        return logits if logits.dtype == torch.float32 else logits * self.wrong


@pytest.mark.parametrize("wrong", [float("nan"), -5.0])
def test_wrong_kernel_falls_back_to_float32(wrong, caplog):
    torch.manual_seed(0)
    network = _BadInLowPrecision(wrong)
    with caplog.at_level(logging.WARNING):
        fast = InferenceNetwork(network, "cpu", torch.bfloat16)
    assert fast.precision == torch.float32
    assert "float32 is used" in caplog.text
    raw = torch.rand(1, 1, 5, 5, 5)
    assert torch.allclose(fast(raw), network(raw), atol=1e-6)


def test_illegal_size_is_refused(network):
    with pytest.raises(ConfigError, match="Nearest legal sizes"):
        InferenceNetwork(network, "cpu", torch.float32)(np.zeros((1, 1, 45, 45, 45), np.float32))


@pytest.mark.parametrize(
    ("setting", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_explicit_precision(setting, dtype):
    assert choose_precision(setting, "cpu") == dtype


def test_unknown_precision():
    with pytest.raises(ConfigError, match="precision is half"):
        choose_precision("half", "cpu")


@pytest.mark.parametrize(("has", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_follows_the_processor(monkeypatch, has, dtype):
    monkeypatch.setattr(inference.torch.cpu, "_is_amx_tile_supported", lambda: has, raising=False)
    monkeypatch.setattr(inference.torch.cpu, "_is_avx512_bf16_supported", lambda: False, raising=False)
    assert choose_precision("auto", torch.device("cpu")) == dtype


def test_auto_survives_a_torch_without_probes(monkeypatch):
    monkeypatch.delattr(inference.torch.cpu, "_is_amx_tile_supported", raising=False)
    monkeypatch.delattr(inference.torch.cpu, "_is_avx512_bf16_supported", raising=False)
    assert choose_precision("auto", "cpu") == torch.float32


@pytest.mark.parametrize(("has", "dtype"), [(True, torch.bfloat16), (False, torch.float16)])
def test_auto_follows_the_gpu(monkeypatch, has, dtype):
    monkeypatch.setattr(inference.torch.cuda, "is_bf16_supported", lambda including_emulation: has)
    assert choose_precision("auto", "cuda:0") == dtype


def test_auto_elsewhere_is_float32():
    assert choose_precision("auto", "mps") == torch.float32
