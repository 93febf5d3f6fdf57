"""B: any exception in a worker hung the prediction for ever; labels without a mask were enough for one."""

import time

import pytest

from incasem.errors import FailedBlocksError
from tests.defects.conftest import entry, predict


def test_labels_without_a_mask_are_scored(home, capsys):
    labelled = entry(labels={"volumes/labels/er": 1})
    assert predict(home, {"cell": labelled}, "prediction.log_metrics=True") == 0
    assert "F1" in capsys.readouterr().out


@pytest.mark.timeout(300)
def test_an_exception_in_a_worker_ends_the_command(home, capsys):
    (home / "cell.zarr/volumes/raw/1/1/1").write_bytes(b"not a chunk")
    begin = time.monotonic()
    assert predict(home, {"cell": entry()}) == FailedBlocksError.exit_code
    assert time.monotonic() - begin < 200
    error = capsys.readouterr().err
    assert "block failed" in error
    assert "volumes/raw" in error
