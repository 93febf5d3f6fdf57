"""Whether a file is what S3 holds, by the ETag that S3 gives for it.

The ETag of an object that was stored in one piece is the MD5 of its bytes. That of one stored in N parts is
the MD5 of the parts' MD5s, with `-N` behind it; the size of the parts is not told, but uploaders use few.
"""

import hashlib
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

_MIB = 1 << 20
_PLAIN = re.compile(r"[0-9a-f]{32}")
_PARTS = re.compile(r"[0-9a-f]{32}-(\d+)")
_USUAL_MIB = (8, 16, 5, 64, 10, 15, 32, 25, 50, 100, 128, 256, 512, 1024)
_MOST_TRIALS = 16


def matches(path: Path, etag: str) -> bool | None:
    """Return whether the content of a file fits an ETag; None if that cannot be told.

    Raises:
        OSError: the file cannot be read.
    """
    if _PLAIN.fullmatch(etag):
        return _digest(path, None).hexdigest() == etag
    parts = _PARTS.fullmatch(etag)
    if parts:
        number = int(parts[1])
        for part_bytes in part_sizes(path.stat().st_size, number):
            if f"{_digest(path, part_bytes).hexdigest()}-{number}" == etag:
                return True
    return None


def part_sizes(size: int, parts: int) -> Iterator[int]:
    """Yield the sizes (bytes, whole MiB, the usual ones first) of which a file of ``size`` has ``parts``."""
    if parts < 1:
        return
    smallest = max(-(-size // parts), 1)
    largest = (size - 1) // (parts - 1) if parts > 1 else max(size, 1024 * _MIB)
    usual = [n * _MIB for n in _USUAL_MIB if smallest <= n * _MIB <= largest]
    others = range(-(-smallest // _MIB) * _MIB, largest + 1, _MIB)
    yield from islice(dict.fromkeys([*usual, *others[:_MOST_TRIALS]]), _MOST_TRIALS)


def _digest(path: Path, part_bytes: int | None) -> "hashlib._Hash":
    """Return the MD5 of a file, or, given the size of parts, of the MD5s of its parts."""
    whole = hashlib.md5(usedforsecurity=False)
    part, left = hashlib.md5(usedforsecurity=False), part_bytes
    with path.open("rb") as stream:
        while portion := stream.read(_MIB if left is None else min(_MIB, left)):
            if left is None:
                whole.update(portion)
                continue
            part.update(portion)
            left -= len(portion)
            if left == 0:
                whole.update(part.digest())
                part, left = hashlib.md5(usedforsecurity=False), part_bytes
    if part_bytes is not None and left != part_bytes:
        whole.update(part.digest())
    return whole
