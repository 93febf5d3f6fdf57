"""Validations beside the training: the same results, later, and nothing left behind."""

import json
import threading

import pytest
import torch

from incasem.errors import ConfigError, DataError
from incasem.networks import build_network
from incasem.tracking import TRAININGS, open_store
from incasem.training.asynchronous import Validations, validation_device
from incasem.training.distributed import Processes
from incasem.training.validation import Validator
from tests.training.conftest import run

BESIDE = "validation.device=cpu"


class Waiting:
    """A validator that is at work until it is let go, and returns the network's first weight."""

    def __init__(self):
        self.may_end, self.stopped = threading.Event(), False

    def run(self, network, iteration):
        assert self.may_end.wait(30)
        if self.stopped:
            raise InterruptedError("stopped")
        return [float(next(network.parameters()).detach().flatten()[0])]

    def stop(self):
        self.stopped = True
        self.may_end.set()


def metrics(project, run_id, runs):
    with open_store(None, project / runs, TRAININGS, {}) as store:
        return store.metrics(run_id)


def test_a_training_gives_the_same_losses_scores_and_sidecars(project):
    settings = ["validation.validate_every=1", "training.save_every=1", "training.ema_decay=0.5"]
    run(project, *settings, runs="waits")
    run(project, *settings, BESIDE, runs="beside")
    waits, beside = metrics(project, 1, "waits"), metrics(project, 1, "beside")
    assert set(waits) == set(beside)
    for name, metric in waits.items():
        assert (metric.steps, metric.values) == (beside[name].steps, beside[name].values), name
    assert metrics(project, 1, "beside")["f1_class_1_validation_ds_0"].steps == (0, 1, 2, 3, 4)
    for iteration in range(5):
        sidecars = [
            json.loads((project / runs / f"models/0001/model_checkpoint_{iteration}.json").read_text())
            for runs in ("waits", "beside")
        ]
        assert sidecars[0]["scores"] == sidecars[1]["scores"]


def test_the_training_goes_on_and_the_network_is_scored_as_it_was():
    network = build_network({"type": "OneConv3d"})
    validator = Waiting()
    with torch.no_grad(), Validations(validator, beside=True) as validations:
        network.layer.weight.fill_(1)
        validations.start(network, 3)
        network.layer.weight.fill_(2)
        assert list(validations.finished()) == []
        assert validations.running == 3
        validator.may_end.set()
        assert list(validations.finished(wait=True)) == [(3, [1.0])]
        assert validations.running is None
        validations.start(network, 4)
        validations.start(network, 5)  # waits for the one of 4
        assert [iteration for iteration, _ in validations.finished()][:1] == [4]
        assert [iteration for iteration, _ in validations.finished(wait=True)] in ([5], [])


def test_without_a_device_of_its_own_it_is_done_when_start_returns():
    network = build_network({"type": "OneConv3d"})
    validator = Waiting()
    validator.may_end.set()
    with Validations(validator, beside=False) as validations:
        validations.start(network, 0)
        assert [iteration for iteration, _ in validations.finished()] == [0]


def test_a_validation_that_fails_fails_the_run(project, monkeypatch):
    def fail(self, network, iteration):
        raise DataError("the labels are gone")

    monkeypatch.setattr(Validator, "run", fail)
    with pytest.raises(DataError, match="the labels are gone"):
        run(project, BESIDE)


def test_a_training_that_fails_does_not_wait_for_its_validation():
    network, validator = build_network({"type": "OneConv3d"}), Waiting()
    validations = Validations(validator, beside=True)
    validations.start(network, 0)
    validations.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert validator.stopped


def test_a_stopped_validator_ends_after_the_block_it_is_at(project, monkeypatch):
    kept = []
    monkeypatch.setattr("incasem.training.run.Validator", lambda *a: kept.append(Validator(*a)) or kept[0])
    run(project)
    kept[0].stop()
    network = build_network({"num_fmaps": 2, "downsample_factors": [[2, 2, 2]]})
    with pytest.raises(InterruptedError):
        kept[0].run(network, 0)


def test_a_checkpoint_whose_validation_is_at_work_is_kept(project, monkeypatch):
    may_end = threading.Event()
    original = Validator.run

    def slow(self, network, iteration):
        if iteration == 1:
            assert may_end.wait(60)
        return original(self, network, iteration)

    kept = []

    def saved(self, iteration):
        if iteration == 3:
            folder = project / "runs/models/0001"
            kept.extend(sorted(p.name for p in folder.iterdir() if p.suffix != ".json"))
            may_end.set()
        return False

    monkeypatch.setattr(Validator, "run", slow)
    monkeypatch.setattr(
        "incasem.training.trainer.Trainer._validates", lambda self, i: i == 1 or saved(self, i)
    )
    run(project, BESIDE, "training.save_every=1", "training.checkpoints.keep=1")
    assert kept == ["model_checkpoint_1", "model_checkpoint_3"]


@pytest.mark.parametrize(
    ("gpus", "free", "local", "expected"),
    [
        (1, {0: 1.0}, 0, 0),
        (2, {0: 0.5, 1: 1.0}, 0, 1),
        (2, {0: 0.5, 1: 0.5}, 0, 0),
        (3, {0: 0.5, 1: 0.95, 2: 1.0}, 2, 2),
        (2, {0: 0.5, 1: 1.0}, 2, 0),
    ],
)
def test_a_second_gpu_is_taken_where_one_is_free(monkeypatch, gpus, free, local, expected):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (int(free[device.index] * 1000), 1000))
    joined = Processes(local_gpus=local)
    assert validation_device(None, torch.device("cuda", 0), joined) == torch.device("cuda", expected)


def test_on_the_processor_the_training_waits_unless_told_otherwise():
    assert validation_device(None, torch.device("cpu"), Processes()) == torch.device("cpu")
    with pytest.raises(ConfigError, match=r"validation\.device.*cuda:7"):
        validation_device("cuda:7", torch.device("cpu"), Processes())
