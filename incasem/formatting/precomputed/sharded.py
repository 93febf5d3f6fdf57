"""Neuroglancer's sharded format: many small files in few large ones, found by their 64-bit key.

Format: google/neuroglancer, ``src/datasource/precomputed/sharded.md``. A shard begins with an index of
    minishards, the contents follow, and behind them an index of each minishard. The hash is the identity
    here.
"""

import io
from collections.abc import Iterable
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

_MINISHARD_KEYS = 256
_SHARD_KEYS = 16_384


@dataclass(frozen=True)
class Sharding:
    """How keys are spread: the lowest bits are the minishard, the next ones the shard."""

    minishard_bits: int
    shard_bits: int

    @classmethod
    def for_keys(cls, count: int) -> "Sharding":
        """Return a sharding with a few thousand keys a shard."""
        shards = max(0, (max(count, 1) - 1) // _SHARD_KEYS).bit_length()
        minishards = max(0, (max(count, 1) - 1) // (_MINISHARD_KEYS << shards)).bit_length()
        return cls(minishards, shards)

    def to_json(self) -> dict[str, Any]:
        """Return the specification for an `info`."""
        return {
            "@type": "neuroglancer_uint64_sharded_v1",
            "hash": "identity",
            "preshift_bits": 0,
            "minishard_bits": self.minishard_bits,
            "shard_bits": self.shard_bits,
            "minishard_index_encoding": "raw",
            "data_encoding": "raw",
        }

    @property
    def shards(self) -> int:
        """Number of shards."""
        return 1 << self.shard_bits

    def shard_of(self, keys: np.ndarray) -> np.ndarray:
        """Return the shard of each key (uint64)."""
        return (keys >> np.uint64(self.minishard_bits)) & np.uint64(self.shards - 1)

    def minishard_of(self, keys: np.ndarray) -> np.ndarray:
        """Return the minishard of each key (uint64)."""
        return keys & np.uint64((1 << self.minishard_bits) - 1)

    def name(self, shard: int) -> str:
        """Return the file name of a shard."""
        return f"{shard:0{-(-self.shard_bits // 4)}x}.shard"


@dataclass(frozen=True)
class Item:
    """What is stored under a key.

    Attributes:
        key: unsigned, 64 bits.
        value: what the key leads to.
        before: what lies immediately before it in the file, and is found from there.
    """

    key: int
    value: bytes
    before: Iterable[bytes] = ()


def write_shard(stream: IO[bytes], sharding: Sharding, items: Iterable[Item]) -> None:
    """Write a shard; memory: the keys' index, and one item.

    Args:
        stream: an empty file, open for writing.
        sharding: see `Sharding`.
        items: all of this shard, by minishard, then by key.
    """
    minishards = 1 << sharding.minishard_bits
    header = 16 * minishards
    stream.write(bytes(header))
    tables: dict[int, list[tuple[int, int, int]]] = {}
    for item in items:
        for piece in item.before:
            stream.write(piece)
        start = stream.tell() - header
        stream.write(item.value)
        minishard = int(sharding.minishard_of(np.array(item.key, np.uint64)))
        tables.setdefault(minishard, []).append((item.key, start, len(item.value)))
    index = np.zeros((minishards, 2), "<u8")
    for minishard in range(minishards):
        begin = stream.tell() - header
        stream.write(_encoded(tables.get(minishard, [])))
        index[minishard] = begin, stream.tell() - header
    stream.seek(0)
    stream.write(index.tobytes())
    stream.seek(0, io.SEEK_END)


def _encoded(table: list[tuple[int, int, int]]) -> bytes:
    """Return the index of a minishard: keys, begins and sizes, the first two as steps to the next."""
    if not table:
        return b""
    keys, starts, sizes = np.array(table, np.uint64).T
    ends = starts + sizes
    steps = [np.diff(keys, prepend=np.uint64(0)), starts - np.concatenate([[np.uint64(0)], ends[:-1]]), sizes]
    return np.array(steps, "<u8").tobytes()
