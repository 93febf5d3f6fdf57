"""CRC-64 (ECMA-182, reflected, as in xz and in Go's hash/crc64), which Python's library lacks."""

from functools import cache
from typing import Any

_POLYNOMIAL = 0xC96C5795D7870F42
_ALL_ONES = 0xFFFFFFFFFFFFFFFF


def crc64(content: bytes, before: int = 0) -> int:
    """Return the checksum of ``content`` that follows on bytes whose checksum is ``before``."""
    import numpy as np

    table, update = _compiled()
    inverted = np.uint64(before ^ _ALL_ONES)
    return int(update(np.frombuffer(content, np.uint8), inverted, table)) ^ _ALL_ONES


@cache
def _compiled() -> tuple[Any, Any]:
    """Return the table and the loop over bytes; plain Python would take minutes for a database."""
    import numba
    import numpy as np

    def entry(value: int) -> int:
        for _ in range(8):
            value = (value >> 1) ^ (_POLYNOMIAL if value & 1 else 0)
        return value

    eight, low = np.uint64(8), np.uint64(0xFF)

    def update(content: Any, crc: Any, table: Any) -> Any:
        for byte in content:
            crc = table[(crc ^ np.uint64(byte)) & low] ^ (crc >> eight)
        return crc

    return np.array([entry(value) for value in range(256)], np.uint64), numba.njit(nogil=True)(update)
