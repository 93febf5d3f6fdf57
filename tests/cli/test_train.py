"""The flags of `incasem train` that are not settings."""

import os

import pytest

from incasem.cli import main
from incasem.errors import ConfigError


@pytest.mark.parametrize("flag", ["--local-rank=3", "--local_rank=3"])
def test_the_number_of_a_process_is_taken_from_either_spelling(flag, monkeypatch):
    """`python -m torch.distributed.launch` passes the one or the other."""
    monkeypatch.setenv("LOCAL_RANK", "0")
    seen = []
    monkeypatch.setattr(
        "incasem.training.run.train", lambda request, tell: seen.append(os.environ["LOCAL_RANK"])
    )
    assert main(["train", flag, "with", "training.iterations=1"]) == 0
    assert seen == ["3"]


def test_no_number_leaves_that_of_the_environment(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "2")
    monkeypatch.setattr("incasem.training.run.train", lambda request, tell: None)
    assert main(["train", "with", "training.iterations=1"]) == 0
    assert os.environ["LOCAL_RANK"] == "2"


@pytest.mark.parametrize("value", ["-1", "first"])
def test_no_number_of_a_process(value, capsys, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert main(["train", f"--local-rank={value}", "with", "training.iterations=1"]) == ConfigError.exit_code
    assert "local-rank" in capsys.readouterr().err
