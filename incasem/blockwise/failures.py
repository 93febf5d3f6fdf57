"""What went wrong in which block: written by the workers, read by the master.

One file of JSON lines a worker, so that nobody needs a lock. A worker that is killed leaves no record; its
blocks are known from the marks that they lack.
"""

import contextlib
import json
import os
import shutil
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from incasem.blockwise.job import DEFAULT_BLOCK_TIMEOUT_S, Job, count_of
from incasem.blockwise.state import log_dir
from incasem.errors import FailedBlocksError, IncasemError
from incasem.geometry import format_roi

__all__ = ["failed_blocks_error", "forget_failures", "read_failures", "record_failure"]

_LISTED_BLOCKS = 20
_ERROR_LINES = 6
_FULL_BYTES = 16 * 2**20


def record_failure(logs: Path, index: int | None, error: Exception) -> None:
    """Record that a block (or, with None, the start of a worker) raised ``error``.

    On a full disk there is no record; `failed_blocks_error` looks at the disk for itself.
    """
    record = {
        "block": index,
        "time": time.time(),
        "user_error": isinstance(error, IncasemError),
        "message": str(error),
        "traceback": "".join(traceback.format_exception(error)),
    }
    kind = "start" if index is None else "block"
    with (
        contextlib.suppress(OSError),
        logs.joinpath(f"{kind}_failures.{os.getpid()}.jsonl").open("a") as file,
    ):
        file.write(json.dumps(record) + "\n")


def read_failures(logs: Path, kind: str) -> list[dict[str, Any]]:
    """Return the records of the last run, oldest first; ``kind`` is "start" or "block"."""
    records = []
    for path in logs.glob(f"{kind}_failures.*.jsonl"):
        for line in path.read_text().splitlines():
            try:
                records.append(json.loads(line))
            except ValueError:  # the worker was killed while it wrote this line
                continue
    return sorted(records, key=lambda record: record["time"])


def forget_failures(logs: Path) -> None:
    """Remove the records of an earlier run."""
    for path in logs.glob("*_failures.*.jsonl"):
        path.unlink()


def failed_blocks_error(job: Job, missing: np.ndarray, end: Mapping[str, Any]) -> FailedBlocksError:
    """Return the error that says what failed, why, where the logs are and how to go on.

    Args:
        job: the job.
        missing: blocks that should have been done and were not: bool, ``grid.shape``.
        end: the scheduler's last message (empty if it died before the first).
    """
    logs = log_dir(job)
    starts, blocks = read_failures(logs, "start"), read_failures(logs, "block")
    unfinished = {int(i) for i in np.flatnonzero(missing)}
    failed = sorted(({r["block"] for r in blocks} | set(end.get("failed_blocks", ()))) & unfinished)
    untried = len(unfinished) - len(failed)
    wanted = missing.size - (0 if job.skip is None else int(job.skip.sum()))
    text = [_headline(job.name, len(failed), untried, wanted, bool(starts))]
    for index in failed[:_LISTED_BLOCKS]:
        text.append(f"  block {index}: {format_roi(job.grid.block(index).write_roi)} voxels")
    if len(failed) > _LISTED_BLOCKS:
        text.append(f"  and {len(failed) - _LISTED_BLOCKS} more")
    text += _causes(job, starts, [r for r in blocks if r["block"] in unfinished], end)
    text.append(f"Logs of the workers: {logs}")
    text.append("Run the same command again to continue: what is done is kept, only the rest is tried.")
    return FailedBlocksError("\n".join(text))


def _headline(name: str, failed: int, untried: int, wanted: int, at_start: bool) -> str:
    done = wanted - failed - untried
    if not failed and at_start:
        return f"{name}: the workers could not start; done: {done} of {count_of(wanted, 'block')}"
    of_all = f"of {count_of(wanted, 'block')}"
    parts = [f"{failed} {of_all} failed"] if failed else []
    if untried:
        parts.append(f"{untried} {of_all} not finished")
    parts.append(f"{done} done")
    return f"{name}: {', '.join(parts)}"


def _causes(
    job: Job, starts: list[dict[str, Any]], blocks: list[dict[str, Any]], end: Mapping[str, Any]
) -> list[str]:
    text = []
    if starts or blocks:
        first = (starts or blocks)[0]
        # Our own errors say what to do; where in the code they arose helps nobody at the terminal.
        said = first["message"] if first["user_error"] else first["traceback"]
        lines = said.strip().splitlines()
        text += ["First error:"] + [f"  {line}" for line in lines[-_ERROR_LINES:]]
    if end.get("timeouts"):
        limit = job.block_timeout_s or DEFAULT_BLOCK_TIMEOUT_S
        attempts = count_of(end["timeouts"], "attempt")
        text.append(f"{attempts} ran into the block timeout of {limit:g} s.")
    died = int(end.get("worker_deaths", 0)) - int(end.get("timeouts", 0)) - len(starts)
    if died > 0:
        text.append(
            f"{count_of(died, 'worker')} died (killed, or out of memory: fewer workers or smaller blocks "
            "need less)."
        )
    free = shutil.disk_usage(job.state_dir).free
    if free < _FULL_BYTES:
        text.append(f"The disk of {job.state_dir} is full ({free / 2**20:.1f} MiB free): make room there.")
    if not end.get("end") and not (starts or blocks):
        tail = _tail(log_dir(job) / "scheduler.log")
        said = "its last words:" if tail else "it said nothing, as one that was killed (or out of memory)."
        text += [f"The scheduler ended before its work was done; {said}", *(f"  {line}" for line in tail)]
    return text


def _tail(path: Path) -> list[str]:
    if not path.exists():
        return []
    return path.read_text(errors="replace").splitlines()[-_ERROR_LINES:]
