"""What the master sends to the scheduler process. On its own, so that the master need not import daisy."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from incasem.blockwise.grid import Grid

__all__ = ["Order"]


@dataclass(frozen=True)
class Order:
    """What the master asks the scheduler to run."""

    payload: bytes  # the job's start_worker, pickled with cloudpickle
    grid: Grid
    skip: np.ndarray | None
    marks: Path
    logs: Path
    times: Path
    block_timeout_s: float
    num_workers: int
    num_blocks: int  # neither skipped nor done
