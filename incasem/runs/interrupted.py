"""Which earlier run a repeated command goes on with.

A run store cannot tell a run that was killed from one that is still at work: both say RUNNING. So a run holds
a lock beside its log while it works; the system gives the lock back however the process ends.
"""

import fcntl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from incasem.tracking import RunInfo, RunStore

_UNFINISHED = ("RUNNING", "FAILED", "INTERRUPTED")
_NOT_COMPARED = ("seed",)


@contextmanager
def at_work(store: RunStore, run_id: int) -> Iterator[None]:
    """Hold the lock of a run."""
    path = _lock_file(store, run_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        _try_lock(file)
        yield


def interrupted_run(store: RunStore, config: Mapping[str, Any], data: Path | None = None) -> int | None:
    """Return the first of the latest runs that all were the same and were interrupted, or None.

    A command that was interrupted twice is two runs in the store, which share the first one's output.

    Args:
        store: where the runs are.
        config: settings that must be equal, but for the seed.
        data: data configuration whose content must be that of the file that the run recorded.
    """
    found = None
    for run in reversed(store.list_runs()):
        if run.status not in _UNFINISHED or _compared(store.config(run.run_id)) != _compared(config):
            break
        if data is not None and not _recorded(store, run, data):
            break
        if run.status == "RUNNING" and _is_at_work(store, run.run_id):
            break
        found = run.run_id
    return found


def _compared(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in _NOT_COMPARED}


def _recorded(store: RunStore, run: RunInfo, data: Path) -> bool:
    return data.name in run.artifacts and store.artifact(run.run_id, data.name) == data.read_bytes()


def _is_at_work(store: RunStore, run_id: int) -> bool:
    path = _lock_file(store, run_id)
    if not path.exists():
        return False
    with path.open("a") as file:
        return not _try_lock(file)


def _try_lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _lock_file(store: RunStore, run_id: int) -> Path:
    return store.log_file(run_id).with_suffix(".lock")
