"""The network in plain operators is the same function, for every legal size."""

import pytest
import torch

from incasem.errors import ConfigError
from incasem.networks import OneConv3d, Unet, ValidNetwork, initialise, portable

NETWORKS = {
    "published depth": {},
    "learnt upsampling": {"constant_upsample": False, "downsample_factors": ((1, 2, 2), (2, 2, 2))},
    "factors of three": {"downsample_factors": ((1, 3, 3),)},
}


@pytest.mark.parametrize("settings", NETWORKS.values(), ids=NETWORKS)
def test_it_computes_what_the_unet_does(settings):
    torch.manual_seed(0)
    network = Unet(num_fmaps=2, **settings).eval()
    initialise(network)
    plain = portable(network)
    for more in range(2):
        size = [s + more * step for s, step in zip(network.smallest_input, network.stride, strict=True)]
        raw = torch.rand(1, 1, *size) * 2 - 1
        with torch.inference_mode():
            torch.testing.assert_close(plain(raw), network(raw), atol=0, rtol=0)


def test_it_is_a_copy_that_cannot_be_trained():
    network = Unet(num_fmaps=2, downsample_factors=((2, 2, 2),)).double()
    plain = portable(network)
    assert {p.dtype for p in plain.parameters()} == {torch.float32}
    assert not any(p.requires_grad for p in plain.parameters())
    assert {p.dtype for p in network.parameters()} == {torch.float64}
    assert all(p.requires_grad for p in network.parameters())


def test_one_convolution():
    network = OneConv3d(num_fmaps_out=3)
    raw = torch.rand(1, 1, 5, 6, 7)
    with torch.inference_mode():
        torch.testing.assert_close(portable(network)(raw), network(raw))


def test_other_networks_are_refused():
    with pytest.raises(ConfigError, match="Unet or OneConv3d"):
        portable(ValidNetwork())
