"""What runs in a worker process: the loop over the blocks that daisy hands out.

The loop is ours, and not daisy's own loop around a block function, for two reasons: volumes and models are
opened once a worker instead of once a block, and a block that raises is reported as failed while the
worker lives on (daisy's loop lets the worker die, which costs a new process and a new model each time).
"""

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import cloudpickle
import daisy.v2 as daisy

from incasem.blockwise.failures import record_failure
from incasem.blockwise.grid import Grid
from incasem.blockwise.job import BlockFunction

__all__ = ["make_worker"]

logger = logging.getLogger(__name__)

_ORPHAN_POLL_S = 1.0


def make_worker(payload: bytes, grid: Grid, failures: Path) -> Callable[[], None]:
    """Return the worker function for daisy: no argument, picklable.

    Args:
        payload: the job's ``start_worker``, pickled where the job was made. It stays packed until the
            worker is set up, so that an error in it is reported as the job's own.
        grid: the job's blocks.
        failures: folder for the records of what failed, one file a worker.
    """

    def run_worker() -> None:
        _exit_when_orphaned()
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        start_worker: Callable[[], BlockFunction]
        try:
            start_worker = cloudpickle.loads(payload)
            function = start_worker()
        except Exception as error:
            record_failure(failures, None, error)
            raise
        _work(function, grid, failures)

    return run_worker


def _work(function: BlockFunction, grid: Grid, failures: Path) -> None:
    client = daisy.Client()
    while True:
        with client.acquire_block() as daisy_block:
            if daisy_block is None:
                return
            block = grid.block(grid.index_at(daisy_block.write_roi.begin))
            try:
                function(block)
            except Exception as error:  # whatever a block raises, the other blocks go on
                logger.exception("block %d failed", block.index)
                record_failure(failures, block.index, error)
                daisy_block.status = daisy.BlockStatus.FAILED


def _exit_when_orphaned() -> None:
    """Watch for the scheduler's death: its heirs must not write into an output that a rerun works on."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_ORPHAN_POLL_S)
        os._exit(1)

    threading.Thread(target=watch, name="orphan-watch", daemon=True).start()
