"""Small files beside the arrays: JSON metadata, read from anywhere, written whole or not at all.

Metadata is replaced by writing a temporary file, flushing it and renaming it over the old one, so that
a reader meets either the old text or the new one, also after a power cut. Writers that read, change and
write back take the directory's lock first.
"""

import contextlib
import errno
import fcntl
import json
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from incasem.durable import write_durably
from incasem.errors import DataError

logger = logging.getLogger(__name__)

_URL = re.compile(r"^[a-z][a-z0-9+]+://")
# What flock answers on file systems that cannot lock a directory (some NFS servers).
_NO_LOCKS = {errno.EBADF, errno.ENOLCK, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS}


def is_url(path: str) -> bool:
    """Tell whether ``path`` names a remote store (``s3://…``, ``gs://…``, ``https://…``)."""
    return _URL.match(path) is not None


def join(path: str, name: str) -> str:
    """Return ``path/name`` for a local path or a URL; an empty ``name`` gives ``path``."""
    return f"{path.rstrip('/')}/{name}" if name else path


def kvstore_spec(path: str) -> dict[str, Any] | str:
    """Return what tensorstore needs to find ``path``."""
    return path if is_url(path) else {"driver": "file", "path": os.path.abspath(path)}


def read_bytes(path: str) -> bytes | None:
    """Return the content of a file, or None where there is none.

    Raises:
        DataError: the file or the store cannot be reached.
    """
    try:
        if not is_url(path):
            return Path(path).read_bytes()
        import tensorstore as ts

        directory, _, name = path.rpartition("/")
        found = ts.KvStore.open(f"{directory}/").result().read(name).result()
        return bytes(found.value) if found.state == "value" else None
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except (OSError, ValueError, RuntimeError, NotImplementedError) as error:
        raise DataError(
            f"{path} cannot be read: {error}. Check the path, permissions and network."
        ) from error


def read_json(path: str) -> dict[str, Any] | None:
    """Return the JSON object in a file, or None where there is no such file.

    Raises:
        DataError: unreadable, or not a JSON object.
    """
    content = read_bytes(path)
    if content is None:
        return None
    try:
        parsed = json.loads(content)
    except ValueError as error:
        raise DataError(f"{path} is damaged: not valid JSON ({error}). Restore it from a copy.") from error
    if not isinstance(parsed, dict):
        raise DataError(f"{path} is damaged: it must hold a JSON object. Restore it from a copy.")
    return parsed


def write_json(path: Path, content: dict[str, Any], *, keep_mtime: bool = False) -> None:
    """Replace a JSON file atomically and durably.

    Args:
        path: the file; its directory must exist.
        content: a JSON object; numpy scalars and arrays are allowed as values.
        keep_mtime: leave an existing file's modification time as it was (see ``TensorArray.fingerprint``).

    Raises:
        DataError: a value has no JSON form, or the file cannot be written.
    """
    try:
        text = json.dumps(content, indent=4, default=_plain)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"attributes of {path} must be numbers, texts, lists or mappings: {error}."
        ) from error
    try:
        mtime_ns = path.stat().st_mtime_ns if keep_mtime and path.exists() else None
        write_durably(path, text.encode(), mtime_ns=mtime_ns)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error}. Check permissions and free space.") from error


def _plain(value: object) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{value!r} is a {type(value).__name__}")


@contextlib.contextmanager
def directory_lock(directory: Path) -> Iterator[None]:
    """Hold the exclusive lock of a directory among processes; released also when the holder dies.

    Where the file system has no locks the block runs unlocked; a debug line says so.
    """
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            logger.debug("no locks on %s (%s)", directory, error)
        yield
    finally:
        os.close(descriptor)
