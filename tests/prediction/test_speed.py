import pytest
import torch

from incasem.geometry import Coordinate
from incasem.networks import InferenceNetwork
from incasem.prediction.speed import measured_speed


def test_the_speed_is_that_of_the_operations_that_were_done(network, monkeypatch):
    clock = iter([10.0, 10.5])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    sizes = []
    call = InferenceNetwork.__call__
    monkeypatch.setattr(
        InferenceNetwork, "__call__", lambda self, raw: sizes.append(raw.shape) or call(self, raw)
    )
    speed = measured_speed(network, torch.device("cpu"), "fp32", "torch", Coordinate(24, 24, 24))

    from incasem.prediction.cost import NetworkCost

    assert tuple(sizes[-1][2:]) == tuple(network.input_shape_for((24, 24, 24)))
    assert speed == pytest.approx(NetworkCost(network, "cpu").call(sizes[-1][2:]).flops / 0.5)


def test_without_the_memory_for_it_there_is_no_speed(network, monkeypatch):
    def __call__(self, raw):
        raise MemoryError

    monkeypatch.setattr(InferenceNetwork, "__call__", __call__)
    assert measured_speed(network, torch.device("cpu"), "fp32", "torch", Coordinate(24, 24, 24)) is None
