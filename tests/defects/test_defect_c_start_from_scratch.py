"""C: with a run id below 1000, `--start_from` looked in another folder and silently trained from scratch."""

import torch

from incasem.networks import load_checkpoint
from tests.defects.conftest import make_network, train


def test_a_fresh_database_fine_tunes_from_the_checkpoint(home):
    settings = ("training.optimizer.lr=1e-9", "seed=5")
    assert train(home, "--start_from", 1, home / "checkpoint", "with", *settings) == 0
    tuned = load_checkpoint(home / "runs/models/0002/model_checkpoint_0").model_state
    for name, weight in make_network().state_dict().items():
        torch.testing.assert_close(tuned[name], weight, atol=1e-7, rtol=0)
