import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from incasem.errors import ConfigError
from incasem.networks import Unet

# Names and shapes of the published checkpoints (reference/incasem.md, section 4), in their order.
_LEVELS = [(32, 1), (64, 32), (128, 64), (256, 128)]
_DECODERS = [(32, 96), (64, 192), (128, 384)]


def _published_parameters():
    for prefix, levels in (("unet.l_conv", _LEVELS), ("unet.r_conv.0", _DECODERS)):
        for level, (out, into) in enumerate(levels):
            yield f"{prefix}.{level}.conv_pass.0.weight", (out, into, 3, 3, 3)
            yield f"{prefix}.{level}.conv_pass.0.bias", (out,)
            yield f"{prefix}.{level}.conv_pass.2.weight", (out, out, 3, 3, 3)
            yield f"{prefix}.{level}.conv_pass.2.bias", (out,)
    yield "final_conv_pass.conv_pass.0.weight", (2, 32, 3, 3, 3)
    yield "final_conv_pass.conv_pass.0.bias", (2,)


def _small(seed=0, **kwargs):
    torch.manual_seed(seed)
    return Unet(**{"num_fmaps": 2, **kwargs}).eval().requires_grad_(False)


def test_default_parameters_are_the_published_ones_in_order():
    state = Unet().state_dict()
    assert [(name, tuple(value.shape)) for name, value in state.items()] == list(_published_parameters())
    assert len(state) == 30
    assert sum(value.numel() for value in state.values()) == 5_837_730
    assert {value.dtype for value in state.values()} == {torch.float32}


def test_optimizer_sees_parameters_in_the_order_of_the_state():
    network = Unet(num_fmaps=2, constant_upsample=False)
    assert [name for name, _ in network.named_parameters()] == list(network.state_dict())


def test_learnt_upsampling_lies_between_encoder_and_decoder():
    state = Unet(constant_upsample=False).state_dict()
    names = list(state)
    first = names.index("unet.r_up.0.0.up.weight")
    assert names[first - 1] == "unet.l_conv.3.conv_pass.2.bias"
    assert names[first + 6] == "unet.r_conv.0.0.conv_pass.0.weight"
    for level, channels in enumerate((64, 128, 256)):
        assert state[f"unet.r_up.0.{level}.up.weight"].shape == (channels, channels, 2, 2, 2)
        assert state[f"unet.r_up.0.{level}.up.bias"].shape == (channels,)


def test_published_geometry():
    network = Unet(num_fmaps=2)
    assert network.context_voxels == (47, 47, 47)
    assert network.stride == (8, 8, 8)
    assert network.smallest_input == (100, 100, 100)
    assert network.output_shape((204, 204, 204)) == (110, 110, 110)
    assert network.input_shape_for((110, 1, 7)) == (204, 100, 108)


@pytest.mark.parametrize("shape", [(100, 100, 100), (108, 100, 116)])
def test_output_is_94_voxels_smaller_for_legal_inputs(shape):
    network = _small()
    output = network(torch.zeros(1, 1, *shape))
    assert output.shape == (1, 2, *(s - 94 for s in shape))
    assert network.output_shape(shape) == output.shape[2:]


@pytest.mark.parametrize(
    ("factors", "context", "stride"),
    [
        (((2, 2, 2),) * 2, (21, 21, 21), (4, 4, 4)),
        (((1, 2, 2),) * 2, (11, 21, 21), (1, 4, 4)),
        (((1, 2, 2), (2, 2, 2)), (13, 21, 21), (2, 4, 4)),
        (((3, 3, 3),), (12, 12, 12), (3, 3, 3)),
        (((3, 3, 3), (2, 2, 2)), (30, 30, 30), (6, 6, 6)),
        (((1, 4, 4),), (7, 13, 13), (1, 4, 4)),
    ],
)
@pytest.mark.parametrize("constant_upsample", [True, False])
def test_other_depths_and_factors(factors, context, stride, constant_upsample):
    network = _small(downsample_factors=factors, constant_upsample=constant_upsample)
    assert network.context_voxels == context
    assert network.stride == stride
    shape = network.input_shape_for((3, 5, 9))
    output = network(torch.zeros(1, 1, *shape))
    assert output.shape[2:] == network.output_shape(shape)
    assert all(o >= wanted for o, wanted in zip(output.shape[2:], (3, 5, 9), strict=True))


def test_illegal_sizes_name_the_nearest_legal_ones():
    network = Unet(num_fmaps=2)
    with pytest.raises(ConfigError, match=r"z 108 or 116, x 204 or 212"):
        network.output_shape((110, 204, 205))
    with pytest.raises(ConfigError, match=r"y 100\."):
        network(torch.zeros(1, 1, 100, 92, 100))
    with pytest.raises(ConfigError, match="three numbers"):
        network.output_shape((100, 100))
    with pytest.raises(ConfigError, match="positive"):
        network.input_shape_for((0, 4, 4))


@settings(deadline=None, max_examples=200)
@given(
    factors=st.lists(st.tuples(*[st.sampled_from([1, 2, 4])] * 3), min_size=1, max_size=3),
    wanted=st.tuples(*[st.integers(1, 300)] * 3),
)
def test_the_input_for_an_output_is_the_smallest_that_covers_it(factors, wanted):
    network = Unet(num_fmaps=1, fmap_inc_factor=1, downsample_factors=factors)
    assert network.stride == tuple(math.prod(axis) for axis in zip(*factors, strict=True))
    shape = network.input_shape_for(wanted)
    output = network.output_shape(shape)
    for axis in range(3):
        assert output[axis] >= wanted[axis]
        smaller = shape[axis] - network.stride[axis]
        assert smaller < network.smallest_input[axis] or output[axis] - network.stride[axis] < wanted[axis]


@pytest.mark.parametrize(
    "setting",
    [
        {"num_fmaps": 0},
        {"num_fmaps_out": -1},
        {"fmap_inc_factor": 0},
        {"downsample_factors": []},
        {"downsample_factors": [[2, 2]]},
        {"downsample_factors": [[2, 2, 0]]},
        {"downsample_factors": [[5, 5, 5]]},
        {"downsample_factors": [[3, 3, 3], [3, 3, 3]]},
    ],
)
def test_impossible_settings_are_named(setting):
    with pytest.raises(ConfigError, match=next(iter(setting))):
        Unet(**{"num_fmaps": 2, **setting})


def _delta(conv, source):
    """Make a convolution that copies channel ``source`` into every output channel."""
    conv.weight.zero_()
    conv.bias.zero_()
    conv.weight[:, source, 1, 1, 1] = 1


def _copying(network, from_skip):
    """Make a U-Net copy its input through the first skip connection, or through the whole depth."""
    for name, module in network.named_modules():
        if isinstance(module, torch.nn.Conv3d):
            decoder = ".r_conv." in name and name.endswith("conv_pass.0")
            into_skip = decoder and (from_skip or not name.startswith("unet.r_conv.0."))
            # The joined maps are [skip, upsampled]: the last channel is an upsampled one.
            _delta(module, 0 if into_skip or not decoder else module.in_channels - 1)
    return network


_GEOMETRIES = [((2, 2, 2),) * 3, ((2, 2, 2),) * 2, ((1, 2, 2), (2, 2, 2)), ((3, 3, 3), (2, 2, 2))]


@pytest.mark.parametrize("factors", _GEOMETRIES)
def test_output_lies_in_the_centre_of_the_input(factors):
    network = _copying(_small(num_fmaps=1, downsample_factors=factors), from_skip=True)
    raw = torch.rand(1, 1, *network.input_shape_for((5, 6, 7)))
    centre = tuple(slice(c, -c) for c in network.context_voxels)
    assert torch.equal(network(raw)[:, 0], raw[(0, slice(None), *centre)])


@pytest.mark.parametrize("factors", _GEOMETRIES)
def test_upsampled_maps_lie_over_the_skipped_ones(factors):
    network = _copying(_small(num_fmaps=1, downsample_factors=factors), from_skip=False)
    shape = network.input_shape_for([3 * s for s in network.stride])
    for axis in range(3):
        ramp = torch.arange(shape[axis]).float().reshape([-1 if a == axis else 1 for a in range(3)])
        output = network(ramp.expand(shape)[None, None].contiguous())[0, 0]
        context, length = network.context_voxels[axis], output.shape[axis]
        position = ramp.flatten()[context : context + length]
        ahead = output.movedim(axis, 0).reshape(length, -1)[:, 0] - position
        # A voxel's value is the largest position in its cell of the coarsest grid: 0 … stride - 1 ahead.
        assert sorted(set(ahead.tolist())) == list(range(network.stride[axis]))


def _lively(network, seed=0):
    """Weights that keep the signal's size through all levels, so that each level shows in the output."""
    torch.manual_seed(seed)
    for module in network.modules():
        if isinstance(module, torch.nn.Conv3d):
            torch.nn.init.kaiming_normal_(module.weight)
    return network


def _largest_difference(a, b):
    return float((a - b).abs().max() / b.abs().max())


def test_moving_the_input_by_the_stride_moves_the_output():
    network = _lively(_small(num_fmaps=3))
    raw = torch.rand(1, 1, 116, 116, 116) * 2 - 1
    whole = network(raw)
    for shift in ((8, 0, 16), (16, 8, 8), (4, 4, 4)):
        tile = network(raw[(..., *(slice(s, s + 100) for s in shift))])
        difference = _largest_difference(tile, whole[(..., *(slice(s, s + 6) for s in shift))])
        if shift == (4, 4, 4):  # no multiple of the stride: shows that the property is not trivial
            assert difference > 1e-3
        else:
            assert difference <= 1e-6


@pytest.mark.parametrize("factors", [((2, 2, 2),) * 2, ((1, 2, 2), (2, 2, 2)), ((3, 3, 3),)])
@pytest.mark.parametrize("constant_upsample", [True, False])
def test_tiles_put_together_equal_the_whole(factors, constant_upsample):
    network = _lively(_small(num_fmaps=3, downsample_factors=factors, constant_upsample=constant_upsample))
    tile = network.input_shape_for([1, 1, 1])
    step = [s * -(-o // s) for s, o in zip(network.stride, network.output_shape(tile), strict=True)]
    raw = torch.rand(1, 1, *(t + s for t, s in zip(tile, step, strict=True))) * 2 - 1
    whole = network(raw)
    out = network.output_shape(tile)
    for corner in [(0, 0, 0), (step[0], 0, step[2]), tuple(step)]:
        part = network(raw[(..., *(slice(c, c + t) for c, t in zip(corner, tile, strict=True)))])
        there = whole[(..., *(slice(c, c + o) for c, o in zip(corner, out, strict=True)))]
        assert _largest_difference(part, there) <= 1e-6


def test_gradients_reach_every_parameter():
    torch.manual_seed(0)
    network = Unet(num_fmaps=4, downsample_factors=((2, 2, 2),), constant_upsample=False)
    network(torch.rand(1, 1, *network.smallest_input) * 2 - 1).square().sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_channels_last_gives_the_same_numbers():
    network = _lively(_small(num_fmaps=4))
    raw = torch.rand(1, 1, 100, 100, 100) * 2 - 1
    plain = network(raw)
    last = network.to(memory_format=torch.channels_last_3d)(
        raw.contiguous(memory_format=torch.channels_last_3d)
    )
    assert _largest_difference(last, plain) <= 1e-6
