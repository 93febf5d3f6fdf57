"""The Volume: an n-d array with a place in the world."""

import os
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from incasem.errors import DataError
from incasem.geometry import Roi, format_roi, to_voxels, to_world
from incasem.volumes.border import read_filled, read_reflected
from incasem.volumes.files import is_url
from incasem.volumes.metadata import on_grid
from incasem.volumes.store import Index, Place, Store

Beyond = Literal["error", "reflect", "constant"]


class Volume:
    """An array in some file, with dtype, shape, voxel size (nm), offset (nm) and axes.

    Reads and writes take ROIs in z, y, x, either world nm or voxels of the absolute grid (voxel ``i`` begins
    at ``i * voxel_size`` nm); a channel axis comes first in arrays and is written whole. Volumes pickle:
    a spawned worker opens the data again. They must not be used in forked processes.
    """

    def __init__(self, path: str, store: Store, place: Place | None = None) -> None:
        """Wrap an opened store; use `open_volume` or `create_volume` instead."""
        self.path = path
        self._store = store
        self._place = on_grid(place if place is not None else store.place, path)

    def __repr__(self) -> str:
        return (
            f"Volume({self.path!r}, {self.dtype}, shape {self.shape}, voxel size {self.voxel_size} nm, "
            f"offset {self.offset_nm} nm)"
        )

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the elements."""
        return self._store.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Elements an axis, a channel axis included."""
        return self._store.shape

    @property
    def axes(self) -> tuple[str, ...]:
        """``("z", "y", "x")`` or ``("c", "z", "y", "x")``."""
        return self._place.axes

    @property
    def voxel_size(self) -> tuple[float, float, float]:
        """Size of a voxel; nm, z, y, x."""
        return self._place.voxel_size

    @property
    def offset_nm(self) -> tuple[float, float, float]:
        """Corner of the first voxel; nm, z, y, x; a multiple of the voxel size."""
        return self._place.offset_nm

    @property
    def has_stated_place(self) -> bool:
        """Whether the file (or `with_place`) says a voxel size, rather than nothing."""
        return self._place.stated

    @property
    def chunk_shape(self) -> tuple[int, ...]:
        """One read unit, a channel axis included."""
        return self._store.chunk_shape

    @property
    def write_shape(self) -> tuple[int, int, int]:
        """Smallest unit that one writer must own, a chunk or a shard; voxels, z, y, x."""
        z, y, x = self._store.unit_shape[-3:]
        return (z, y, x)

    @property
    def writable(self) -> bool:
        """Whether it was opened for writing."""
        return self._store.writable

    @property
    def concurrent_writers(self) -> bool:
        """Whether several processes may write different chunks at the same time (not so in HDF5)."""
        return self._store.concurrent_writers

    @property
    def attributes(self) -> dict[str, Any]:
        """The user's attributes as stored (N5: x, y, z)."""
        return self._store.attributes

    @property
    def roi_voxels(self) -> Roi:
        """The whole volume on the absolute voxel grid."""
        begin = [round(o / v) for o, v in zip(self.offset_nm, self.voxel_size, strict=True)]
        return Roi(begin, self.shape[-3:])

    @property
    def roi(self) -> Roi:
        """The whole volume in world nm."""
        return to_world(self.roi_voxels, self.voxel_size)

    def read(self, roi_nm: Roi) -> NDArray[Any]:
        """Return the voxels of a world ROI (nm) inside the volume; shape (c,) z, y, x.

        Raises:
            DataError: as `read_voxels`, or a corner between voxels.
        """
        return self.read_voxels(to_voxels(roi_nm, self.voxel_size))

    def write(self, roi_nm: Roi, array: NDArray[Any]) -> None:
        """Store the voxels of a world ROI (nm); see `write_voxels`."""
        self.write_voxels(to_voxels(roi_nm, self.voxel_size), array)

    def read_voxels(
        self,
        roi_voxels: Roi,
        *,
        beyond: Beyond = "error",
        fill: float = 0,
        channels: range | None = None,
    ) -> NDArray[Any]:
        """Return the voxels of a ROI on the absolute grid; shape (c,) z, y, x.

        Args:
            roi_voxels: of any place and size unless ``beyond`` is ``error``.
            beyond: what to do outside the volume: ``error``; ``reflect``, as `numpy.pad` does at its border,
                independent of how the region is cut; or ``constant``, which gives ``fill``.
            fill: value for ``constant``.
            channels: consecutive channels to read; None for all.

        Raises:
            DataError: the ROI leaves the volume and ``beyond`` is ``error``; a chunk cannot be read.
        """
        index = self._index(roi_voxels)
        if channels is not None:
            index = (slice(channels.start, channels.stop), *index[-3:])
        if beyond == "reflect":
            return read_reflected(self._store.read, index, self.shape)
        if beyond == "constant":
            return read_filled(self._store.read, index, self.shape, fill, self.dtype)
        self._require_inside(roi_voxels, "read")
        return self._store.read(index)

    def write_voxels(self, roi_voxels: Roi, array: NDArray[Any]) -> None:
        """Store the voxels of a ROI on the absolute grid; durable on return.

        Writers of different ROIs need no lock, since each owns whole chunks (whole shards). An HDF5 file may
        be written by one process only.

        Args:
            roi_voxels: inside the volume; begins and ends on chunk (shard) borders or at the volume's end.
            array: shape (c,) z, y, x, of the volume's dtype.

        Raises:
            DataError: opened for reading, another shape or dtype, parts of chunks, disk full.
        """
        if not self.writable:
            raise DataError(f"{self.path} is opened for reading only. Open it with writable=True.")
        self._require_inside(roi_voxels, "written")
        expected = (*self.shape[:-3], *roi_voxels.shape)
        if tuple(array.shape) != expected or array.dtype != self.dtype:
            raise DataError(
                f"array for {format_roi(roi_voxels)} of {self.path} is {array.dtype} {tuple(array.shape)}; "
                f"allowed: {self.dtype} {expected}. Convert it before it is written."
            )
        index = self._index(roi_voxels)
        for s, unit, size in zip(index[-3:], self.write_shape, self.shape[-3:], strict=True):
            if s.start % unit or (s.stop % unit and s.stop != size):
                raise DataError(
                    f"region {format_roi(roi_voxels)} of {self.path} covers parts of chunks; allowed: "
                    f"multiples of {self.write_shape} voxels from {tuple(self.roi_voxels.begin)}, or the "
                    "volume's end. Choose a block shape that is a multiple of it."
                )
        self._store.write(index, array)

    def missing_chunks(self, roi_voxels: Roi | None = None) -> list[Roi]:
        """Return the chunks (shards) in a ROI, by default all, that were never written; absolute voxels.

        They read as the fill value. Chunks that incasem writes are there even where all voxels are 0; other
        writers may leave such chunks out.
        """
        roi = self.roi_voxels if roi_voxels is None else roi_voxels
        self._require_inside(roi, "checked")
        begin = self.roi_voxels.begin
        missing = self._store.missing_units(self._index(roi))
        spatial = dict.fromkeys(tuple((s.start, s.stop) for s in index[-3:]) for index in missing)
        return [
            Roi([b + s for b, (s, _) in zip(begin, region, strict=True)], [e - s for s, e in region])
            for region in spatial
        ]

    def set_attributes(self, **attributes: Any) -> None:
        """Merge into the stored attributes, atomically.

        Raises:
            DataError: not opened for writing; a value without a JSON form.
        """
        if not self.writable:
            raise DataError(f"{self.path} is opened for reading only. Open it with writable=True.")
        self._store.update_attributes(attributes)

    def fingerprint(self) -> dict[str, object]:
        """Return what tells this volume from another one that was put in its place; JSON-able.

        Path, shape, dtype, place, and the time when the array was created. Setting attributes does not change
        it; writing voxels changes it only in HDF5 files.
        """
        return {
            "path": self.path if is_url(self.path) else os.path.abspath(self.path),
            "shape": list(self.shape),
            "dtype": self.dtype.name,
            "voxel_size": list(self.voxel_size),
            "offset_nm": list(self.offset_nm),
            **self._store.fingerprint(),
        }

    def with_place(
        self, voxel_size: Sequence[float] | None = None, offset_nm: Sequence[float] | None = None
    ) -> "Volume":
        """Return the same data at another place; nothing is stored.

        With another voxel size and no offset, the stored offset (nm) stays.

        Raises:
            DataError: the offset is not a multiple of the voxel size.
        """
        sz, sy, sx = (float(v) for v in (voxel_size if voxel_size is not None else self.voxel_size))
        oz, oy, ox = (float(v) for v in (offset_nm if offset_nm is not None else self.offset_nm))
        stated = self._place.stated or voxel_size is not None
        return Volume(self.path, self._store, Place(self.axes, (sz, sy, sx), (oz, oy, ox), stated))

    def _index(self, roi_voxels: Roi) -> Index:
        begin = self.roi_voxels.begin
        pairs = zip(roi_voxels.begin, roi_voxels.end, begin, strict=True)
        spatial = tuple(slice(int(b - o), int(e - o)) for b, e, o in pairs)
        return (*(slice(0, n) for n in self.shape[:-3]), *spatial)

    def _require_inside(self, roi_voxels: Roi, doing: str) -> None:
        if not self.roi_voxels.contains(roi_voxels):
            raise DataError(
                f"region {format_roi(roi_voxels)} (voxels; z, y, x) cannot be {doing}: {self.path} covers "
                f"{format_roi(self.roi_voxels)}. Choose a region inside it."
            )
