import logging

import pytest
import torch

from incasem.errors import ConfigError
from incasem.prediction import choose_device, choose_devices


@pytest.fixture
def gpus(monkeypatch):
    def pretend(count):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: f"card {index}")

    return pretend


@pytest.mark.parametrize(
    ("setting", "count", "device"),
    [
        ("cpu", 2, "cpu"), ("auto", 0, "cpu"), ("auto", 2, "cuda:0"), (1, 2, "cuda:1"), ("1", 2, "cuda:1"),
        ("cuda", 1, "cuda:0"), ("cuda:1", 2, "cuda:1"),
    ],
)  # fmt: skip
def test_a_device_that_is_there(gpus, setting, count, device):
    gpus(count)
    assert choose_device(setting) == torch.device(device)


def test_the_published_default_runs_on_a_laptop_with_a_warning(gpus, caplog):
    gpus(0)
    with caplog.at_level(logging.WARNING):
        assert choose_device(0) == torch.device("cpu")
    assert "no GPU is available" in caplog.text


@pytest.mark.parametrize(("setting", "count"), [(2, 2), ("cuda", 0), ("cuda:1", 1), ("gpu", 1), (-1, 1)])
def test_a_device_that_is_not_there(gpus, setting, count):
    gpus(count)
    with pytest.raises(ConfigError, match=f"torch.device is {setting}; allowed"):
        choose_device(setting)


@pytest.mark.parametrize(
    ("setting", "count", "devices"),
    [
        ("cpu", 2, ["cpu"]), (0, 2, ["cuda:0"]), ([0, 1], 2, ["cuda:0", "cuda:1"]), ([1], 2, ["cuda:1"]),
        ("all", 3, ["cuda:0", "cuda:1", "cuda:2"]), ("all", 0, ["cpu"]), (["cpu", "cpu"], 0, ["cpu", "cpu"]),
    ],
)  # fmt: skip
def test_several_devices(gpus, setting, count, devices):
    gpus(count)
    assert choose_devices(setting) == tuple(torch.device(name) for name in devices)


def test_one_of_several_devices_that_is_not_there(gpus):
    gpus(2)
    with pytest.raises(
        ConfigError, match=r"torch.device is cuda:2; allowed: cpu, auto, .*0 \(card 0\), 1 \(card 1"
    ):
        choose_devices([0, 2])
    gpus(0)
    with pytest.raises(ConfigError, match=r"torch.device is cuda:0; allowed: .*no GPU"):
        choose_devices([0, 1])
