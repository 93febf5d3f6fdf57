import pytest
import torch
from torch.nn import functional

from incasem.networks.onednn import convolution_gradients

no_bfloat16 = not torch.ops.mkldnn._is_mkldnn_bf16_supported()


@pytest.mark.skipif(no_bfloat16, reason="no bfloat16 on this processor")
@pytest.mark.parametrize(
    ("maps", "kernel"),
    [((2, 4, 3, 110, 110), 3), ((1, 12, 6, 110, 100), 3), ((1, 3, 2, 130, 130), 1), ((1, 4, 20, 20, 20), 3)],
    ids=["three sections", "six sections", "sections alone", "a cube"],
)
@pytest.mark.parametrize("wanted", [(True, True, True), (False, True, True)])
def test_gradients_in_bfloat16_are_those_of_float32(maps, kernel, wanted):
    torch.manual_seed(1)
    shape = (8, maps[1], kernel, 3, 3)
    given, weight, bias = torch.randn(maps), torch.randn(shape), torch.randn(8)
    exact = [t.to(torch.bfloat16).float().requires_grad_() for t in (given, weight, bias)]
    result = functional.conv3d(*exact)
    gradient = torch.randn(result.shape).to(torch.bfloat16)
    result.backward(gradient.float())
    low = (t.to(torch.bfloat16, memory_format=torch.channels_last_3d) for t in (gradient, given, weight))
    found = convolution_gradients(*low, wanted)
    assert (found[0] is None) == (not wanted[0])
    for one, reference in zip(found, exact, strict=True):
        if one is not None:
            assert one.shape == reference.grad.shape
            error = (one.float() - reference.grad).norm() / reference.grad.norm()
            assert float(error) < 0.01
