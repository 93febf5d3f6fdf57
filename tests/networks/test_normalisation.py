"""Normalisations in float32 and bfloat16 against torch's own in float64."""

import pytest
import torch
from torch.nn import functional

from incasem.networks.normalisation import make_norm

SHAPE = (2, 16, 12, 40, 50)


def reference(norm, module, maps):
    weight, bias = module.weight.detach().double(), module.bias.detach().double()
    weight.requires_grad_()
    bias.requires_grad_()
    if norm == "group":
        result = functional.group_norm(maps, module.num_groups, weight, bias, module.eps)
    else:
        last = functional.layer_norm(maps.permute(0, 2, 3, 4, 1), [16], weight, bias, module.eps)
        result = last.permute(0, 4, 1, 2, 3)
    return result, weight, bias


def error(found, expected):
    found, expected = found.detach().double(), expected.detach().double()
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("norm", ["channel", "group"])
def test_values_and_gradients(norm, dtype):
    """In bfloat16, torch 2.13 loses the sums of `layer_norm` over many voxels on processors."""
    if dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("no bfloat16 on this processor")
    torch.manual_seed(0)
    module = make_norm(norm, 16)
    with torch.no_grad():
        module.weight.normal_(1, 0.5)
        module.bias.normal_()
    maps = (torch.randn(SHAPE) * 1.5 + 1).to(dtype).contiguous(memory_format=torch.channels_last_3d)
    gradient = (torch.randn(SHAPE) + 0.3).to(dtype)
    own = maps.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        result = module(own)
    result.backward(gradient)
    exact = maps.double().requires_grad_()
    expected, weight, bias = reference(norm, module, exact)
    expected.backward(gradient.double())
    allowed = 0.01 if dtype == torch.bfloat16 else 2e-4
    assert result.dtype == own.grad.dtype == dtype
    assert error(result, expected) < allowed
    assert error(own.grad, exact.grad) < allowed
    assert error(module.weight.grad, weight.grad) < allowed
    assert error(module.bias.grad, bias.grad) < allowed


def test_channel_normalisation_knows_its_own_voxel_only():
    module, maps = make_norm("channel", 5), torch.randn(1, 5, 4, 4, 4)
    changed = maps.clone()
    changed[..., 0, 0, 0] += 7 * torch.arange(5.0)
    difference = (module(maps) != module(changed)).any(dim=1)[0]
    assert difference.sum() == 1


def test_an_activation_in_place_does_not_spoil_the_gradients():
    module = make_norm("channel", 4).double()
    maps = torch.randn(1, 4, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda m: functional.elu_(module(m)), (maps,))


def test_groups_divide_the_channels():
    assert [make_norm("group", channels).num_groups for channels in (28, 32, 80, 3)] == [4, 8, 8, 1]
