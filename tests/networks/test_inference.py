import copy
import logging

import numpy as np
import pytest
import torch

from incasem.errors import ConfigError
from incasem.networks import InferenceNetwork, OneConv3d, Unet, choose_precision, inference, rearranged
from incasem.networks.inference_unet import InferenceUnet


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
    assert "the unmodified network in float32 is used" in caplog.text
    raw = torch.rand(1, 1, 5, 5, 5)
    assert torch.allclose(fast(raw), network(raw), atol=1e-6)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_wrong_rewrite_falls_back_to_the_network_itself(network, raw, precision, caplog, monkeypatch):
    with caplog.at_level(logging.WARNING):
        monkeypatch.setattr(inference, "rearranged", lambda network, device: _Other(network))
        fast = InferenceNetwork(network, "cpu", precision)
    assert fast.precision == precision
    assert "the rewritten network in" in caplog.text
    assert "the unmodified network in" in caplog.text
    with torch.no_grad():
        expected = network(torch.from_numpy(raw))
    assert (fast(raw).softmax(1) - expected.softmax(1)).abs().max() <= 5e-3


class _Other(torch.nn.Module):
    """Gives the classes in the wrong order, much too sure."""

    def __init__(self, network):
        super().__init__()
        self.network = copy.deepcopy(network)

    def forward(self, raw):
        return 1e4 * self.network(raw).flip(1)


class _Failing(torch.nn.Module):
    def forward(self, raw):
        raise RuntimeError("no such kernel\nand a long story")


def test_failing_rewrite_falls_back(network, raw, caplog, monkeypatch):
    monkeypatch.setattr(inference, "rearranged", lambda network, device: _Failing())
    with caplog.at_level(logging.WARNING):
        fast = InferenceNetwork(network, "cpu", torch.float32)
    assert "it fails: no such kernel)" in caplog.text
    with torch.no_grad():
        assert (fast(raw) - network(torch.from_numpy(raw))).abs().max() <= 1e-5


def test_out_of_memory_is_not_a_wrong_kernel(network, monkeypatch):
    def run(self, raw):
        raise torch.OutOfMemoryError("device")

    monkeypatch.setattr(_Failing, "forward", run)
    monkeypatch.setattr(inference, "rearranged", lambda network, device: _Failing())
    with pytest.raises(torch.OutOfMemoryError):
        InferenceNetwork(network, "cpu", torch.float32)


def test_a_unet_is_rewritten(network):
    assert isinstance(rearranged(network, "cpu"), InferenceUnet)
    other = OneConv3d()
    assert rearranged(other, "cpu") is other


def test_result_survives_the_next_call(network, raw):
    fast = InferenceNetwork(network, "cpu", torch.float32)
    first = fast(raw)
    before = first.clone()
    fast(-raw)
    assert torch.equal(first, before)


def test_compiler_is_asked(network, raw, monkeypatch):
    """Without compiling, which takes many seconds."""
    asked = []

    def compile(module, **settings):
        asked.append(settings)
        return module

    monkeypatch.setattr(inference.torch, "compile", compile)
    fast = InferenceNetwork(network, "cpu", torch.float32, backend="compiled")
    assert asked == [{"dynamic": False, "mode": None}]
    with torch.no_grad():
        assert (fast(raw) - network(torch.from_numpy(raw))).abs().max() <= 1e-5


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # inductor imports torch.jit
def test_compiled_network_is_right(raw, network, caplog):
    shape = network.input_shape_for((10, 9, 8))
    fast = InferenceNetwork(network, "cpu", torch.float32, backend="compiled", check_shape=shape)
    assert "is used" not in caplog.text
    with torch.no_grad():
        assert (fast(raw) - network(torch.from_numpy(raw))).abs().max() <= 1e-5


def test_unknown_backend(network):
    with pytest.raises(ConfigError, match="backend is tensorrt"):
        InferenceNetwork(network, "cpu", torch.float32, backend="tensorrt")


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
