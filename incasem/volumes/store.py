"""What every storage format offers to a Volume, and what is asked of it when an array is created."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Index = tuple[slice, ...]


@dataclass(frozen=True)
class Place:
    """Where an array lies in the world.

    Attributes:
        axes: one letter an axis, ``z, y, x`` or ``c, z, y, x``.
        voxel_size: nm, z, y, x.
        offset_nm: corner of the first voxel, nm, z, y, x.
        stated: False if the file says nothing about its place, and 1 nm at the origin is a guess.
    """

    axes: tuple[str, ...]
    voxel_size: tuple[float, float, float]
    offset_nm: tuple[float, float, float]
    stated: bool = True


@dataclass(frozen=True)
class ArrayRequest:
    """An array to be created; shapes have one element an axis, in the order of ``place.axes``.

    Attributes:
        chunk_shape: one read unit.
        shard_shape: one file holding many chunks, or None.
        compression: ``default``, ``none``, ``lz4``, ``zstd``, ``zlib`` or ``gzip``.
        attributes: the user's own, stored beside the place.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    place: Place
    chunk_shape: tuple[int, ...]
    shard_shape: tuple[int, ...] | None = None
    compression: str = "default"
    attributes: dict[str, Any] = field(default_factory=dict)


class Store(Protocol):
    """One array on disk, its axes in the order of ``place.axes``. Pickles without open handles.

    Attributes:
        chunk_shape: one read unit.
        unit_shape: the smallest part that one writer must own: a chunk, or a shard.
        concurrent_writers: whether several processes may write different units at the same time.
    """

    path: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    chunk_shape: tuple[int, ...]
    unit_shape: tuple[int, ...]
    attributes: dict[str, Any]
    place: Place
    writable: bool
    concurrent_writers: bool

    def read(self, index: Index) -> NDArray[Any]:
        """Return the elements at ``index`` (inside the array); DataError names what cannot be read."""
        ...

    def write(self, index: Index, array: NDArray[Any]) -> None:
        """Store ``array`` at ``index`` (whole units); durable on return."""
        ...

    def update_attributes(self, changes: dict[str, Any]) -> None:
        """Merge ``changes`` into the stored attributes and into ``attributes``."""
        ...

    def missing_units(self, index: Index) -> list[Index]:
        """Return the units that touch ``index`` and were never written."""
        ...

    def fingerprint(self) -> dict[str, object]:
        """Return what tells this array from another one that was put at the same path."""
        ...


def units_in(index: Index, unit_shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Return the positions (in units, C order) of all units that touch ``index``."""
    if any(s.stop <= s.start for s in index):
        return []
    first = [s.start // u for s, u in zip(index, unit_shape, strict=True)]
    counts = [-(-s.stop // u) - f for s, u, f in zip(index, unit_shape, first, strict=True)]
    return [tuple(f + i for f, i in zip(first, position, strict=True)) for position in np.ndindex(*counts)]


def unit_region(unit: tuple[int, ...], unit_shape: tuple[int, ...], shape: tuple[int, ...]) -> Index:
    """Return the elements that a unit holds, clipped to the array."""
    return tuple(
        slice(u * size, min((u + 1) * size, total))
        for u, size, total in zip(unit, unit_shape, shape, strict=True)
    )


def groups_above(container: Path, dataset: str) -> list[Path]:
    """Return the groups from the container down to the one that holds the array."""
    parts = Path(dataset).parts
    return [container.joinpath(*parts[:i]) for i in range(len(parts))]


def format_index(index: Index) -> str:
    """Return ``[0:4, 8:12]`` for messages."""
    return "[" + ", ".join(f"{s.start}:{s.stop}" for s in index) + "]"
