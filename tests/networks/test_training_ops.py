"""Operations of a training step against the plain operators that they stand for."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from incasem.networks import Unet, initialise, unet
from incasem.networks.onednn import FUSED_DTYPES
from incasem.networks.training_ops import (
    centre_crop,
    convolution_relu,
    crop_and_join,
    pool_and_crop,
    trains_in_bfloat16,
)

LAYOUTS = [torch.contiguous_format, torch.channels_last_3d]
needs_bfloat16 = pytest.mark.skipif(
    torch.bfloat16 not in FUSED_DTYPES, reason="no convolution in bfloat16 on this processor"
)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradient_of_cropping_and_joining(layout):
    """The hand-written gradient equals autograd's, for any layout and single channels."""
    torch.manual_seed(0)
    for channels in [(3, 2), (1, 1)]:
        maps = [
            torch.rand(2, c, 6, 7, size, dtype=torch.float64)
            .contiguous(memory_format=layout)
            .requires_grad_()
            for c, size in zip(channels, (8, 4), strict=True)
        ]
        assert torch.autograd.gradcheck(lambda *m: crop_and_join((4, 3, 4), *m), maps)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("factor", "shape"), [((2, 2, 2), (4, 6, 4)), ((1, 2, 2), (6, 2, 4))])
def test_pooling_beside_a_skip_connection(layout, factor, shape):
    torch.manual_seed(0)
    maps = torch.rand(2, 3, 6, 8, 8, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    pooled, centre = pool_and_crop(maps, factor, shape)
    assert torch.equal(pooled, functional.max_pool3d(maps, factor, factor))
    assert torch.equal(centre, centre_crop(maps, shape))
    assert torch.autograd.gradcheck(lambda m: pool_and_crop(m, factor, shape), [maps])


def test_either_output_alone_has_a_gradient():
    for used in range(2):
        maps = torch.rand(1, 2, 4, 4, 4, requires_grad=True)
        pool_and_crop(maps, (2, 2, 2), (2, 2, 2))[used].sum().backward()
        assert maps.grad.sum() == 16


@needs_bfloat16
@pytest.mark.parametrize(
    ("channels", "width", "kernel"), [(1, 12, 3), (1, 11, 3), (5, 12, 3), (1, 12, 1)], ids=str
)
def test_convolution_and_relu(channels, width, kernel):
    """Also where two neighbouring voxels are computed at once: one channel, even width."""
    torch.manual_seed(0)
    layer = nn.Conv3d(channels, 4, kernel).to(memory_format=torch.channels_last_3d)
    raw = torch.rand(2, channels, 8, 9, width) - 0.5
    results = []
    for fused in (False, True):
        layer.zero_grad()
        maps = raw.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            assert trains_in_bfloat16(maps)
            out = convolution_relu(maps, layer) if fused else layer(maps).relu()
        out.float().square().sum().backward()
        results.append([out, maps.grad, layer.weight.grad, layer.bias.grad])
    for plain, ours in zip(*results, strict=True):
        assert ours.dtype == plain.dtype
        assert (ours - plain).norm() <= 4e-3 * plain.norm()


@needs_bfloat16
def test_a_training_step_of_the_network(monkeypatch):
    """Output and gradients are those of the plain layers."""
    torch.manual_seed(0)
    network = Unet(num_fmaps=3).to(memory_format=torch.channels_last_3d)
    initialise(network)
    raw = torch.rand(1, 1, 108, 100, 100) * 2 - 1
    results = []
    for fused in (True, False):
        network.zero_grad()
        with monkeypatch.context() as patch, torch.autocast("cpu", torch.bfloat16):
            if not fused:
                patch.setattr(unet, "trains_in_bfloat16", lambda maps: False)
            out = network(raw)
        out.float().square().mean().backward()
        results.append([out.detach(), *(p.grad for p in network.parameters())])
    for ours, plain in zip(*results, strict=True):
        assert (ours - plain).norm() <= 0.02 * plain.norm()


def test_only_training_in_bfloat16_is_special():
    maps = torch.rand(1, 1, 4, 4, 4)
    assert not trains_in_bfloat16(maps)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        assert not trains_in_bfloat16(maps)
