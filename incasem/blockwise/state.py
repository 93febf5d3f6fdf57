"""What a job keeps on disk between runs: lock, identity, marks, logs.

```
<state_dir>/
  lock              held (flock) while a job works on this output
  job.json          name, identity, region and grid of the job that these marks belong to
  marks/<key>/      daisy's marks: one byte a block; <key> is a hash of job.json
  logs/             one pair of files a worker, the scheduler's, and the failures as JSON lines
```

daisy itself recognises a job by its geometry only: with other settings it would skip what was done with
the old ones. Hence the key, and hence `claim`, which refuses to continue a job whose identity changed.
"""

import fcntl
import hashlib
import json
import logging
import os
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from incasem.blockwise.grid import Grid
from incasem.blockwise.job import Job, identity_as_json, region_as_json
from incasem.errors import DataError

__all__ = [
    "claim",
    "done_blocks",
    "finish",
    "log_dir",
    "marks_dir",
    "refuse_other_identity",
    "times_dir",
    "work_lock",
]

logger = logging.getLogger(__name__)

_LOCK_PATIENCE_S = 3.0  # the workers of a killed job need a moment to die


def log_dir(job: Job) -> Path:
    """Return where the job's workers write their logs."""
    return Path(job.state_dir) / "logs"


def marks_dir(job: Job) -> Path:
    """Return where daisy keeps the done-marks of exactly this job on exactly this grid."""
    text = json.dumps(_record(job), sort_keys=True)
    return Path(job.state_dir) / "marks" / hashlib.sha256(text.encode()).hexdigest()[:16]


def times_dir(job: Job) -> Path:
    """Return where the workers write how long the blocks of exactly this job on exactly this grid took."""
    return log_dir(job) / f"times.{marks_dir(job).name}"


def _record(job: Job) -> dict[str, Any]:
    return {
        "format": 1,
        "job": job.name,
        "identity": identity_as_json(job.identity),
        "region": region_as_json(job.grid.total_roi),
        "block_shape": [int(s) for s in job.grid.block_shape],
    }


@contextmanager
def work_lock(job: Job) -> Iterator[int]:
    """Hold the lock of the job's output; yield its file descriptor.

    The descriptor is handed to the scheduler process, so that the lock outlives a killed master until its
    workers are gone too; the kernel releases it with the last of them, whatever kills them.

    Raises:
        DataError: another job holds the lock.
    """
    with held(Path(job.state_dir) / "lock") as descriptor:
        yield descriptor


@contextmanager
def held(path: Path) -> Iterator[int]:
    """Hold a lock file, made if missing; yield its file descriptor.

    Raises:
        DataError: another process holds it.
    """
    descriptor = _lock(path)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _lock(path: Path) -> int:
    deadline = time.monotonic() + _LOCK_PATIENCE_S
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 500, 0).decode(errors="replace").strip()
            os.close(descriptor)
            if time.monotonic() > deadline:
                raise DataError(
                    f"another job works on this output ({holder or 'holder unknown'}); lock: {path}. "
                    "Wait for it, stop it, or choose another output name."
                ) from None
            time.sleep(0.05)
            continue
        except OSError as error:
            os.close(descriptor)
            raise DataError(
                f"{path} cannot be locked ({error.strerror}), so two jobs could write to this output. "
                "Choose an output on a file system that has locks."
            ) from error
        if _is_still_there(descriptor, path):
            since = time.strftime("%Y-%m-%d %H:%M:%S")
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"pid {os.getpid()} on {socket.gethostname()}, since {since}".encode(), 0)
            return descriptor
        os.close(descriptor)  # a job that ended removed the file while we opened it


def _is_still_there(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def claim(job: Job) -> None:
    """Write down whose marks these are; the lock must be held.

    Marks of the same job on other blocks are dropped: the result does not depend on the cut, so doing all
    blocks again gives the same bytes. So are damaged marks.

    Raises:
        DataError: the output was begun by a job of another identity, or its record cannot be read or
            written.
    """
    path = Path(job.state_dir) / "job.json"
    marks = marks_dir(job)
    new = _record(job)
    if path.exists():
        old = _read_record(path)
        refuse_other_identity(old, new, Path(job.state_dir).parent, "was begun")
        if old != new:
            logger.warning("%s: the blocks are cut differently than before; all are done again", job.name)
            shutil.rmtree(marks.parent, ignore_errors=True)
    if marks.exists() and not _are_sound(marks, job.grid):
        logger.warning("%s: the marks in %s are damaged; all blocks are done again", job.name, marks)
        shutil.rmtree(marks)
    try:
        _write_atomically(path, json.dumps(new, indent=1, sort_keys=True))
    except OSError as error:
        raise DataError(
            f"{path} cannot be written ({error.strerror}). Make room there, or choose another output."
        ) from error


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text())
    except ValueError:
        record = None
    if not isinstance(record, dict) or not {"job", "identity", "region"} <= record.keys():
        raise DataError(
            f"{path} is damaged, so it cannot be told which job began the output {path.parent.parent}. "
            f"Delete {path.parent} to do all its blocks again."
        )
    return record


def refuse_other_identity(
    old: Mapping[str, Any], new: Mapping[str, Any], output: Path | str, deed: str
) -> None:
    """Raise unless job name, identity and region of the two records agree.

    Args:
        old: record of the job that the output belongs to.
        new: record of the job that is asked for.
        output: for the message.
        deed: what the old job did to it ("was begun", "was written").

    Raises:
        DataError: naming the other job, or each setting that differs, its old and its new value.
    """
    if old.get("job") != new.get("job"):
        raise DataError(
            f"the output {output} {deed} by another job: {old.get('job')}, and this one is {new.get('job')}. "
            f"Choose another output name, or delete {output} to begin anew."
        )
    differing = [
        f"  {key}: was {json.dumps(was)}, is now {json.dumps(now)}"
        for part in ("identity", "region")
        for key, was, now in _differences(old.get(part), new.get(part), "" if part == "identity" else part)
    ]
    if differing:
        raise DataError(
            f"the output {output} {deed} with other settings:\n" + "\n".join(differing) + "\n"
            f"Choose another output name, set these back, or delete {output} to begin anew."
        )


def _differences(old: Any, new: Any, key: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted(old.keys() | new.keys()):
            yield from _differences(old.get(name), new.get(name), f"{key}.{name}" if key else name)
    elif old != new:
        yield key, old, new


def _write_atomically(path: Path, text: str) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    with temporary.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _are_sound(marks: Path, grid: Grid) -> bool:
    """Whether daisy's marks can be believed: it takes any byte but 0 for "done", and torn files for empty."""
    for name in ("zarr.json", "done/zarr.json", "failures/zarr.json"):
        try:
            metadata = json.loads((marks / name).read_text())
        except (OSError, ValueError):
            return False
        if name != "zarr.json" and metadata.get("shape") != list(grid.shape):
            return False
    content = _mark_bytes(marks, grid)
    return content is None or (content.size == len(grid) and int(content.max(initial=0)) <= 1)


def _mark_bytes(marks: Path, grid: Grid) -> np.ndarray | None:
    """The array `done` of daisy's tracking group: Zarr v3, one chunk, uncompressed bytes."""
    try:
        return np.fromfile(marks.joinpath("done", "c", *("0" for _ in grid.shape)), np.uint8)
    except FileNotFoundError:
        return None


def done_blocks(job: Job) -> np.ndarray:
    """Return which blocks are marked as done: bool, ``grid.shape``."""
    content = _mark_bytes(marks_dir(job), job.grid)
    if content is None or content.size != len(job.grid):
        return np.zeros(job.grid.shape, bool)
    return content.reshape(job.grid.shape) == 1


def finish(job: Job) -> None:
    """Remove marks, logs and lock of a job whose result is complete and marked so."""
    shutil.rmtree(job.state_dir, ignore_errors=True)
