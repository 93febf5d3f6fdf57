"""Block times: every block has one, a resumed job keeps those of its first part, failures are marked."""

import time
from functools import partial

import numpy as np
import pytest

from incasem.blockwise import DONE, FAILED, RESUMED, SKIPPED, Grid, Job, StagedFunction, run_job
from incasem.blockwise.timing import read_times
from incasem.errors import FailedBlocksError
from incasem.geometry import Coordinate, Roi

GRID = Grid(Roi((0, 0, 0), (8, 8, 16)), Coordinate(8, 8, 4))


class Stages(StagedFunction):
    """Reads for a while; the last block computes longest."""

    def __init__(self, broken):
        self.broken = broken

    def read(self, block):
        time.sleep(0.01)

    def compute(self, block, given):
        if self.broken.exists() and block.index == 3:
            raise ValueError("broken")
        time.sleep(0.3 if block.index == 2 else 0.02)

    def write(self, block, result):
        assert result is None, "the stages are passed on what they gave"


def job(folder, **more):
    return Job("times", GRID, partial(Stages, folder / "broken"), {"a": 1}, folder / "state", **more)


def test_times_states_and_resumption(tmp_path):
    (tmp_path / "broken").touch()
    skip = np.zeros(GRID.shape, bool)
    skip[0, 0, 0] = True
    with pytest.raises(FailedBlocksError) as failed:
        run_job(job(tmp_path, skip=skip), num_workers=1, progress=False)
    first = failed.value.report
    assert first.blocks.state.ravel().tolist() == [SKIPPED, DONE, DONE, FAILED]
    assert first.blocks_done == 2

    (tmp_path / "broken").unlink()
    second = run_job(job(tmp_path, skip=skip), num_workers=1, progress=False)
    record = second.blocks
    assert record.state.ravel().tolist() == [SKIPPED, RESUMED, RESUMED, DONE]
    assert np.isnan(record.totals.ravel()).tolist() == [True, False, False, False]
    assert record.slowest(4)[0][0].index == 2
    assert len(record.slowest(4)) == 3
    read, compute, write = record.seconds[0, 0, 2]
    assert read >= 0.01
    assert compute >= 0.3
    assert write < compute
    assert record.count(DONE) == 1


def test_a_torn_line_is_left_out(tmp_path):
    (tmp_path / "1.jsonl").write_text("[0, 1, 2, 3]\n[1, 1, 2")
    (tmp_path / "2.jsonl").write_text("[99, 1, 2, 3]\n[2]\n[3, 0, 5, 0]\n")
    seconds = read_times(tmp_path, GRID)
    assert seconds.shape == (1, 1, 4, 3)
    assert seconds[0, 0, 0].tolist() == [1, 2, 3]
    assert np.isnan(seconds[0, 0, 1]).all()
    assert seconds[0, 0, 3].tolist() == [0, 5, 0]
