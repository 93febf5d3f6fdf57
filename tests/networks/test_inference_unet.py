"""The rearranged U-Net against the trained one."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from incasem.errors import ConfigError
from incasem.networks import InferenceNetwork, Unet
from incasem.networks.inference_unet import InferenceUnet
from incasem.networks.onednn import FUSED_DTYPES

_FACTORS = [
    ((2, 2, 2),) * 2,
    ((1, 2, 2), (2, 2, 2)),
    ((2, 2, 2), (3, 3, 3)),  # crops at odd offsets
    ((3, 1, 4),),
    ((1, 1, 1), (2, 1, 2)),
]


def _network(factors, constant=True, **kwargs):
    torch.manual_seed(0)
    network = Unet(**{"num_fmaps": 2, **kwargs}, downsample_factors=factors, constant_upsample=constant)
    return network.eval().requires_grad_(False)


def _input(network, wanted, channels=1, batch=1):
    shape = network.input_shape_for(wanted)
    generator = torch.Generator().manual_seed(1)
    return torch.rand(batch, channels, *shape, generator=generator, dtype=torch.float64) * 2 - 1


@settings(deadline=None, max_examples=25)
@given(
    factors=st.sampled_from(_FACTORS),
    constant=st.booleans(),
    channels=st.integers(1, 2),
    batch=st.integers(1, 2),
    wanted=st.tuples(*[st.integers(1, 14)] * 3),
    slab_elements=st.sampled_from([None, 1, 4000]),
)
def test_float64_equals_the_network(factors, constant, channels, batch, wanted, slab_elements):
    network = _network(factors, constant, in_channels=channels).double()
    raw = _input(network, wanted, channels, batch)
    expected = network(raw)
    result = InferenceUnet(network, slab_elements)(raw)
    assert result.shape == expected.shape
    assert (result - expected).abs().max() <= 1e-10 * expected.abs().max()


def test_published_depth():
    network = _network(((2, 2, 2),) * 3, num_fmaps=1, fmap_inc_factor=1).double()
    raw = _input(network, (1, 1, 9))
    expected = network(raw)
    assert (InferenceUnet(network, 20_000)(raw) - expected).abs().max() <= 1e-10 * expected.abs().max()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
@pytest.mark.parametrize("slab_elements", [None, 9000])
def test_fused_kernels(dtype, tolerance, slab_elements):
    network = _network(((2, 2, 2),) * 2, num_fmaps=8)
    raw = _input(network, (20, 16, 12)).float()
    expected = network(raw)
    fast = InferenceUnet(network, slab_elements).to(dtype).to(memory_format=torch.channels_last_3d)
    difference = (fast(raw.to(dtype)).float() - expected).abs().max()
    assert difference <= tolerance * expected.abs().max()


def test_moved_tile_gives_the_same():
    network = _network(((2, 2, 2),) * 2, num_fmaps=4)
    fast = InferenceUnet(network, 40_000)
    raw = _input(network, (40, 24, 24)).float()
    whole = fast(raw)
    depth = network.input_shape_for((16, 1, 1))[0]
    part = fast(raw[:, :, 12 : 12 + depth])
    assert (part - whole[:, :, 12 : 12 + part.shape[2]]).abs().max() <= 1e-6


def test_state_has_nothing_to_train():
    fast = InferenceUnet(_network(_FACTORS[0]))
    assert not any(p.requires_grad for p in fast.parameters())


def test_slabs_bound_the_largest_tensor():
    network = _network(((2, 2, 2),) * 2, num_fmaps=8)
    raw = torch.empty(1, 1, *network.input_shape_for((120, 40, 40)), device="meta")
    largest = {}
    for slab_elements in (None, 400_000):
        fast = InferenceUnet(network, slab_elements).to("meta")
        sizes = []
        for layer in fast.encoders[0]:
            layer.register_forward_hook(
                lambda _m, _i, result, sizes=sizes: sizes.append(math.prod(result.shape))
            )
        assert fast(raw).shape[2:] == network.output_shape(raw.shape[2:])
        largest[slab_elements] = max(sizes)
    assert largest[400_000] < largest[None] / 4


def test_illegal_size_is_refused():
    with pytest.raises(ConfigError, match="Nearest legal sizes"):
        InferenceUnet(_network(_FACTORS[0]))(torch.zeros(1, 1, 45, 45, 45))


@pytest.mark.skipif(torch.float32 not in FUSED_DTYPES, reason="torch here has no kernel of its own choice")
@pytest.mark.parametrize("begin", [(0, 0, 0), (8, 16, 0), (16, 0, 8)])
def test_a_tile_of_any_shape_has_the_bits_of_the_whole(begin):
    """Small maps used to go to another kernel, whose float32 sums are rounded otherwise."""
    torch.manual_seed(0)
    network = InferenceNetwork(Unet(num_fmaps=8), "cpu", torch.float32)
    raw = torch.rand(1, 1, 124, 124, 132) * 2 - 1
    whole = network(raw)
    z, y, x = begin
    tile = network(raw[:, :, z : z + 108, y : y + 108, x : x + 116])
    depth, height, width = tile.shape[2:]
    assert torch.equal(tile, whole[:, :, z : z + depth, y : y + height, x : x + width])
