"""Which checkpoints are meant."""

import json
from pathlib import Path

import pytest

from incasem.errors import CheckpointError, ConfigError
from incasem.runs.checkpoint_series import CheckpointSeries


@pytest.fixture
def models(tmp_path):
    for name in (*(f"model_checkpoint_{i}" for i in (0, 900, 1000, 10000)), "model_checkpoint_900.json",
                 ".model_checkpoint_5.1234.tmp", "best_7.pt"):  # fmt: skip
        (tmp_path / name).touch()
    return tmp_path


def iterations(series, models):
    return [iteration for iteration, _ in series.find(models)]


def test_all_in_the_order_of_their_numbers(models):
    assert iterations(CheckpointSeries(), models) == [0, 900, 1000, 10000]
    assert CheckpointSeries().find(models)[1] == (900, models / "model_checkpoint_900")


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ({"start": 900}, [900, 1000, 10000]), ({"stop": 1000}, [0, 900, 1000]),
        ({"start": 1, "stop": 9999}, [900, 1000]), ({"start": 900, "stop": 1000, "step": 100}, [900, 1000]),
        ({"iterations": (1000, 0, 1000)}, [0, 1000]),
    ],
)  # fmt: skip
def test_some(models, bounds, expected):
    assert iterations(CheckpointSeries(**bounds), models) == expected


def test_other_folder_and_name(models, tmp_path):
    series = CheckpointSeries(directory=models, basename="best_")
    assert series.find(tmp_path / "elsewhere") == [(7, models / "best_7.pt")]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"start": 0, "stop": 1000, "step": 500}, r"missing: model_checkpoint_500.*0, 900, 1000, 10000"),
        ({"iterations": (5,)}, "missing: model_checkpoint_5"),
        ({"start": 20000}, "not there"),
        ({"basename": "weights_"}, "weights_.*none"),
        ({"directory": Path("/nowhere")}, "/nowhere"),
    ],
)
def test_missing_ones_are_named(models, asked, message):
    with pytest.raises(CheckpointError, match=message):
        CheckpointSeries(**asked).find(models)


@pytest.mark.parametrize("asked", [{"iterations": (1,), "step": 2}, {"step": 0}])
def test_contradictions_are_refused(asked):
    with pytest.raises(ConfigError, match="--step"):
        CheckpointSeries(**asked)


def test_it_is_recorded_as_json_reads_it_back(models):
    for series in (CheckpointSeries(), CheckpointSeries(directory=models, iterations=(1, 2))):
        assert json.loads(json.dumps(series.as_asked())) == series.as_asked()
