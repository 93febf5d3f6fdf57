"""A pyramid as neuroglancer's Python server hands it out: piece by piece, at stored resolutions.

neuroglancer's own `LocalVolume` reduces the finest level on the fly; this one reads stored levels, whole
terabytes being seen from afar. The axes are presented as x, y, z(, c), so that the bytes go out in the order
in which they lie in memory.
"""

import logging
import math
from collections.abc import Sequence
from typing import Any, Literal, cast

import numpy as np
from neuroglancer import CoordinateSpace, LocalVolume
from neuroglancer.local_volume import InvalidObjectIdForMesh, MeshesNotSupportedForVolume
from numpy.typing import NDArray

from incasem.errors import DataError
from incasem.viewing.meshes import LabelMeshes, encode_mesh
from incasem.viewing.pyramid import Factor, Pyramid

logger = logging.getLogger(__name__)

REDUCED_ON_THE_FLY = 64
"""By how much the coarsest level is reduced where the view is coarser: voxels read to one shown."""

# What the client can take; the rest is converted piece by piece.
_CONVERTED = {"bool": "uint8", "int64": "uint64", "float64": "float32", "float16": "float32"}


class ServedVolume(LocalVolume):
    """The data source of one layer."""

    def __init__(
        self, pyramid: Pyramid, *, kind: Literal["image", "segmentation"], average: bool, channel_name: str
    ) -> None:
        """Prepare to serve; nothing is read.

        Args:
            pyramid: what to serve.
            kind: which sort of layer it is for.
            average: reduce by the mean rather than by sampling.
            channel_name: the name of the channel axis, if there is one: ``c^`` gives a shader all of them,
                ``c'`` one at a time.
        """
        self.pyramid, self._average = pyramid, average
        self._meshes = LabelMeshes(pyramid) if kind == "segmentation" else None
        self._dtype = np.dtype(_CONVERTED.get(pyramid.dtype.name, pyramid.dtype.name))
        z, y, x = (int(n) for n in pyramid.roi_voxels.shape)
        corner = [int(b) for b in pyramid.roi_voxels.begin[::-1]]
        channels = [] if pyramid.num_channels is None else [pyramid.num_channels]
        super().__init__(
            data=_Described((x, y, z, *channels), self._dtype),
            dimensions=CoordinateSpace(
                names=["x", "y", "z", *([channel_name] if channels else [])],
                units=["nm"] * 3 + [""] * len(channels),
                scales=[*pyramid.voxel_size[::-1], *[1] * len(channels)],
            ),
            voxel_offset=[*corner, *[0] * len(channels)],
            volume_type=kind,
            encoding="raw",
            downsampling="3d",
            max_downsampling=REDUCED_ON_THE_FLY * math.prod(pyramid.coarsest),
        )

    def get_encoded_subvolume(
        self, data_format: str, start: NDArray[np.int64], end: NDArray[np.int64], scale_key: str
    ) -> tuple[bytes, str]:
        """Return the bytes of a piece, x fastest, and their content type.

        Args:
            data_format: ``raw``.
            start: first voxel at the resolution, x, y, z(, c).
            end: behind the last.
            scale_key: the factor, as ``2,2,1(,1)``.

        Raises:
            ValueError: out of bounds, or unreadable; the server answers with a client error.
        """
        numbers = [int(f) for f in scale_key.split(",")]
        if data_format != "raw" or not len(numbers) == len(start) == len(end) == self.rank:
            raise ValueError("the request does not fit the volume")
        if min(numbers) < 1 or math.prod(numbers) > self.max_downsampling:
            raise ValueError("the volume is not reduced so far")
        factor, low, high = (_zyx(values) for values in (numbers, start, end))
        shape = self.pyramid.shape_at(factor)
        if any(b < 0 or e <= b or e > n for b, e, n in zip(low, high, shape, strict=True)):
            raise ValueError("the request lies outside the volume")
        try:
            piece = self.pyramid.read(factor, low, high, average=self._average)
        except DataError as error:
            logger.warning("%s", error)
            raise ValueError("the data cannot be read") from error
        if piece.ndim == 4:
            piece = piece[int(start[3]) : int(end[3])]
        return np.ascontiguousarray(piece, dtype=self._dtype).tobytes(), "application/octet-stream"

    def get_object_mesh(self, object_id: int) -> bytes:
        """Return the surface of a label, in metres from the volume's corner, as neuroglancer reads it."""
        if self._meshes is None:
            raise MeshesNotSupportedForVolume
        try:
            mesh = self._meshes.mesh(object_id)
        except DataError as error:
            logger.warning("%s", error)
            raise MeshesNotSupportedForVolume from error
        if mesh is None:
            raise InvalidObjectIdForMesh
        return encode_mesh(mesh, unit_nm=1e9)


class _Described:
    """Shape and dtype of data that is read in another way."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.shape, self.dtype = shape, dtype


def _zyx(values: Sequence[int] | NDArray[np.int64]) -> Factor:
    x, y, z = (int(v) for v in values[:3])
    return (z, y, x)


def dimensions_nm(voxel_size: Sequence[float]) -> CoordinateSpace:
    """Return the axes of a view, z, y, x as in all commands and settings; one step is a voxel."""
    return cast(CoordinateSpace, CoordinateSpace(names=["z", "y", "x"], units="nm", scales=list(voxel_size)))
