"""Bring a folder of a bucket onto the disk: resumed, checked, each file whole or not there.

A file is written as `.NAME.ETAG.part` beside its place and renamed once it is complete and its checksum fits,
so that an interrupted download goes on where it stood, and never mixes two versions of an object. Files that
are there are compared instead of fetched; those that differ are somebody's work and are kept.
"""

import fcntl
import logging
import os
import re
import shutil
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path, PurePosixPath
from typing import IO, Any

from incasem.downloads.checksums import matches
from incasem.downloads.s3 import Bucket, RemoteObject
from incasem.errors import DataError

logger = logging.getLogger(__name__)

# What says of a Zarr or N5 folder that it is one; needed above every dataset.
_GROUP_FILES = {".zgroup", ".zattrs", ".zmetadata", "zarr.json", "attributes.json"}
_ATTEMPTS = 6  # at one file, without any progress in between
_SHOWN = 5


class _State(Enum):
    THERE = "there"
    DIFFERS = "differs"
    MISSING = "missing"


@dataclass(frozen=True)
class FetchReport:
    """What a download did.

    Attributes:
        target: the folder.
        fetched: files downloaded.
        fetched_bytes: bytes that came over the network.
        already: files that were there, and whole.
        unchecked: files downloaded of which only the length could be checked.
        seconds: it took.
    """

    target: Path
    fetched: int
    fetched_bytes: int
    already: int
    unchecked: int
    seconds: float

    def summary(self) -> str:
        """Return one line for the terminal."""
        rate = self.fetched_bytes / 1e6 / max(self.seconds, 1e-3)
        files = "1 file" if self.fetched == 1 else f"{self.fetched} files"
        line = f"{files}, {self.fetched_bytes / 1e6:.1f} MB in {self.seconds:.0f} s"
        line += f" ({rate:.1f} MB/s)" if self.fetched_bytes else ""
        line += f"; {self.already} were there" if self.already else ""
        checked = f"; of {self.unchecked} only the length could be checked" if self.unchecked else ""
        return f"{line}; checksums fit{checked}"


def fetch(
    bucket: Bucket,
    prefix: str,
    target: Path,
    *,
    only: Sequence[str] = (),
    overwrite: bool = False,
    workers: int = 8,
    progress: bool = True,
) -> FetchReport:
    """Download all objects below a prefix; what an earlier call has left is used.

    Args:
        bucket: where they lie.
        prefix: their common folder, ends in `/`; what follows becomes the path below ``target``.
        target: folder on this machine, made if needed.
        only: parts of the path such as `volumes/labels/er`; others are left out. Empty: everything.
        overwrite: replace files that differ from the bucket's.
        workers: files at a time.
        progress: show a progress line on stderr.

    Raises:
        DataError: nothing is there, the disk is too small, the connection or a checksum fails, or files that
            differ were kept (all others are complete then).
    """
    began = time.monotonic()
    target = target.expanduser().absolute()
    wanted = _wanted(bucket, prefix, target, only)
    with ThreadPoolExecutor(workers) as pool:
        states = dict(zip(wanted, pool.map(lambda item: _state(*item), wanted.items()), strict=True))
    missing = [r for r, s in states.items() if s is _State.MISSING or (overwrite and s is _State.DIFFERS)]
    _check_space(target, sum(r.size for r in missing) - sum(_had(wanted[r], r) for r in missing))
    transfer = _Transfer(bucket, total=sum(r.size for r in missing), progress=progress)
    with transfer:
        transfer.run([(remote, wanted[remote]) for remote in missing], workers)
    if not overwrite:
        _refuse_differing([wanted[remote] for remote, state in states.items() if state is _State.DIFFERS])
    already = sum(state is _State.THERE for state in states.values())
    seconds = time.monotonic() - began
    return FetchReport(target, len(missing), transfer.received, already, transfer.unchecked, seconds)


def _wanted(bucket: Bucket, prefix: str, target: Path, only: Sequence[str]) -> dict[RemoteObject, Path]:
    wanted = {}
    others: set[str] = set()
    parts = [part.strip("/") for part in only]
    found = False
    for remote in bucket.objects(prefix):
        inside = PurePosixPath(remote.key.removeprefix(prefix))
        if inside.is_absolute() or ".." in inside.parts or not inside.parts:
            raise DataError(
                f"{bucket.location} holds the key {remote.key!r}; allowed: paths below {prefix}. "
                "It would be written outside the folder asked for; tell the owner of the bucket."
            )
        inside_asked = not parts or any(f"/{part}/" in f"/{inside}/" for part in parts)
        found = found or inside_asked
        if inside_asked or _is_group_above(inside, parts):
            wanted[remote] = target.joinpath(*inside.parts)
        else:
            others.add("/".join(inside.parts[:4]))
    if not found:
        some = f"; there are, for example, {', '.join(sorted(others)[:_SHOWN])}" if others else ""
        raise DataError(
            f"nothing lies in {bucket.location}/{prefix}"
            f"{' that fits --only ' + ' '.join(only) if only else ''}; allowed: a folder with files{some}. "
            "Check the name."
        )
    return wanted


def _is_group_above(inside: PurePosixPath, parts: Sequence[str]) -> bool:
    """Return whether this is, for `volumes/labels/er`, `cell.zarr/.zgroup` or `cell.zarr/volumes/.zgroup`."""
    folder = f"{inside.parent}/" if inside.parent.parts else ""
    depth = folder.partition(".zarr/")[2] or folder.partition(".n5/")[2]
    return inside.name in _GROUP_FILES and any(f"{part}/".startswith(depth) for part in parts)


def _state(remote: RemoteObject, path: Path) -> _State:
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return _State.MISSING
    if size != remote.size or not path.is_file():
        return _State.DIFFERS
    return _State.DIFFERS if matches(path, remote.etag) is False else _State.THERE


def _part(path: Path, remote: RemoteObject) -> Path:
    return path.with_name(f".{path.name}.{re.sub(r'[^0-9A-Za-z-]', '_', remote.etag)}.part")


def _had(path: Path, remote: RemoteObject) -> int:
    try:
        return min(_part(path, remote).stat().st_size, remote.size)
    except FileNotFoundError:
        return 0


def _check_space(target: Path, needed: int) -> None:
    place = target
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if needed > free:
        raise DataError(
            f"the disk of {target} has {free / 1e9:.1f} GB free; allowed: at least {needed / 1e9:.1f} GB for "
            "this download. Make room, choose another folder with --to, or less with --only."
        )


def _refuse_differing(paths: Sequence[Path]) -> None:
    if paths:
        more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
        raise DataError(
            f"{len(paths)} files differ from the published ones and were kept: "
            f"{', '.join(map(str, paths[:_SHOWN]))}{more}; everything else is complete. Leave them if you "
            "changed them yourself; --overwrite replaces them."
        )


class _Transfer:
    """The files of one download: a few at a time, with one progress line."""

    def __init__(self, bucket: Bucket, total: int, progress: bool) -> None:
        from tqdm import tqdm

        self.received = self.unchecked = 0
        self._bucket = bucket
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._line: Any = tqdm(
            total=total, unit="B", unit_scale=True, desc="download", disable=not progress, leave=False,
            mininterval=0.5,
        )  # fmt: skip

    def __enter__(self) -> "_Transfer":
        return self

    def __exit__(self, *_: object) -> None:
        self._line.close()

    def run(self, files: Iterable[tuple[RemoteObject, Path]], workers: int) -> None:
        """Download files; the first error, or Ctrl-C, ends all of them, each where it stands."""
        pool = ThreadPoolExecutor(workers)
        try:
            tasks = [pool.submit(self._one, remote, path) for remote, path in files]
            done, _ = wait(tasks, return_when=FIRST_EXCEPTION)
            for task in done:
                task.result()
            # Once for all: a volume has hundreds of thousands of chunks, and each flush takes milliseconds.
            os.sync()
        finally:
            self._stop.set()
            pool.shutdown(wait=True, cancel_futures=True)

    def _one(self, remote: RemoteObject, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = _part(path, remote)
        with _owned(part) as stream:
            self._advance(stream.seek(0, os.SEEK_END), received=False)
            for last in (False, True):
                self._fill(stream, remote)
                if self._stop.is_set():
                    return
                fits = matches(part, remote.etag)
                if fits is not False:
                    break
                stream.truncate(0)
                self._advance(-remote.size, received=False)
                if last:
                    part.unlink()
                    raise DataError(
                        f"{remote.key} came with a wrong checksum twice; allowed: the bytes that "
                        f"{self._bucket.location} holds (ETag {remote.etag}). The connection or a proxy "
                        "damages data; run the same command again on another network."
                    )
                logger.warning("%s came with a wrong checksum; it is downloaded again", remote.key)
            os.replace(part, path)
        with self._lock:
            self.unchecked += fits is None

    def _fill(self, stream: IO[bytes], remote: RemoteObject) -> None:
        """Append to a part until it has the object's size, again after each break that followed progress."""
        from requests import RequestException
        from urllib3.exceptions import HTTPError

        failures = 0
        while (start := stream.seek(0, os.SEEK_END)) < remote.size and not self._stop.is_set():
            try:
                with self._bucket.read(remote, start) as portions:
                    for portion in portions:
                        if self._stop.is_set():
                            return
                        written = stream.write(portion)
                        self._advance(written)
                        if written < len(portion):
                            break  # what could not be written is asked for again
            except (RequestException, HTTPError) as error:
                logger.info("%s breaks off at byte %d: %s", remote.key, stream.tell(), error)
            except OSError as error:
                raise DataError(
                    f"{stream.name} cannot be written ({error.strerror}); allowed: a disk with room for all "
                    f"of {remote.key}, {remote.size} bytes. Make room and run the same command again; what "
                    "came is kept."
                ) from None
            failures = 0 if stream.tell() > start else failures + 1
            if failures == _ATTEMPTS:
                raise DataError(
                    f"{remote.key} breaks off at byte {start} of {remote.size}; allowed: all of it. What "
                    "came is kept, and the same command goes on with it: run it again when the network is "
                    "better."
                )
            self._stop.wait(0.25 * 2**failures if failures else 0)
        if stream.tell() > remote.size:
            stream.truncate(remote.size)

    def _advance(self, count: int, received: bool = True) -> None:
        with self._lock:
            self.received += count if received else 0
            self._line.update(count)


@contextmanager
def _owned(part: Path) -> Any:
    """Open a partial file for one process; a second download of the same file is an error."""
    with part.open("ab", buffering=0) as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(
                f"{part} is being written by another download; allowed: one at a time. Wait for it to end."
            ) from None
        yield stream
