"""The map of blocks shows what failed and what was left out, for any grid."""

import numpy as np
import pytest

from incasem.blockwise import DONE, FAILED, SKIPPED, BlockRecord, Grid
from incasem.evaluation.block_map import block_map, failed_blocks, slowest_blocks
from incasem.geometry import Coordinate, Roi
from tests.evaluation.test_report import decode


def record(shape=(2, 3, 4), known=True):
    grid = Grid(Roi((0, 0, 0), [8 * s for s in shape]), Coordinate(8, 8, 8))
    seconds = np.random.default_rng(0).random((*shape, 3)).astype(np.float32)
    if not known:
        seconds[:] = np.nan
    return BlockRecord(grid, np.full(shape, DONE, np.uint8), seconds)


def has_colour(diagram, colour):
    return bool((np.abs(decode(diagram.png).astype(int) - colour).max(axis=-1) <= 2).any())


@pytest.mark.parametrize("shape", [(2, 3, 4), (1, 1, 1), (1, 40, 2)])
def test_any_grid_has_a_map(shape):
    assert decode(block_map(record(shape)).png).shape[1] > 500
    assert decode(block_map(record(shape, known=False)).png).shape[1] > 500


def test_failed_and_left_out_blocks_are_seen():
    one = record()
    red, grey = (0xD5, 0x5E, 0x00), (0xB8, 0xBE, 0xC6)
    assert not has_colour(block_map(one), red)
    assert not has_colour(block_map(one), grey)
    one.state[0, 1, 2] = FAILED
    one.state[:, 0, 0] = SKIPPED
    one.seconds[0, 1, 2] = one.seconds[:, 0, 0] = np.nan
    assert has_colour(block_map(one), red)
    assert has_colour(block_map(one), grey)
    assert list(failed_blocks(one)) == ["block 6"]
    assert "[0:8, 8:16, 16:24]" in failed_blocks(one)["block 6"]


def test_slowest_blocks_come_first():
    one = record()
    one.seconds[1, 2, 3] = (1, 20, 3)
    first, *others = slowest_blocks(one)
    assert first.startswith("block 23, [8:16, 16:24, 24:32]")
    assert slowest_blocks(one)[first] == "24.0 s: read 1.00 s, compute 20.0 s, write 3.00 s"
    assert len(others) == 7
