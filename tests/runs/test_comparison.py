"""The picture that compares runs."""

import matplotlib.image
import pytest

from incasem.errors import DataError, TrackingError
from incasem.runs.comparison import f1_of_runs, write_comparison
from incasem.tracking import TRAININGS, DirectoryStore, run_experiment


def record(store, name, **metrics):
    def train(run):
        for metric, values in metrics.items():
            for step, value in values.items():
                run.log_scalar(metric, value, step)

    return run_experiment(name=name, kind="train", config={"seed": 1}, store=store, main=train).run_id


@pytest.fixture
def store(tmp_path):
    return DirectoryStore(tmp_path / "runs", TRAININGS)


def test_a_line_a_run(store, tmp_path):
    values = {0: 0.1, 50: 0.8}
    scratch = record(store, "scratch", f1_class_1_validation_ds_0=values, dice_class_1_validation_ds_0=values)
    tuned = record(store, "tuned", f1_class_1_validation_ds_0={0: 0.4, 20: 0.9})
    curve = f1_of_runs(store, [tuned, scratch])
    assert {name: (tuple(x), tuple(y)) for name, (x, y) in curve.lines.items()} == {
        f"{tuned}: tuned": ((0, 20), (0.4, 0.9)),
        f"{scratch}: scratch": ((0, 50), (0.1, 0.8)),
    }
    write_comparison(store, [scratch, tuned], tmp_path / "new" / "f1.png")
    picture = matplotlib.image.imread(tmp_path / "new" / "f1.png")
    assert picture[..., :3].std() > 0.05, "something is drawn"


def test_classes_and_datasets_are_named_where_there_are_several(store):
    run = record(store, "two", f1_class_1_validation_ds_0={0: 0.1}, f1_class_2_validation_ds_0={0: 0.2})
    assert set(f1_of_runs(store, [run]).lines) == {
        f"{run}: two, class {class_id}, dataset 0" for class_id in (1, 2)
    }


def test_what_cannot_be_drawn(store, tmp_path):
    run = record(store, "no validation", loss_train_0={0: 1.0})
    with pytest.raises(DataError, match="not recorded"):
        write_comparison(store, [run], tmp_path / "f1.png")
    with pytest.raises(DataError, match="ends in"):
        write_comparison(store, [run], tmp_path / "f1.jpg")
    with pytest.raises(TrackingError):
        write_comparison(store, [run, 99], tmp_path / "f1.png")
    assert not (tmp_path / "f1.png").exists()
