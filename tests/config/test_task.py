"""Which offsets a training of affinities may have."""

import pytest

from incasem.config import load_training_config
from incasem.errors import ConfigError


@pytest.mark.parametrize(
    "offsets",
    [
        "[]", "[[0,0,0],[-1,0,0]]", "[[-1,0,0],[-1,0,0]]", "[[-1,0],[0,-1,0]]", "[[-1,0,0.5]]", "[[-3,0,0]]",
        "[[-1,0,0],[0,-1,0],[0,0,-1],[1,0,0]]", "[[-1,0,0],[0,-3,2],[0,3,-2]]",
    ],
)  # fmt: skip
def test_offsets_that_are_no_edges_or_one_edge_twice_are_refused(offsets):
    """Of an edge and its opposite `incasem segment` would not know which to take, after the training."""
    with pytest.raises(ConfigError, match=r"task\.offsets is .*no two opposite"):
        load_training_config(None, ["task.type=affinities", f"task.offsets={offsets}"])


def test_offsets_may_lead_either_way():
    words = ["task.type=affinities", "task.offsets=[[1,0,0],[0,-1,0],[0,0,-1],[-1,1,0],[-1,-1,0]]"]
    assert len(load_training_config(None, words).task.offsets) == 5
