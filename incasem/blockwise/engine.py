"""Run a job: on daisy's workers, or in this process.

The scheduler and its workers form a process group (`incasem.blockwise._scheduler` says why). This module is
the master: it starts the group, follows its counts, and ends it, whatever happens.
"""

import json
import logging
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import cloudpickle
import numpy as np

from incasem.blockwise._order import Order
from incasem.blockwise.failures import failed_blocks_error, forget_failures, read_failures
from incasem.blockwise.job import DEFAULT_BLOCK_TIMEOUT_S, Job, JobReport, voxels_of
from incasem.blockwise.notices import NoticeReader
from incasem.blockwise.progress import ProgressLine
from incasem.blockwise.state import claim, done_blocks, log_dir, marks_dir, times_dir, work_lock
from incasem.blockwise.timing import DONE, FAILED, RESUMED, SKIPPED, BlockRecord, read_times
from incasem.errors import ConfigError, explain

__all__ = ["run_in_process", "run_job", "run_locked"]

logger = logging.getLogger(__name__)

_POLL_S = 0.25
_START_ATTEMPTS = 3
_HOPELESS_BLOCKS = 20
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)


def run_job(job: Job, *, num_workers: int, progress: bool = True) -> JobReport:
    """Do all blocks of a job that are not done yet, in worker processes on this machine.

    Marks stay on disk afterwards: a second run finds everything done, until `finish` removes them.

    Args:
        job: the job.
        num_workers: worker processes, 1 or more; never more are started than there are blocks.
        progress: whether to show a progress line on standard error.

    Raises:
        FailedBlocksError: some blocks could not be done, or the workers could not start.
        DataError: another job works on this output, or the output was begun with another identity.
        ConfigError: the number of workers is below 1.
        KeyboardInterrupt: Ctrl-C; the workers are stopped, and the next run continues.
    """
    with work_lock(job) as lock:
        return run_locked(job, [lock], num_workers=num_workers, progress=progress)


def run_locked(job: Job, locks: Sequence[int], *, num_workers: int, progress: bool) -> JobReport:
    """Do the work of `run_job`; the caller holds the locks whose descriptors these are."""
    if num_workers < 1:
        raise ConfigError(explain("the number of workers", num_workers, "1 or more", "Correct it"))
    began = time.monotonic()
    claim(job)
    before = done_blocks(job)
    skip = np.zeros(job.grid.shape, bool) if job.skip is None else np.asarray(job.skip, bool)
    wanted = ~skip & ~before
    if wanted.any():
        end = _run_scheduler(job, locks, wanted, int(before.sum()), num_workers, progress)
        missing = wanted & ~done_blocks(job)
        if missing.any():
            error = failed_blocks_error(job, missing, end)
            error.report = _report(job, before, skip, wanted & ~missing, time.monotonic() - began)
            raise error
    return _report(job, before, skip, wanted, time.monotonic() - began)


def _report(job: Job, before: np.ndarray, skip: np.ndarray, done: np.ndarray, seconds: float) -> JobReport:
    """Return what became of the job's blocks: all of them bool, ``grid.shape``."""
    state = np.full(job.grid.shape, FAILED, np.uint8)
    for value, which in ((SKIPPED, skip), (DONE, done), (RESUMED, before)):
        state[which] = value
    return JobReport(
        name=job.name,
        blocks_done=int(done.sum()),
        blocks_skipped=int((skip & ~before).sum()),
        blocks_resumed=int(before.sum()),
        seconds=seconds,
        voxels=voxels_of(job.grid, done),
        log_dir=log_dir(job),
        blocks=BlockRecord(job.grid, state, read_times(times_dir(job), job.grid)),
    )


def run_in_process(job: Job) -> JobReport:
    """Do all blocks in this process, one after the other: for tests, tiny volumes and validation.

    No daisy, no lock, no marks, no retries: whatever a block raises comes through.
    """
    began = time.monotonic()
    function = job.start_worker()
    skip = np.zeros(job.grid.shape, bool) if job.skip is None else np.asarray(job.skip, bool)
    for block in job.grid.blocks():
        if not skip.flat[block.index]:
            function(block)
    return JobReport(
        name=job.name,
        blocks_done=int((~skip).sum()),
        blocks_skipped=int(skip.sum()),
        blocks_resumed=0,
        seconds=time.monotonic() - began,
        voxels=voxels_of(job.grid, ~skip),
        log_dir=None,
    )


def _run_scheduler(
    job: Job, locks: Sequence[int], wanted: np.ndarray, resumed: int, num_workers: int, progress: bool
) -> Mapping[str, Any]:
    """Run the scheduler process to its end; return its last message."""
    todo = int(wanted.sum())
    workers = min(num_workers, todo)
    logs = log_dir(job)
    logs.mkdir(parents=True, exist_ok=True)
    forget_failures(logs)
    notices = NoticeReader(logs)
    notices.forget()
    order = Order(
        payload=cloudpickle.dumps(job.start_worker),
        grid=job.grid,
        skip=job.skip,
        marks=marks_dir(job),
        logs=logs,
        times=times_dir(job),
        block_timeout_s=job.block_timeout_s or DEFAULT_BLOCK_TIMEOUT_S,
        num_workers=workers,
        num_blocks=todo,
    )
    mean_voxels = voxels_of(job.grid, wanted) / todo
    with (
        ProgressLine(job.name, todo + resumed, resumed, mean_voxels, show=progress) as line,
        _scheduler_process(order, locks, _environment(job, workers)) as process,
    ):
        try:
            return _follow(process, order, line, resumed, notices)
        finally:
            notices.pass_on()


@contextmanager
def _scheduler_process(
    order: Order, locks: Sequence[int], environment: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    with order.logs.joinpath("scheduler.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", "from incasem.blockwise._scheduler import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment,
            pass_fds=locks,
            start_new_session=True,
        )
    try:
        assert process.stdin is not None
        try:
            process.stdin.write(cloudpickle.dumps(order))
            process.stdin.flush()
        except BrokenPipeError:
            logger.debug("the scheduler died before it read its order")
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the group. Its leader is not reaped yet, so the number cannot belong to anybody else."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        logger.debug("the scheduler's process group was gone already")
    except PermissionError:  # macOS, for a group of zombies
        logger.debug("nothing but zombies in the scheduler's process group")
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            try:
                pipe.close()
            except BrokenPipeError:
                logger.debug("the scheduler died with unread input")


def _follow(
    process: subprocess.Popen[bytes], order: Order, line: ProgressLine, resumed: int, notices: NoticeReader
) -> Mapping[str, Any]:
    """Read the scheduler's messages until it ends, or until the job proves hopeless."""
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    message: dict[str, Any] = {}
    pending = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while not _is_hopeless(order, message):
            if selector.select(_POLL_S):
                data = process.stdout.read()
                if data == b"":
                    return message
                *lines, pending = (pending + (data or b"")).split(b"\n")
                for text in lines:
                    message = json.loads(text)
            notices.pass_on()
            if message:
                line.update(resumed + message["done"], message["failed"])
    return message


def _is_hopeless(order: Order, message: Mapping[str, Any]) -> bool:
    """Whether going on would only repeat one error: workers that cannot start, or blocks that all fail."""
    if message.get("done", 0) > 0:
        return False
    starts = read_failures(order.logs, "start")
    if len(starts) >= _START_ATTEMPTS or any(record["user_error"] for record in starts):
        return True
    return message.get("failed", 0) >= max(_HOPELESS_BLOCKS, 4 * order.num_workers)


def _environment(job: Job, workers: int) -> dict[str, str]:
    """The scheduler's and the workers' environment: our import path, and a fair share of the threads."""
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(path or os.getcwd() for path in sys.path)
    environment["PYTHONSAFEPATH"] = "1"  # a file json.py in the working folder must not shadow the library
    threads = job.threads_per_worker
    share = str(threads or max(1, _cores() // workers))
    for name in _THREAD_VARIABLES:
        if threads is not None:
            environment[name] = share
        else:
            environment.setdefault(name, environment.get("OMP_NUM_THREADS", share))
    return environment


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
