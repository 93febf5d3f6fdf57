"""Training with standardised filters, and the plain network that it gives."""

import copy

import pytest
import torch

from incasem.errors import ConfigError
from incasem.networks import Unet, initialise, plain_state, standardise

RAW = torch.rand((1, 1, 44, 44, 44), generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture
def plain():
    torch.manual_seed(1)
    network = Unet(num_fmaps=4, downsample_factors=((2, 2, 2), (2, 2, 2)))
    initialise(network, centred=True)
    return network


def _trained(plain, steps=3):
    network = copy.deepcopy(plain)
    standardise(network)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        (network(RAW) - 1).square().mean().backward()
        optimizer.step()
    return network


def test_standardising_does_not_change_what_a_centred_network_computes(plain):
    network = copy.deepcopy(plain)
    standardise(network)
    with torch.no_grad():
        torch.testing.assert_close(network(RAW), plain(RAW), rtol=1e-4, atol=1e-5)


def test_the_plain_state_loads_strictly_and_computes_the_same(plain):
    network = _trained(plain)
    result = copy.deepcopy(plain)
    result.load_state_dict(plain_state(network), strict=True)
    assert list(plain_state(network)) == list(plain.state_dict())
    with torch.no_grad():
        assert torch.equal(network(RAW), result(RAW))
        assert not torch.allclose(plain(RAW), result(RAW))


def test_filters_keep_mean_zero_and_the_last_layer_is_free(plain):
    network = _trained(plain)
    *hidden, last = [value for name, value in plain_state(network).items() if name.endswith("weight")]
    for weight in hidden:
        assert float(weight.mean(dim=(1, 2, 3, 4)).abs().max()) < 1e-6
    assert float(last.mean().abs()) > 1e-4


def test_of_a_plain_network_the_state_is_its_own(plain):
    state = plain_state(plain)
    assert state.keys() == plain.state_dict().keys()
    assert all(torch.equal(state[name], value) for name, value in plain.state_dict().items())


def test_a_network_with_other_filters_is_refused(plain):
    initialise(plain)
    with pytest.raises(ConfigError, match=r"training\.weight_standardization is True; allowed: .* mean"):
        standardise(plain)


def test_the_signal_neither_dies_nor_explodes(plain):
    features = {}
    plain.final_conv_pass.register_forward_hook(lambda module, given, _: features.update(last=given[0]))
    torch.manual_seed(0)
    with torch.no_grad():
        plain(torch.randn(1, 1, 44, 44, 44))
    assert 0.01 < float(features["last"].std()) < 5
