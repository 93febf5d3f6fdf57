"""An affinity map: for each voxel, how surely it belongs together with some of its neighbours.

Channel ``c`` at voxel ``v`` is the edge between ``v`` and ``v + offsets[c]`` (the convention of waterz,
mwatershed and PyTorch Connectomics). The segmentation jobs work on 255 steps, the form in which predictions
are stored, whatever the dtype of the map: so they give the same for a map and for its stored prediction.

Where sections are thick and only membranes are annotated, nothing teaches the edges between sections. A map
without them is taken `section by section <AffinityMap.by_section>`.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from incasem.errors import DataError, explain
from incasem.geometry import Coordinate, Roi, format_roi
from incasem.tasks.stored import require_finished
from incasem.volumes import Volume, open_volume

__all__ = ["NEAREST", "AffinityMap", "Offset", "open_affinities"]

Offset = tuple[int, int, int]

NEAREST: tuple[Offset, Offset, Offset] = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
"""The edges to the voxel before, in z, y and x: what fragments and regions are made of."""

STEPS = 255
# A network's sigmoid in half precision may end a little beyond 1; a map in other units ends far beyond.
_RANGE_TOLERANCE = 1e-3


@dataclass(frozen=True)
class AffinityMap:
    """A volume of affinities, and which edge each channel is; picklable. Use `open_affinities`.

    Attributes:
        volume: axes c, z, y, x; uint8 (0 … 255) or a float type (0 … 1).
        offsets: the other end of each channel's edge; voxels, z, y, x.
        per_section: see `by_section`.
    """

    volume: Volume
    offsets: tuple[Offset, ...]
    per_section: bool = False

    @property
    def roi_voxels(self) -> Roi:
        """The whole map on the absolute voxel grid."""
        return self.volume.roi_voxels

    def by_section(self) -> "AffinityMap":
        """Return the map as one of sections that have nothing to do with each other: their edges are 0."""
        return replace(self, per_section=True)

    @property
    def connects_sections(self) -> bool:
        """Whether the map has edges from one section to the next, and they count."""
        return not self.per_section and self._find(NEAREST[0]) is not None

    @cached_property
    def nearest(self) -> tuple[int | None, int, int]:
        """Channels of the edges to the direct neighbours in z, y and x, either the one before or after.

        That in z is None where each section is by itself.

        Raises:
            DataError: the map lacks one of them.
        """
        z, y, x = NEAREST
        return (None if self.per_section else self._channel_of(z), self._channel_of(y), self._channel_of(x))

    def _find(self, offset: Offset) -> int | None:
        found = (self.offsets.index(o) for o in (offset, _opposite(offset)) if o in self.offsets)
        return next(found, None)

    def _channel_of(self, offset: Offset) -> int:
        channel = self._find(offset)
        if channel is not None:
            return channel
        across = offset == NEAREST[0]
        remedy = "Predict with the nearest neighbours of all three axes among task.offsets"
        raise DataError(
            explain(
                f"offsets of {self.volume.path}",
                [list(o) for o in self.offsets],
                f"a list with {list(offset)} or {list(_opposite(offset))}",
                remedy + ", or segment each section by itself with --per_section" * across,
            )
        )

    def read(self, roi_voxels: Roi) -> NDArray[np.uint8]:
        """Return the edges of all voxels of a region in steps of 1/255; uint8, shape (channels, z, y, x).

        Args:
            roi_voxels: on the absolute grid; it may leave the volume.

        Edges with an end beyond the volume are 0, whatever is stored there; `per_section` all those that lead
        to another section.

        Raises:
            DataError: NaN or values outside 0 … 1 in a float map, or a chunk cannot be read.
        """
        return self._read(roi_voxels, range(len(self.offsets)))

    def read_nearest(self, roi_voxels: Roi) -> NDArray[np.uint8]:
        """Return the edges to the voxel before in z, y and x; uint8, shape (3, z, y, x).

        Like `read`, with the channels `NEAREST`: edges that are stored with the voxel before (offset +1) are
        moved to the voxel after. Other channels are not read, as far as they do not lie between these.
        """
        present = {axis: c for axis, c in enumerate(self.nearest) if c is not None}
        forward = {axis for axis, c in present.items() if self.offsets[c][axis] > 0}
        before = Coordinate(int(axis in forward) for axis in range(3))
        channels = range(min(present.values()), max(present.values()) + 1)
        values = self._read(Roi(roi_voxels.begin - before, roi_voxels.shape + before), channels)
        if list(self.nearest) == list(channels) and not forward:
            return values
        nearest = np.zeros((3, *roi_voxels.shape), np.uint8)
        for axis, channel in present.items():
            begin = list(before)
            if axis in forward:
                begin[axis] = 0
            inner = tuple(slice(b, b + s) for b, s in zip(begin, roi_voxels.shape, strict=True))
            nearest[axis] = values[channel - channels.start][inner]
        return nearest

    def identity(self) -> dict[str, object]:
        """Return what determines the map; JSON-able, for the identity of jobs that read it."""
        identity: dict[str, object] = {
            "affinities": self.volume.fingerprint(),
            "offsets": [list(o) for o in self.offsets],
        }
        return identity | {"per_section": True} if self.per_section else identity

    def _read(self, roi: Roi, channels: range) -> NDArray[np.uint8]:
        values = self.volume.read_voxels(roi, beyond="constant", fill=0, channels=channels)
        if values.size == 0:
            return np.zeros(values.shape, np.uint8)
        for channel, c in zip(values, channels, strict=True):
            if self.per_section and self.offsets[c][0]:
                channel[...] = 0
            else:
                self._clear_edges_beyond(channel, self.offsets[c], roi)
        return values if values.dtype == np.uint8 else self._in_steps(values, roi)

    def _clear_edges_beyond(self, channel_ZYX: NDArray[Any], offset: Offset, roi: Roi) -> None:
        """Set the edges to 0 that begin inside the volume and end beyond it."""
        whole = self.roi_voxels
        for axis, step in enumerate(offset):
            first = whole.begin[axis] - min(step, 0) - roi.begin[axis]
            end = whole.end[axis] - max(step, 0) - roi.begin[axis]
            along = np.moveaxis(channel_ZYX, axis, 0)
            along[: max(0, first)] = 0
            along[max(0, end) :] = 0

    def _in_steps(self, values: NDArray[Any], roi: Roi) -> NDArray[np.uint8]:
        low, high = float(values.min()), float(values.max())
        if not (low >= -_RANGE_TOLERANCE and high <= 1 + _RANGE_TOLERANCE):  # also where they are NaN
            found = "NaN" if np.isnan(low) else f"{low:g} to {high:g}"
            fits = (values >= -_RANGE_TOLERANCE) & (values <= 1 + _RANGE_TOLERANCE)
            first = tuple(int(i) for i in np.argwhere(~fits)[0][1:] + np.array(roi.begin))
            raise DataError(
                explain(
                    f"values of {self.volume.path} in {format_roi(roi)}, first at voxel {first},",
                    found,
                    "affinities from 0 to 1 in a map of floats",
                    "Repeat the prediction there" if found == "NaN" else "Rescale the map, or store uint8",
                )
            )
        steps = np.multiply(values, STEPS, dtype=np.float32)
        return np.rint(np.clip(steps, 0, STEPS, out=steps), out=steps).astype(np.uint8)


def open_affinities(
    path: str | os.PathLike[str], offsets: Sequence[Sequence[int]] | None = None
) -> AffinityMap:
    """Open an affinity map.

    Args:
        path: container and dataset; an array of axes c, z, y, x, of uint8 or floats.
        offsets: the other end of each channel's edge (voxels; z, y, x). None takes those stored with the
            array (attribute ``offsets``); a map of three channels that says nothing has `NEAREST`.

    Raises:
        DataError: missing, not of four axes, neither uint8 nor floats, not finished, or the offsets do not
            fit.
    """
    volume = open_volume(path)
    require_finished(volume)
    if volume.axes != ("c", "z", "y", "x"):
        raise DataError(
            explain(
                f"axes of {volume.path}",
                ", ".join(volume.axes),
                "c, z, y, x: one channel an edge",
                "Choose the affinities of a prediction",
            )
        )
    if volume.dtype != np.uint8 and volume.dtype.kind != "f":
        raise DataError(
            explain(
                f"dtype of {volume.path}", volume.dtype, "uint8 (0 to 255) or floats (0 to 1)", "Convert it"
            )
        )
    stored = volume.attributes.get("offsets")
    given = offsets if offsets is not None else stored
    if given is None and volume.shape[0] == len(NEAREST):
        given = NEAREST
    return AffinityMap(volume, _checked_offsets(given, volume))


def _checked_offsets(offsets: Any, volume: Volume) -> tuple[Offset, ...]:
    allowed = f"one [z, y, x] in voxels for each of its {volume.shape[0]} channels, no two for one edge"
    refused = DataError(
        explain(
            f"offsets of {volume.path}",
            offsets,
            allowed,
            "Give those that it was predicted with, by --offsets or as its attribute `offsets`",
        )
    )
    if not isinstance(offsets, Sequence) or len(offsets) != volume.shape[0]:
        raise refused
    checked: list[Offset] = []
    for offset in offsets:
        if not isinstance(offset, Sequence) or isinstance(offset, str) or len(offset) != 3:
            raise refused
        if not all(isinstance(step, int | np.integer) for step in offset) or not any(offset):
            raise refused
        z, y, x = (int(step) for step in offset)
        if (z, y, x) in checked or (-z, -y, -x) in checked:
            raise refused
        checked.append((z, y, x))
    return tuple(checked)


def _opposite(offset: Offset) -> Offset:
    return (-offset[0], -offset[1], -offset[2])
