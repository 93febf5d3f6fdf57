"""The process that daisy's scheduler runs in.

It has a process of its own, in a process group of its own together with the workers, because then

- stopping a job means killing one group, at any moment, from any thread, with no orphans;
- the terminal stays ours: daisy's core writes each lost block with its traceback to the standard error;
- daisy's settings, which are global to the process, and the environment of the workers touch nobody else.

The job comes through standard input. Standard input is then kept open by the master and read to its end:
when the master dies, however it dies, the pipe closes and the group kills itself. Standard output carries
one JSON object a line to the master: ``{"done": …, "failed": …}`` while it runs (blocks of this run), and a
last one with ``"end": true``.
"""

import json
import os
import pickle
import signal
import sys
import threading
from typing import IO, Any

import daisy.v2 as daisy
from daisy.logging import set_log_basedir

from incasem.blockwise._order import Order
from incasem.blockwise._worker import make_worker

__all__ = ["main", "run"]

_TASK = "workers"  # names a folder of logs, so it must not be the user's choice
_MAX_RETRIES = 2  # attempts after the first, for a block that raises or whose worker dies


class _Reporter:
    """daisy's progress observer: passes the counts on to the master."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def on_start(self, states: Any) -> None:
        self.tell(states[_TASK])

    def on_progress(self, states: Any) -> None:
        self.tell(states[_TASK])

    def on_finish(self, states: Any) -> None:
        self.tell(states[_TASK])

    def tell(self, state: Any, **more: Any) -> None:
        # daisy counts what it skips, for a mark or for the mask, as completed.
        counts = {"done": state.completed_count - state.skipped_count, "failed": state.failed_count}
        self._stream.write(json.dumps(counts | more) + "\n")
        self._stream.flush()


def run(order: Order, stream: IO[str]) -> None:
    """Run the order to its end and report to ``stream``."""
    set_log_basedir(order.logs)
    grid = order.grid
    block = daisy.Roi([0] * len(grid.block_shape), grid.block_shape)
    # No context here: a job does not read what it writes, so no block waits for its neighbours, and our
    # own blocks know what to read.
    task = daisy.Task(
        task_id=_TASK,
        total_roi=grid.total_roi,
        read_roi=block,
        write_roi=block,
        process_function=make_worker(order),
        read_write_conflict=False,
        fit="overhang",
        max_workers=order.num_workers,
        max_retries=_MAX_RETRIES,
        max_worker_restarts=20 + 4 * order.num_workers,
        timeout=order.block_timeout_s,
        tracking_path=str(order.marks),
        skip_mask=order.skip,
    )
    if tuple(task.block_grid_shape) != grid.shape:
        raise AssertionError(f"daisy cuts {task.block_grid_shape} blocks, we {grid.shape}")
    reporter = _Reporter(stream)
    states = daisy.Server().run_blockwise(task, progress=reporter, host="127.0.0.1", summary=False)
    state = states[_TASK]
    reporter.tell(
        state,
        end=True,
        timeouts=int(state.timeout_reclaim_count),
        worker_deaths=int(state.worker_failure_count),
        abandoned=bool(state.abandoned),
        last_worker_error=state.last_worker_error,
        failed_blocks=sorted(grid.index_at(b.write_roi.begin) for b in task.failed_blocks()),
    )


def _die_with_master() -> None:
    while os.read(0, 4096):
        pass
    os.killpg(0, signal.SIGKILL)


def main() -> None:
    """Read the order from standard input and run it."""
    order = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_die_with_master, daemon=True).start()
    with os.fdopen(os.dup(1), "w") as stream:
        os.dup2(2, 1)  # whatever anybody prints goes to the log, and not between the messages
        run(order, stream)
