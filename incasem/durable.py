"""Files that appear whole or not at all, and are on the disk when the call returns."""

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

__all__ = ["sync", "write_durably"]


def write_durably(
    path: Path, content: bytes | Callable[[IO[bytes]], Any], *, mtime_ns: int | None = None
) -> None:
    """Write or replace a file: under another name first, flushed to the disk, then renamed.

    Args:
        path: the file; its directory must exist.
        content: what it is to hold, or a function that writes it to an open file.
        mtime_ns: modification time to give the file; None leaves it at now.

    Raises:
        OSError: the file cannot be written. Like anything that ``content`` raises, it leaves ``path`` as it
            was and nothing beside it.
    """
    # Hidden, so that nobody takes it for a result, and of its own name for each call, so that processes and
    # threads that write the same file do not write into each other's.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as stream:
            if callable(content):
                content(stream)
            else:
                stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        if mtime_ns is not None:
            os.utime(temporary, ns=(mtime_ns, mtime_ns))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


def sync(path: Path | str) -> None:
    """Flush a file, or the renames in a directory, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
