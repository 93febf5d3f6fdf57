"""Which of the workers of a job this process is: so that each of several can take a device of its own.

daisy numbers its workers on and on, and starts a new one in the place of one that died. A slot is a number
below the number of workers that one living process holds: by a lock, which the kernel gives back however the
process ends.
"""

import fcntl
import os
import time
from pathlib import Path

__all__ = ["take_slot", "worker_slot"]

_PATIENCE_S = 30.0  # a worker that was killed may need a moment to die
_held: list[tuple[int, int]] = []  # slot and the descriptor whose lock holds it


def worker_slot() -> int:
    """Return this worker's slot: 0 … workers - 1, no two living workers of a job have the same.

    Outside of a worker process it is 0.
    """
    return _held[-1][0] if _held else 0


def take_slot(folder: Path, num_workers: int) -> int:
    """Take a free slot for the life of this process and return it.

    Args:
        folder: of the locks; the same for all workers of the job.
        num_workers: most workers that live at a time.

    Raises:
        RuntimeError: all slots are held by processes that do not end.
    """
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        for slot in range(num_workers):
            descriptor = os.open(folder / f"slot.{slot}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                continue
            _held.append((slot, descriptor))
            return slot
        time.sleep(0.05)
    raise RuntimeError(f"{num_workers} other workers of this job are still alive after {_PATIENCE_S:g} s")
