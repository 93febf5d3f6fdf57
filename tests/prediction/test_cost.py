import subprocess
import sys

import pytest
import torch
from torch import nn

from incasem.geometry import Coordinate
from incasem.networks import OneConv3d, Unet, ValidNetwork
from incasem.prediction.cost import NetworkCost


@pytest.fixture(scope="module")
def published():
    return NetworkCost(Unet())


def test_flops_of_the_published_network_are_the_known_ones(published):
    per_voxel = published.flops_per_voxel()
    assert per_voxel == pytest.approx(0.520e6, rel=1e-3)
    assert published.call((204, 204, 204)).flops == pytest.approx(1.58e12, rel=5e-3)
    assert published.call((204, 204, 204)).flops / 110**3 / per_voxel == pytest.approx(2.28, abs=0.005)
    assert published.call((364, 364, 364)).flops / 270**3 / per_voxel == pytest.approx(1.38, abs=0.005)


def test_largest_tensor_passes_the_limit_where_it_was_measured_to(published):
    assert (
        published.call((364, 364, 364)).largest_tensor
        < 2**31
        < published.call((524, 524, 524)).largest_tensor
    )


def test_one_convolution_counts_its_input_and_output():
    cost = NetworkCost(OneConv3d(num_fmaps_out=5)).call((12, 12, 12))

    assert cost.peak_elements == 12**3 + 5 * 10**3
    assert cost.largest_tensor == 5 * 10**3
    assert cost.flops == 2 * 27 * 5 * 10**3


class Chain(ValidNetwork):
    """Convolutions whose intermediate maps die as soon as they were used."""

    def __init__(self):
        super().__init__()
        self.context_voxels, self.stride = Coordinate(3, 3, 3), Coordinate(1, 1, 1)
        self.smallest_input, self.num_fmaps_out = Coordinate(7, 7, 7), 2
        self.layers = nn.ModuleList([nn.Conv3d(1, 4, 3), nn.Conv3d(4, 4, 3), nn.Conv3d(4, 2, 3)])

    def forward(self, maps):
        for layer in self.layers:
            maps = layer(maps)
        return maps


def test_dead_tensors_free_their_memory():
    call = NetworkCost(Chain()).call((10, 10, 10))

    # The input lives on in the caller; of the maps only two at a time.
    assert call.peak_elements == 10**3 + 4 * 8**3 + 4 * 6**3


def test_tracing_leaves_the_network_alone():
    network = OneConv3d()
    before = network.layer.weight.clone()
    NetworkCost(network).call((9, 9, 9))

    assert network.layer.weight.device.type == "cpu"
    assert torch.equal(network.layer.weight, before)
    assert network.training


def test_a_plan_does_not_load_the_compiler_of_torch():
    """It takes longer to load than a small prediction."""
    code = (
        "import sys, torch, incasem.prediction.cost as cost; from incasem.networks.unet import Unet; "
        "cost.NetworkCost(Unet(num_fmaps=1), 'cpu').call((100, 100, 100)); "
        "print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr
