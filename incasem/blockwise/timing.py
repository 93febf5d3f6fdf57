"""How long each block took: written by the workers, read by the master for the report.

One file of JSON lines a worker, in a folder of the job's logs that belongs to one identity and grid, so that
an interrupted job finds the times of its first part again. Counted is work: a block that waits in a worker
while another one is computed does not become slow by it.
"""

import contextlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from incasem.blockwise.grid import Block, Grid
from incasem.blockwise.job import BlockFunction, StagedFunction

__all__ = ["DONE", "FAILED", "RESUMED", "SKIPPED", "STAGES", "BlockRecord", "read_times", "timed"]

SKIPPED, DONE, RESUMED, FAILED = range(4)
"""States of a block in a `BlockRecord`: left out by the mask; by this run; by an earlier one; not done."""
STAGES = ("read", "compute", "write")


@dataclass(frozen=True)
class BlockRecord:
    """What became of each block.

    Attributes:
        grid: the blocks.
        state: uint8, ``grid.shape``: `SKIPPED`, `DONE`, `RESUMED` or `FAILED`.
        seconds: float32, ``(*grid.shape, 3)``: work of reading, computing and writing; NaN where it is not
            known. A function without stages only computes.
    """

    grid: Grid
    state: NDArray[np.uint8]
    seconds: NDArray[np.float32]

    @property
    def totals(self) -> NDArray[np.float32]:
        """Work of a block in all, seconds; ``grid.shape``, NaN where it is not known."""
        totals: NDArray[np.float32] = self.seconds.sum(axis=-1)
        return totals

    def count(self, state: int) -> int:
        """Return the number of blocks in a state."""
        return int((self.state == state).sum())

    def slowest(self, most: int) -> list[tuple[Block, NDArray[np.float32]]]:
        """Return the blocks that took longest, with the seconds of their stages; the slowest first."""
        totals = np.nan_to_num(self.totals.ravel(), nan=-1)
        order = np.argsort(-totals, kind="stable")[:most]
        stages = self.seconds.reshape(-1, len(STAGES))
        return [(self.grid.block(int(i)), stages[i]) for i in order if totals[i] >= 0]


def timed(
    function: BlockFunction | StagedFunction[Any, Any], folder: Path
) -> BlockFunction | StagedFunction[Any, Any]:
    """Return the same function, which also records what its blocks take in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    record = _Recorder(folder / f"{os.getpid()}.jsonl")
    if isinstance(function, StagedFunction):
        return _TimedStages(function, record)

    def one_block(block: Block) -> None:
        began = time.perf_counter()
        function(block)
        record(block.index, 0.0, time.perf_counter() - began, 0.0)

    return one_block


@dataclass
class _TimedStages(StagedFunction[Any, Any]):
    """A staged function with a clock around each stage."""

    inner: StagedFunction[Any, Any]
    record: "_Recorder"

    def __post_init__(self) -> None:
        self.blocks_in_flight = self.inner.blocks_in_flight

    def read(self, block: Block) -> Any:
        """Read."""
        given, seconds = _clocked(lambda: self.inner.read(block))
        return given, seconds

    def compute(self, block: Block, given: Any) -> Any:
        """Compute."""
        given, reading = given
        result, seconds = _clocked(lambda: self.inner.compute(block, given))
        return result, reading, seconds

    def write(self, block: Block, result: Any) -> None:
        """Write, and record the block."""
        result, reading, computing = result
        _, seconds = _clocked(lambda: self.inner.write(block, result))
        self.record(block.index, reading, computing, seconds)


def _clocked(stage: Callable[[], Any]) -> tuple[Any, float]:
    began = time.perf_counter()
    result = stage()
    return result, time.perf_counter() - began


class _Recorder:
    """Appends lines to a file for the life of the worker; without a record where the disk is full."""

    def __init__(self, path: Path) -> None:
        self._descriptor = -1
        with contextlib.suppress(OSError):
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def __call__(self, index: int, reading: float, computing: float, writing: float) -> None:
        """Append a line in one write, since several threads do."""
        with contextlib.suppress(OSError):
            os.write(self._descriptor, b"[%d, %.4f, %.4f, %.4f]\n" % (index, reading, computing, writing))


def read_times(folder: Path, grid: Grid) -> NDArray[np.float32]:
    """Return the seconds of each block and stage (``(*grid.shape, 3)``); NaN where nothing is recorded."""
    seconds = np.full((len(grid), len(STAGES)), np.nan, np.float32)
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text(errors="replace").splitlines():
            try:
                index, *stages = json.loads(line)
                seconds[index] = stages
            except (ValueError, IndexError, TypeError):  # the worker was killed while it wrote this line
                continue
    return seconds.reshape(*grid.shape, len(STAGES))
