"""The weights that a training begins with."""

import pytest
import torch

from incasem.networks import Unet, initialise


@pytest.fixture
def network():
    torch.manual_seed(3)
    network = Unet(num_fmaps=6)
    initialise(network)
    return network


def test_the_signal_reaches_the_last_layer(network):
    features = {}
    network.final_conv_pass.register_forward_hook(lambda module, given, _: features.update(last=given[0]))
    raw = torch.randn(1, 1, 108, 108, 108) * 0.3
    with torch.no_grad():
        logits = network(raw)
    assert 0.1 < float(features["last"].std()) / 0.3 < 10
    assert float(logits.abs().max()) < 1


def test_no_class_is_preferred_at_the_start(network):
    assert all(not p.any() for name, p in network.named_parameters() if name.endswith("bias"))


def test_the_seed_decides(network):
    torch.manual_seed(3)
    again = Unet(num_fmaps=6)
    initialise(again)
    for first, second in zip(network.parameters(), again.parameters(), strict=True):
        assert torch.equal(first, second)
