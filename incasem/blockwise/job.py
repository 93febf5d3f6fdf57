"""What a job is, and what it reports.

A job names its blocks, the function of one block, and everything that determines the result. How it is run
stands in `incasem.blockwise.engine`.
"""

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import numpy as np

from incasem.blockwise.grid import Block, Grid
from incasem.errors import ConfigError, explain
from incasem.geometry import Roi

if TYPE_CHECKING:
    from incasem.blockwise.timing import BlockRecord

__all__ = [
    "DEFAULT_BLOCK_TIMEOUT_S",
    "BlockFunction",
    "Job",
    "JobReport",
    "StagedFunction",
    "WorkerUnusableError",
    "identity_as_json",
]

DEFAULT_BLOCK_TIMEOUT_S = 3600.0

Given = TypeVar("Given")
Result = TypeVar("Result")


class BlockFunction(Protocol):
    """The work of one block.

    Whatever it writes must be durable when it returns (`Volume.write` is): the block's done-mark is set
    right after, and a mark that outlives its data would leave a hole in the result. It may be called
    twice for one block (a killed worker's block is done again), so it must give the same bytes again and
    must not read what it writes.
    """

    def __call__(self, block: Block) -> None:
        """Do the block."""
        ...


class StagedFunction(ABC, Generic[Given, Result]):
    """A block function in three stages, of which those of different blocks overlap in one worker.

    While one block is computed, the next ones are read and the last ones are written, each in a thread of
    its own (`incasem.blockwise._lanes`); all computing is done in the worker's main thread, one block at a
    time. What holds for a `BlockFunction` holds here too: durable when `write` returns, and the same bytes
    when a block is done twice. Called as a plain function it does one stage after the other.
    """

    blocks_in_flight: int = 2
    """Blocks that a worker has in its hands at a time: bounds the memory of what was read or waits to be
    written. 2 keep computing busy as long as reading and writing together take less time."""

    @abstractmethod
    def read(self, block: Block) -> Given:
        """Return what `compute` needs."""

    @abstractmethod
    def compute(self, block: Block, given: Given) -> Result:
        """Return what `write` shall store."""

    @abstractmethod
    def write(self, block: Block, result: Result) -> None:
        """Store the result, durably."""

    def __call__(self, block: Block) -> None:
        """Do the block, one stage after the other."""
        self.write(block, self.compute(block, self.read(block)))


class WorkerUnusableError(Exception):
    """A block function raises this when its process cannot do any other block either (a lost device).

    The worker ends; its blocks are tried again by a new one.
    """


@dataclass(frozen=True)
class Job:
    """A function of one block, over all blocks of a grid.

    Attributes:
        name: short name for messages and logs ("equalize").
        grid: the blocks, on the absolute voxel grid of the output.
        start_worker: called once in each worker process; opens volumes, loads the model, and returns the
            function of one block, a plain one or a `StagedFunction`. Shipped with cloudpickle: functions,
            partials, bound objects and closures over picklable values all work.
        identity: everything that determines the result (settings, fingerprints of the inputs), as JSON
            values. Finished blocks are reused only by a job of the same identity and region. How the
            region is cut does not belong here: it does not change the result.
        state_dir: where marks, lock and logs lie. It should lie inside the output, so that whoever deletes
            the output deletes the marks as well.
        skip: bool, ``grid.shape``; True for blocks that need no work. They are never marked as done.
        block_timeout_s: a block that takes longer is taken for hung: its worker is killed, the block
            tried again. None means one hour.
        threads_per_worker: threads for OpenMP, BLAS and numba in each worker. None leaves an
            OMP_NUM_THREADS of the user's alone and otherwise shares the cores out evenly.
    """

    name: str
    grid: Grid
    start_worker: Callable[[], BlockFunction]
    identity: Mapping[str, object]
    state_dir: Path
    skip: np.ndarray | None = None
    block_timeout_s: float | None = None
    threads_per_worker: int | None = None

    def __post_init__(self) -> None:
        """Check what a user's setting can reach."""
        if self.skip is not None and self.skip.shape != self.grid.shape:
            raise ConfigError(
                explain("the skip mask's shape", self.skip.shape, str(self.grid.shape), "Give a cell a block")
            )
        timeout = self.block_timeout_s
        if timeout is not None and not (math.isfinite(timeout) and timeout > 0):
            raise ConfigError(explain("block timeout", timeout, "seconds above 0", "Correct it"))
        if self.threads_per_worker is not None and self.threads_per_worker < 1:
            raise ConfigError(
                explain("threads per worker", self.threads_per_worker, "1 or more", "Correct it")
            )


def identity_as_json(identity: Mapping[str, object]) -> dict[str, Any]:
    """Return ``identity`` as it reads after a round through JSON (tuples become lists).

    Raises:
        TypeError: a value has no JSON form.
        ValueError: a number is NaN or infinite.
    """
    return json.loads(json.dumps(dict(identity), sort_keys=True, allow_nan=False))


@dataclass(frozen=True)
class JobReport:
    """What a run of a job did.

    Attributes:
        name: the job's name.
        blocks_done: blocks done by this run.
        blocks_skipped: blocks left out by the skip mask.
        blocks_resumed: blocks that an earlier run had done.
        seconds: wall time of this run.
        voxels: voxels written by this run.
        log_dir: where the workers' logs lie (removed when a stage ends well); None if there are none.
        blocks: what became of each block; None where nothing was left to do.
    """

    name: str
    blocks_done: int
    blocks_skipped: int
    blocks_resumed: int
    seconds: float
    voxels: int
    log_dir: Path | None
    blocks: "BlockRecord | None" = field(default=None, compare=False, repr=False)

    @property
    def voxels_per_second(self) -> float:
        """Throughput of this run; 0 where nothing was done."""
        return self.voxels / self.seconds if self.seconds > 0 else 0.0

    @property
    def already_complete(self) -> bool:
        """Whether nothing was left to do."""
        return self.blocks_done == 0

    def summary(self) -> str:
        """Return one line for the terminal."""
        if self.already_complete:
            return f"{self.name}: already complete, nothing to do"
        counts = [count_of(self.blocks_done, "block")]
        if self.blocks_resumed:
            counts.append(f"{self.blocks_resumed} done before")
        if self.blocks_skipped:
            counts.append(f"{self.blocks_skipped} skipped")
        work = f"{self.voxels / 1e6:.4g} Mvoxel in {format_seconds(self.seconds)}"
        return f"{self.name}: {', '.join(counts)}; {work} ({self.voxels_per_second / 1e6:.3g} Mvoxel/s)"


def voxels_of(grid: Grid, which: np.ndarray) -> int:
    """Return the voxels of the blocks selected by ``which`` (bool, ``grid.shape``)."""
    return int(grid.voxels()[which].sum())


def region_as_json(roi: Roi) -> dict[str, list[int]]:
    """Return a voxel ROI as JSON values."""
    return {"begin": [int(b) for b in roi.begin], "shape": [int(s) for s in roi.shape]}


def count_of(number: int, thing: str) -> str:
    """Return ``1 block`` or ``2 blocks``."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def format_seconds(seconds: float) -> str:
    """Return ``12.3 s``, ``4 min 05 s`` or ``2 h 10 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
