from pathlib import Path

import pytest
import torch

from incasem.errors import CheckpointError
from incasem.networks import Checkpoint, OneConv3d, Unet, infer_model_settings, load_into, load_optimizer

_SETTINGS = {"num_fmaps": 3, "downsample_factors": ((2, 2, 2),) * 2}


def _checkpoint_of(network, optimizer=None):
    return Checkpoint(
        Path("model_checkpoint_1"), network.state_dict(), optimizer.state_dict() if optimizer else None
    )


def test_weights_arrive():
    theirs, ours = Unet(**_SETTINGS), Unet(**_SETTINGS)
    load_into(ours, _checkpoint_of(theirs))
    assert all(torch.equal(a, b) for a, b in zip(theirs.parameters(), ours.parameters(), strict=True))


def test_unaveraged_weights_are_for_training():
    averaged, raw, ours = Unet(**_SETTINGS), Unet(**_SETTINGS), Unet(**_SETTINGS)
    checkpoint = Checkpoint(Path("c"), averaged.state_dict(), None, raw.state_dict())
    load_into(ours, checkpoint)
    assert torch.equal(next(ours.parameters()), next(averaged.parameters()))
    load_into(ours, checkpoint, for_training=True)
    assert torch.equal(next(ours.parameters()), next(raw.parameters()))


@pytest.mark.parametrize(
    ("changed", "cause"),
    [
        ({"num_fmaps": 4}, r"model\.num_fmaps is 3 in the checkpoint, 4 in the settings"),
        ({"num_fmaps_out": 3}, r"model\.num_fmaps_out is 2 in the checkpoint, 3 in the settings"),
        ({"fmap_inc_factor": 3}, r"model\.fmap_inc_factor is 2 in the checkpoint, 3"),
        ({"in_channels": 2}, r"model\.in_channels is 1 in the checkpoint, 2"),
        ({"constant_upsample": False}, r"model\.constant_upsample is True in the checkpoint, False"),
        ({"downsample_factors": ((2, 2, 2),)}, r"model\.downsample_factors \(their number\) is 2 .* 1 in"),
    ],
)
def test_misfits_name_the_setting_and_leave_the_network_alone(changed, cause):
    network = Unet(**{**_SETTINGS, **changed})
    before = [p.clone() for p in network.parameters()]
    with pytest.raises(CheckpointError, match=cause):
        load_into(network, _checkpoint_of(Unet(**_SETTINGS)))
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


def test_misfits_name_the_parameters():
    state = Unet(**_SETTINGS).state_dict()
    state["surplus"] = state.pop("unet.l_conv.0.conv_pass.0.bias")
    state["final_conv_pass.conv_pass.0.bias"] = torch.zeros(7)
    with pytest.raises(CheckpointError) as error:
        load_into(Unet(**_SETTINGS), Checkpoint(Path("c"), state))
    message = str(error.value)
    assert "1 parameters missing: unet.l_conv.0.conv_pass.0.bias" in message
    assert "1 parameters unexpected: surplus" in message
    assert "final_conv_pass.conv_pass.0.bias (7 in the checkpoint, 2 in the network)" in message


def test_other_network_types():
    with pytest.raises(CheckpointError, match="no U-Net"):
        load_into(Unet(**_SETTINGS), _checkpoint_of(OneConv3d()))
    with pytest.raises(CheckpointError, match=r"model\.type"):
        load_into(OneConv3d(), _checkpoint_of(Unet(**_SETTINGS)))


def test_settings_can_be_read_off_a_state():
    assert infer_model_settings(Unet(**_SETTINGS).state_dict()) == {
        "num_fmaps": 3,
        "in_channels": 1,
        "num_fmaps_out": 2,
        "fmap_inc_factor": 2,
        "constant_upsample": True,
        "depth": 2,
    }
    learnt = Unet(num_fmaps=2, downsample_factors=((1, 2, 2), (2, 2, 2)), constant_upsample=False)
    assert infer_model_settings(learnt.state_dict())["downsample_factors"] == [[1, 2, 2], [2, 2, 2]]
    assert infer_model_settings(OneConv3d().state_dict()) == {}


def _stepped(network, lr):
    optimizer = torch.optim.Adam(network.parameters(), lr=lr)
    network(
        torch.rand(1, network.unet.l_conv[0].conv_pass[0].in_channels, *network.smallest_input)
    ).sum().backward()
    optimizer.step()
    return optimizer


@pytest.mark.parametrize(("keep", "lr"), [(True, 0.5), (False, 0.01)])
def test_optimizer_moments_come_back_and_settings_stay(keep, lr):
    theirs, ours = Unet(**_SETTINGS), Unet(**_SETTINGS)
    source = _stepped(theirs, lr=0.01)
    optimizer = torch.optim.Adam(ours.parameters(), lr=0.5)
    load_optimizer(optimizer, _checkpoint_of(theirs, source), keep_settings=keep)
    assert optimizer.param_groups[0]["lr"] == lr
    restored = optimizer.state_dict()["state"]
    expected = source.state_dict()["state"]
    assert restored.keys() == expected.keys()
    assert all(torch.equal(restored[i]["exp_avg_sq"], expected[i]["exp_avg_sq"]) for i in expected)


def test_optimizer_misfits():
    network = Unet(**_SETTINGS)
    optimizer = torch.optim.Adam(network.parameters())
    with pytest.raises(CheckpointError, match="no 'optimizer_state_dict'"):
        load_optimizer(optimizer, _checkpoint_of(network))
    wider = Unet(**{**_SETTINGS, "num_fmaps": 4})
    with pytest.raises(CheckpointError, match="does not fit the network: parameter 0"):
        load_optimizer(optimizer, _checkpoint_of(wider, _stepped(wider, 0.1)))
    deeper = Unet(num_fmaps=3)
    with pytest.raises(CheckpointError, match="does not fit"):
        load_optimizer(optimizer, _checkpoint_of(deeper, torch.optim.Adam(deeper.parameters())))
