import pytest
import torch

from incasem.errors import ConfigError
from incasem.networks import OneConv3d, Unet, build_network


def test_the_published_model_section():
    network = build_network(
        {
            "type": "Unet",
            "num_fmaps": 32,
            "num_fmaps_out": 2,
            "fmap_inc_factor": 2,
            "downsample_factors": [[2, 2, 2], [2, 2, 2], [2, 2, 2]],
            "constant_upsample": True,
        }
    )
    assert isinstance(network, Unet)
    assert sum(p.numel() for p in network.parameters()) == 5_837_730


def test_absent_settings_keep_the_published_defaults():
    network = build_network({"num_fmaps": 2, "num_fmaps_out": 3})
    assert network.stride == (8, 8, 8)
    assert network.num_fmaps_out == 3


def test_one_conv_3d():
    network = build_network({"type": "OneConv3d", "num_fmaps": 32, "num_fmaps_out": 3})
    assert isinstance(network, OneConv3d)
    assert list(network.state_dict()) == ["layer.weight", "layer.bias"]
    assert network.context_voxels == (1, 1, 1)
    assert network.input_shape_for((4, 5, 6)) == (6, 7, 8)
    assert network(torch.zeros(1, 1, 6, 7, 8)).shape == (1, 3, 4, 5, 6)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"type": "MultitaskUnet"}, "no published pipeline"),
        ({"type": "unet"}, "Did you mean 'Unet'"),
        ({"num_fmap": 3}, r"model\.num_fmap .*Did you mean 'num_fmaps'"),
        ({"num_fmaps": 0}, r"model\.num_fmaps is 0"),
    ],
)
def test_bad_model_sections(model, message):
    with pytest.raises(ConfigError, match=message):
        build_network(model)
