"""What runs in a worker process: the loop over the blocks that daisy hands out.

The loop is ours, and not daisy's own loop around a block function, for three reasons: volumes and models are
opened once a worker instead of once a block; a block that raises is reported as failed while the worker
lives on (daisy's loop lets the worker die, which costs a new process and a new model each time); and the
stages of several blocks can overlap. For that, each lane has a connection to daisy of its own.
"""

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import daisy.v2 as daisy

from incasem.allocation import keep_freed_memory
from incasem.blockwise._lanes import work_in_lanes
from incasem.blockwise._order import Order
from incasem.blockwise.failures import record_failure
from incasem.blockwise.grid import Grid
from incasem.blockwise.job import BlockFunction, StagedFunction, WorkerUnusableError
from incasem.blockwise.notices import NoticeWriter
from incasem.blockwise.slots import take_slot
from incasem.blockwise.timing import timed
from incasem.garbage import collect_rarely

__all__ = ["make_worker"]

logger = logging.getLogger(__name__)

_ORPHAN_POLL_S = 1.0


def make_worker(order: Order) -> Callable[[], None]:
    """Return the worker function for daisy: no argument, picklable.

    Args:
        order: its ``payload``, the job's ``start_worker``, stays packed until the worker is set up, so that
            an error in it is reported as the job's own. In ``logs`` and ``times`` each worker has files of
            its own.
    """
    grid, logs, num_workers = order.grid, order.logs, order.num_workers

    def run_worker() -> None:
        _exit_when_orphaned()
        collect_rarely()
        keep_freed_memory()  # one block after the other needs the same pieces of memory
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        logging.getLogger().addHandler(NoticeWriter(logs))
        start_worker: Callable[[], BlockFunction | StagedFunction[Any, Any]]
        try:
            take_slot(logs, num_workers)
            start_worker = cloudpickle.loads(order.payload)
            function = timed(start_worker(), order.times)
        except Exception as error:
            record_failure(logs, None, error)
            raise
        replaces_a_dead_one = int(daisy.Context.from_env()["worker_id"]) >= num_workers

        def serve(one_block: BlockFunction) -> None:
            _serve(one_block, grid, logs)

        lanes = 1
        if isinstance(function, StagedFunction) and not replaces_a_dead_one:
            lanes = _lanes(function.blocks_in_flight, num_workers, order.num_blocks)
        if isinstance(function, StagedFunction) and lanes > 1:
            work_in_lanes(function, lanes, serve)
        else:
            serve(function)

    return run_worker


def _lanes(wanted: int, num_workers: int, blocks: int) -> int:
    """Return how many blocks a worker may hold at a time.

    Few blocks are rather shared among the workers than hoarded by the quickest. (A worker that replaces a
    dead one holds a single block: if a block kills its worker, it must not take others along each time.)
    """
    if num_workers == 1:
        return min(wanted, blocks)
    return max(1, min(wanted, blocks // (2 * num_workers)))


def _serve(one_block: BlockFunction, grid: Grid, logs: Path) -> None:
    """Do blocks until there are no more. daisy's client belongs to the thread that made it."""
    client = daisy.Client()
    while True:
        with client.acquire_block() as daisy_block:
            if daisy_block is None:
                return
            block = grid.block(grid.index_at(daisy_block.write_roi.begin))
            try:
                one_block(block)
            except Exception as error:  # whatever a block raises, the other blocks go on
                logger.exception("block %d failed", block.index)
                record_failure(logs, block.index, error)
                daisy_block.status = daisy.BlockStatus.FAILED
                if isinstance(error, WorkerUnusableError):
                    logging.shutdown()
                    os._exit(1)  # at once and with all lanes; daisy gives the blocks to another worker


def _exit_when_orphaned() -> None:
    """Watch for the scheduler's death: its heirs must not write into an output that a rerun works on."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_ORPHAN_POLL_S)
        os._exit(1)

    threading.Thread(target=watch, name="orphan-watch", daemon=True).start()
