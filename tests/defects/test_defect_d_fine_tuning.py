"""D: fine-tuning took lr and weight decay of the old run and overwrote what it started from; a run that had
been continued once was continued by whatever was based on it."""

from incasem.networks import load_checkpoint
from tests.defects.conftest import record_training, train


def test_the_settings_of_the_optimizer_are_those_of_the_command(home):
    own = ("training.optimizer.lr=0.002", "training.optimizer.weight_decay=0.5")
    before = (home / "checkpoint").read_bytes()
    assert train(home, "--start_from", 1, home / "checkpoint", "with", *own) == 0
    (group,) = load_checkpoint(home / "runs/models/0002/model_checkpoint_0").optimizer_state["param_groups"]
    assert group["lr"] == 0.002
    assert group["weight_decay"] == 0.5
    assert (home / "checkpoint").read_bytes() == before


def test_what_is_based_on_a_continued_run_goes_its_own_way(home):
    record_training(home, 2, continue_id=1)
    first = home / "runs/models/0001"
    assert train(home, "--start_from", 2, home / "checkpoint") == 0
    assert train(home, "--repeat_run", 2) == 0
    assert not first.exists()
    for run_id in ("0003", "0004"):
        assert (home / f"runs/models/{run_id}/model_checkpoint_0").exists()
