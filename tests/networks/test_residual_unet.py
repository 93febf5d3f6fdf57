"""The residual U-Net: sizes, equivariance, training, and the same function when predicting."""

import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from incasem.errors import CheckpointError, ConfigError
from incasem.networks import (
    InferenceNetwork,
    ResidualUnet,
    Unet,
    build_network,
    initialise,
    learnt_filters,
    load_checkpoint,
    load_into,
    plain_state,
    portable,
    rearranged,
    save_checkpoint,
    standardise,
)

SMALL = {
    "filters": [4, 6, 8],
    "downsample_factors": [[1, 2, 2], [2, 2, 2]],
    "kernel_sizes": [[1, 3, 3], [1, 3, 3], [3, 3, 3]],
    "io_kernel_size": [1, 3, 3],
}
KINDS = [
    (norm, act, up)
    for norm in ("none", "channel", "group")
    for act in ("relu", "elu")
    for up in (True, False)
]


def small(seed=0, **more):
    torch.manual_seed(seed)
    network = ResidualUnet(**{**SMALL, **more})
    initialise(network)
    with torch.no_grad():
        network.conv_out.weight.mul_(30)
    return network


@st.composite
def configurations(draw):
    levels = draw(st.integers(1, 3))
    triples = st.tuples(*[st.sampled_from([1, 2, 3])] * 3)
    odd = st.tuples(*[st.sampled_from([1, 3])] * 3)
    return {
        "filters": [2] * (levels + 1),
        "downsample_factors": draw(st.lists(triples, min_size=levels, max_size=levels)),
        "kernel_sizes": draw(st.lists(odd, min_size=levels + 1, max_size=levels + 1)),
        "io_kernel_size": draw(st.tuples(*[st.sampled_from([1, 3, 5])] * 3)),
        "norm": draw(st.sampled_from(["none", "channel"])),
        "activation": draw(st.sampled_from(["relu", "elu"])),
        "constant_upsample": draw(st.booleans()),
    }


@settings(deadline=None, max_examples=150)
@given(configuration=configurations(), wanted=st.tuples(*[st.integers(1, 60)] * 3))
def test_the_input_for_an_output_is_the_smallest_that_covers_it(configuration, wanted):
    network = ResidualUnet(**configuration)
    factors = configuration["downsample_factors"]
    assert network.stride == tuple(math.prod(axis) for axis in zip(*factors, strict=True))
    shape = network.input_shape_for(wanted)
    output = network.output_shape(shape)
    for axis in range(3):
        assert output[axis] == shape[axis] - 2 * network.context_voxels[axis] >= wanted[axis]
        smaller = shape[axis] - network.stride[axis]
        assert smaller < network.smallest_input[axis] or output[axis] - network.stride[axis] < wanted[axis]
    # No smaller input is legal: the map of the lowest level would be empty, or nothing would be left.
    assert all(2 * c < s <= 2 * c + step + 2 * c for c, s, step in zip(
        network.context_voxels, network.smallest_input, network.stride, strict=True))  # fmt: skip


@settings(deadline=None, max_examples=15)
@given(configuration=configurations(), data=st.data())
def test_moving_the_input_by_the_stride_moves_the_output(configuration, data):
    torch.manual_seed(0)
    network = ResidualUnet(**configuration).eval().requires_grad_(False)
    initialise(network)
    tile = network.smallest_input
    more = [data.draw(st.integers(0, 2)) * s for s in network.stride]
    raw = torch.rand(1, 1, *(t + m for t, m in zip(tile, more, strict=True))) * 2 - 1
    whole = network(raw)
    assert whole.shape[2:] == network.output_shape(raw.shape[2:])
    part = network(raw[(..., *(slice(m, m + t) for m, t in zip(more, tile, strict=True)))])
    there = whole[(..., *(slice(m, m + o) for m, o in zip(more, part.shape[2:], strict=True)))]
    torch.testing.assert_close(part, there, rtol=1e-4, atol=1e-6)


def test_moving_by_less_than_the_stride_is_another_tile():
    network = small().eval().requires_grad_(False)
    shape = [s + 4 * t for s, t in zip(network.smallest_input, network.stride, strict=True)]
    raw = torch.rand(1, 1, *shape) * 2 - 1
    whole = network(raw)
    tile = network.input_shape_for((2, 4, 4))
    part = network(raw[..., : tile[0], 1 : 1 + tile[1], : tile[2]])
    _, _, z, y, x = part.shape
    assert (part - whole[..., :z, 1 : 1 + y, :x]).abs().max() > 1e-3 * whole.abs().max()


@pytest.mark.parametrize("constant_upsample", [True, False])
def test_output_lies_in_the_centre_of_the_input_by_every_path(constant_upsample):
    """A network that copies: through a skip connection, or through the lowest level and up again."""
    for level in range(3):
        network = small(filters=[1, 1, 1], constant_upsample=constant_upsample).requires_grad_(False)
        for name, module in network.named_modules():
            if isinstance(module, torch.nn.Conv3d):
                module.weight.zero_()
                module.bias.zero_()
                centre = tuple((k - 1) // 2 for k in module.kernel_size)
                inside = name.endswith((".first.conv", ".second.conv"))
                module.weight[(slice(None), slice(None), *centre)] = 0.0 if inside else 1.0
            elif isinstance(module, torch.nn.ConvTranspose3d):
                module.weight.fill_(1)
                module.bias.zero_()
        for other, up in enumerate(network.up):
            up.up.weight.mul_(float(other < level))  # the skip connection of `level` is the last that counts
        ramp = torch.arange(200.0)
        shape = network.input_shape_for((4, 12, 12))
        for axis in range(3):
            along = ramp[: shape[axis]].reshape([-1 if a == axis else 1 for a in range(3)])
            output = network(along.expand(shape)[None, None].contiguous())[0, 0].movedim(axis - 3, 0)
            output = output.flatten(1)[:, 0]
            context = network.context_voxels[axis]
            position = ramp[context : context + len(output)]
            scale = math.prod(f[axis] for f in SMALL["downsample_factors"][:level])
            # Each level below adds the position of the last voxel of the cell that it pooled.
            cells = [math.prod(f[axis] for f in SMALL["downsample_factors"][:n]) for n in range(level + 1)]
            ahead = output - (level + 1) * position
            assert ahead.min() >= 0
            assert ahead.max() <= sum(cell - 1 for cell in cells)
            assert len(set(ahead.tolist())) >= min(scale, len(output)) - 1


@pytest.mark.parametrize(("norm", "activation", "constant_upsample"), KINDS)
def test_every_kind_learns_and_predicts_the_same_function(norm, activation, constant_upsample):
    network = small(norm=norm, activation=activation, constant_upsample=constant_upsample)
    raw = torch.rand(1, 1, *network.input_shape_for((4, 12, 12))) * 2 - 1
    logits = network(raw)
    with torch.no_grad():
        torch.testing.assert_close(network(raw), logits, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(rearranged(network, "cpu")(raw), logits, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(
        InferenceNetwork(network, "cpu", torch.float32)(raw), logits.detach(), rtol=1e-3, atol=1e-4
    )
    target = (raw[..., 4:8, 20:32, 20:32] > 0).long()[:, 0]
    target = torch.nn.functional.pad(
        target, (0, logits.shape[4] - 12, 0, logits.shape[3] - 12, 0, logits.shape[2] - 4)
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(12):
        loss = torch.nn.functional.cross_entropy(network(raw), target)
        optimizer.zero_grad()
        loss.backward()
        missing = [name for name, p in network.named_parameters() if p.grad is None]
        assert not missing
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


def test_gradients_are_those_of_the_plain_operators():
    network = small(norm="channel", activation="elu").double()
    raw = torch.rand(1, 1, *network.smallest_input, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda r: network(r).sum(), (raw,), fast_mode=True)


@pytest.mark.skipif(not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="no bfloat16 on this processor")
@pytest.mark.parametrize("activation", ["relu", "elu"])
@pytest.mark.parametrize("norm", ["none", "channel", "group"])
def test_a_step_in_bfloat16_is_that_of_float32(norm, activation):
    network = small(norm=norm, activation=activation, filters=[8, 16, 16]).to(
        memory_format=torch.channels_last_3d
    )
    raw = torch.rand(1, 1, *network.input_shape_for((8, 40, 40))) * 2 - 1
    raw = raw.contiguous(memory_format=torch.channels_last_3d)
    gradients = []
    for enabled in (True, False):
        network.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            logits = network(raw)
        assert logits.dtype == (torch.bfloat16 if enabled else torch.float32)
        logits.float().square().mean().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in network.parameters()]))
    low, full = gradients
    assert float((low - full).norm() / full.norm()) < 0.1


def test_bf16_predicts_like_float32():
    network = small(norm="channel")
    raw = torch.rand(1, 1, *network.input_shape_for((4, 12, 12))) * 2 - 1
    fast = InferenceNetwork(network, "cpu", torch.bfloat16)
    assert fast.precision == torch.bfloat16
    with torch.no_grad():
        difference = (fast(raw).softmax(1) - network(raw).softmax(1)).abs().max()
    assert 0 < difference < 0.05


def test_parameters_and_their_names_are_a_format():
    network = ResidualUnet(
        filters=[2, 3], downsample_factors=[[1, 2, 2]], kernel_sizes=[[1, 3, 3], [3, 3, 3]], norm="group"
    )
    conv = ["conv.weight", "conv.bias", "norm.weight", "norm.bias"]
    expected = [f"conv_in.{name}" for name in conv]
    for level in range(2):
        expected += [
            f"down.{level}.{layer}.{name}" for layer in ("0", "1.first", "1.second") for name in conv
        ]
    expected += ["up.0.up.weight", "up.0.up.bias"]
    expected += [f"merged.0.{layer}.{name}" for layer in ("first", "second") for name in conv]
    expected += ["conv_out.weight", "conv_out.bias"]
    assert list(network.state_dict()) == expected
    assert [name for name, _ in network.named_parameters()] == expected
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    assert shapes["conv_in.conv.weight"] == (2, 1, 1, 5, 5)
    assert shapes["down.1.0.conv.weight"] == (3, 2, 3, 3, 3)
    assert shapes["up.0.up.weight"] == (2, 3, 1, 1, 1)
    assert shapes["merged.0.first.conv.weight"] == (2, 2, 1, 3, 3)
    assert set(plain_state(network)) == set(expected)
    assert len(learnt_filters(network)) == 11


def test_the_published_filters_and_kernels():
    network = build_network(
        {
            "type": "ResidualUnet", "num_fmaps_out": 3, "filters": [28, 36, 48, 64, 80],
            "downsample_factors": [[1, 2, 2], [1, 2, 2], [2, 2, 2], [2, 2, 2]],
            "kernel_sizes": [[1, 3, 3]] * 3 + [[3, 3, 3]] * 2, "norm": "group", "activation": "elu",
        }
    )  # fmt: skip
    assert isinstance(network, ResidualUnet)
    assert network.stride == (4, 16, 16)
    assert network.context_voxels == (22, 127, 127)
    assert network.depends_on_tile


def test_a_checkpoint_goes_round(tmp_path):
    network, other = small(norm="group"), small(seed=1, norm="group")
    save_checkpoint(tmp_path / "model", network, None, {})
    load_into(other, load_checkpoint(tmp_path / "model"))
    for name, value in network.state_dict().items():
        assert torch.equal(value, other.state_dict()[name])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"filters": [4, 6, 9]}, r"model.filters is \[4, 6, 8\] in the checkpoint, \[4, 6, 9\]"),
        ({"kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3]]}, "model.kernel_sizes is"),
        ({"norm": "channel"}, "model.norm is none in the checkpoint"),
        (
            {"filters": [4, 6], "downsample_factors": [[1, 2, 2]], "kernel_sizes": None},
            "3 levels in the check",
        ),
    ],
)
def test_a_checkpoint_of_another_one_names_the_setting(tmp_path, settings, message):
    save_checkpoint(tmp_path / "model", small(), None, {})
    with pytest.raises(CheckpointError, match=message):
        load_into(ResidualUnet(**{**SMALL, **settings}), load_checkpoint(tmp_path / "model"))


def test_checkpoints_of_both_kinds_are_told_apart(tmp_path):
    unet = Unet(num_fmaps=2, downsample_factors=((2, 2, 2),))
    save_checkpoint(tmp_path / "residual", small(), None, {})
    save_checkpoint(tmp_path / "unet", unet, None, {})
    with pytest.raises(CheckpointError, match=r"Set model\.type to ResidualUnet"):
        load_into(unet, load_checkpoint(tmp_path / "residual"))
    with pytest.raises(CheckpointError, match="holds no ResidualUnet"):
        load_into(small(), load_checkpoint(tmp_path / "unet"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"filters": [4, 6]}, r"model.filters is \[4, 6\]; allowed: 3 of positive"),
        ({"filters": [4, 0, 6]}, "model.filters"),
        ({"filters": []}, "model.filters"),
        ({"kernel_sizes": [[3, 3, 3]]}, r"model.kernel_sizes.*allowed: 3 of \[z, y, x\], one for each level"),
        ({"kernel_sizes": [[3, 3, 2]] * 3}, "model.kernel_sizes.*odd"),
        ({"io_kernel_size": [2, 3, 3]}, r"model.io_kernel_size is \[2, 3, 3\].*odd"),
        ({"norm": "chanel"}, "Did you mean 'channel'"),
        ({"norm": "batch"}, "none, group, channel"),
        ({"activation": "relus"}, "Did you mean 'relu'"),
        ({"num_fmaps": 0}, "model.num_fmaps is 0"),
        ({"downsample_factors": [[0, 2, 2], [2, 2, 2]]}, "model.downsample_factors"),
    ],
)
def test_impossible_settings_are_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        ResidualUnet(**{**SMALL, **settings})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"filters": [2, 4]},
            r"model.filters is \[2, 4\].*set model.type=ResidualUnet; a Unet has model.num_fmaps",
        ),
        ({"norm": "group"}, "model.norm is group; allowed: none with model.type = Unet"),
        ({"type": "OneConv3d", "activation": "elu"}, "model.activation is elu"),
        ({"kernel_size": 3}, "Did you mean 'kernel_sizes'"),
    ],
)
def test_other_networks_have_not_its_settings(settings, message):
    with pytest.raises(ConfigError, match=message):
        build_network(settings)


def test_a_unet_may_be_given_what_means_nothing():
    settings = {"filters": None, "kernel_sizes": None, "io_kernel_size": [1, 5, 5], "norm": "none"}
    assert isinstance(build_network({"type": "Unet", "num_fmaps": 2, **settings}), Unet)


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("activation", ["relu", "elu"])
def test_the_signal_passes_without_normalisation(activation, centred):
    torch.manual_seed(0)
    network = ResidualUnet(
        filters=[8, 12, 16, 20], downsample_factors=[[1, 2, 2]] * 3, kernel_sizes=[[1, 3, 3]] * 4,
        activation=activation,
    )  # fmt: skip
    initialise(network, centred=centred)
    features = {}
    network.conv_out.register_forward_hook(lambda module, given, _: features.update(last=given[0]))
    with torch.no_grad():
        network(torch.randn(1, 1, *network.input_shape_for((4, 16, 16))) * 0.3)
    assert 0.1 < float(features["last"].std()) / 0.3 < 10


def test_weight_standardisation_is_the_same_network():
    network = small(norm="channel")
    initialise(network, centred=True)
    raw = torch.rand(1, 1, *network.smallest_input)
    before, state = network(raw).detach(), {n: v.clone() for n, v in network.state_dict().items()}
    standardise(network)
    torch.testing.assert_close(network(raw), before, rtol=1e-3, atol=1e-5)
    plain = plain_state(network)
    assert set(plain) == set(state)
    for name, value in state.items():
        torch.testing.assert_close(plain[name], value, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("norm", ["none", "channel", "group"])
def test_in_plain_operators_it_can_be_traced_for_every_size(norm):
    network = small(norm=norm, activation="elu").eval()
    plain = portable(network)
    with warnings.catch_warnings(), torch.inference_mode(False):
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        traced = torch.jit.trace(plain, torch.zeros(1, 1, *network.smallest_input), check_trace=False)
    for more in range(2):
        size = [s + more * step for s, step in zip(network.smallest_input, network.stride, strict=True)]
        raw = torch.rand(1, 1, *size) * 2 - 1
        with torch.inference_mode():
            torch.testing.assert_close(plain(raw), network(raw))
            torch.testing.assert_close(traced(raw), network(raw))
    assert not any(p.requires_grad for p in plain.parameters())


@pytest.mark.skipif(not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="no bfloat16 on this processor")
@pytest.mark.parametrize("activation", ["relu", "elu"])
@pytest.mark.parametrize(("depth", "lowest"), [(1, [1, 3, 3]), (3, [3, 3, 3])], ids=["alone", "few"])
def test_wide_sections_in_bfloat16_do_not_end_in_a_crash(activation, depth, lowest):
    flat = {"kernel_sizes": [lowest, lowest], "downsample_factors": [[1, 2, 2]], "io_kernel_size": [1, 5, 5]}
    network = small(filters=[12, 16], activation=activation, **flat).to(memory_format=torch.channels_last_3d)
    raw = torch.rand(2, 1, *network.input_shape_for((4 - depth, 200, 200))) * 2 - 1
    raw = raw.contiguous(memory_format=torch.channels_last_3d)
    results = []
    for enabled in (True, False):
        network.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            logits = network(raw)
        assert logits.is_contiguous(memory_format=torch.channels_last_3d)
        logits.float().square().mean().backward()
        results.append(torch.cat([p.grad.flatten() for p in network.parameters()]))
    low, full = results
    assert float((low - full).norm() / full.norm()) < 0.1
    fast = InferenceNetwork(network, "cpu", torch.bfloat16)
    with torch.no_grad():
        assert (fast(raw).sigmoid() - network(raw).sigmoid()).abs().mean() < 0.01
