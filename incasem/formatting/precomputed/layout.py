"""The folder that is made: scales, their geometry, and the `info` that names them.

Format: neuroglancer's "precomputed" volumes (google/neuroglancer, ``src/datasource/precomputed/volume.md``).
    Its axes are x, y, z and its places are voxels of each scale; here they are z, y, x until they are
    written.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from incasem.durable import write_durably
from incasem.errors import DataError
from incasem.formatting._downscale import Factor, coarser_roi
from incasem.geometry import Coordinate, Roi
from incasem.volumes import Volume
from incasem.volumes.metadata import tidy

CHUNK = 64
"""Edge of a chunk, voxels."""
SMALLEST_SCALE = 64**3
"""No coarser scale is made of one that has at most this many voxels."""
MESHES, PROPERTIES = "mesh", "segment_properties"
_SHARD_CHUNKS_BITS = 6
"""64 chunks, usually 4 along each axis, lie in one file of a sharded scale."""


@dataclass(frozen=True)
class Scale:
    """One resolution.

    Attributes:
        index: 0 is the finest.
        factor: voxels of the finest to one of this; z, y, x.
        roi: where it lies, voxels of its own absolute grid.
        voxel_size: nm; z, y, x.
    """

    index: int
    factor: Factor
    roi: Roi
    voxel_size: tuple[float, float, float]

    @property
    def key(self) -> str:
        """Name of its folder."""
        return "_".join(f"{v:g}" for v in self.voxel_size[::-1])


@dataclass(frozen=True)
class Layout:
    """What is to be made of a label volume.

    Attributes:
        root: the folder.
        source: the labels; three axes.
        sharded: many chunks in one file.
        meshes: whether there will be surfaces.
    """

    root: Path
    source: Volume
    sharded: bool
    meshes: bool

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """What is stored: uint32, or uint64 where the labels are of 64 bits."""
        return np.dtype(np.uint64 if self.source.dtype.itemsize == 8 else np.uint32)

    @cached_property
    def scales(self) -> list[Scale]:
        """All scales, the finest first; axes of long voxels are halved later, so that voxels become cubes."""
        z, y, x = self.source.voxel_size
        scales = [Scale(0, (1, 1, 1), self.source.roi_voxels, (z, y, x))]
        while math.prod(scales[-1].roi.shape) > SMALLEST_SCALE:
            last = scales[-1]
            step = self.step_from(last)
            factor = _multiplied(last.factor, step)
            size = tuple(tidy(v * f) for v, f in zip(self.source.voxel_size, factor, strict=True))
            scales.append(
                Scale(last.index + 1, factor, coarser_roi(last.roi, step), (size[0], size[1], size[2]))
            )
        return scales

    def step_from(self, scale: Scale) -> Factor:
        """Return the factor between a scale and the next coarser one."""
        sizes = list(zip(scale.voxel_size, scale.roi.shape, strict=True))
        fine = 2 * min((v for v, n in sizes if n > 1), default=0.0)
        z, y, x = (2 if v < fine and n > 1 else 1 for v, n in sizes)
        return (z, y, x) if max(z, y, x) > 1 else (2, 2, 2)

    def info(self) -> dict[str, Any]:
        """Return the `info` of the folder."""
        made: dict[str, Any] = {
            "@type": "neuroglancer_multiscale_volume",
            "type": "segmentation",
            "data_type": self.dtype.name,
            "num_channels": 1,
            "segment_properties": PROPERTIES,
            "scales": [self._scale_info(scale) for scale in self.scales],
        }
        return made | ({"mesh": MESHES} if self.meshes else {})

    def _scale_info(self, scale: Scale) -> dict[str, Any]:
        info: dict[str, Any] = {
            "key": scale.key,
            "size": [int(n) for n in scale.roi.shape[::-1]],
            "voxel_offset": [int(n) for n in scale.roi.begin[::-1]],
            "resolution": [float(v) for v in scale.voxel_size[::-1]],
            "chunk_sizes": [[CHUNK] * 3],
            "encoding": "compressed_segmentation",
            "compressed_segmentation_block_size": [8, 8, 8],
        }
        if self.sharded:
            chunks = [-(-int(n) // CHUNK) for n in scale.roi.shape]
            bits = sum((n - 1).bit_length() for n in chunks)
            inside = min(bits, _SHARD_CHUNKS_BITS)
            info["sharding"] = {
                "@type": "neuroglancer_uint64_sharded_v1",
                "hash": "identity",
                "preshift_bits": inside,
                "minishard_bits": 0,
                "shard_bits": bits - inside,
                "minishard_index_encoding": "gzip",
                "data_encoding": "gzip",
            }
        return info

    def write_info(self) -> None:
        """Write the `info`, or find that it is there already.

        Raises:
            DataError: the folder holds something else.
        """
        file = self.root / "info"
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            if not file.exists() and any(self.root.iterdir()):
                raise DataError(
                    f"the output {self.root} is not empty and was not made by this command; allowed: a new "
                    "folder, or an earlier export of the same labels. Choose another name."
                )
            if not file.exists():
                write_durably(file, json.dumps(self.info(), indent=1).encode())
        except OSError as error:
            raise DataError(f"{self.root} cannot be made: {error}. Choose a folder you may write.") from error
        if read_info(self.root) != self.info():
            raise DataError(
                f"{self.root} holds an export of other labels or of other settings; allowed: a new folder, "
                "or the same command again. Choose another name, or delete it."
            )


def read_info(root: Path) -> dict[str, Any]:
    """Return the `info` of a precomputed volume.

    Raises:
        DataError: there is none, or it is damaged.
    """
    try:
        found = json.loads((root / "info").read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{root}/info cannot be read: {error}. Check the path, or export again.") from error
    if not isinstance(found, dict):
        raise DataError(f"{root}/info is no JSON object. Check the path, or export again.")
    return found


def open_scale(root: Path, index: int) -> Any:
    """Open a scale as a `tensorstore.TensorStore`, axes x, y, z, channel, places as `Scale.roi`."""
    import tensorstore

    spec = {
        "driver": "neuroglancer_precomputed",
        "kvstore": {"driver": "file", "path": f"{root}/"},
        "scale_index": index,
    }
    try:
        return tensorstore.open(spec, open=True).result()
    except ValueError as error:
        raise DataError(f"scale {index} of {root} cannot be opened: {error}. Export it again.") from error


def unit_of(array: Any) -> Coordinate:
    """Return what one writer must own (a chunk, or a shard); voxels, z, y, x."""
    x, y, z = array.chunk_layout.write_chunk.shape[:3]
    return Coordinate(z, y, x)


def roi_of(array: Any) -> Roi:
    """Return where a scale lies; voxels of its own grid, z, y, x."""
    low, high = array.domain.inclusive_min[:3][::-1], array.domain.exclusive_max[:3][::-1]
    return Roi(low, [h - b for b, h in zip(low, high, strict=True)])


def read_scale(array: Any, roi: Roi) -> np.ndarray:
    """Return the labels of a region of a scale, ZYX; 0 outside the scale."""
    known = roi.intersect(roi_of(array))
    result = np.zeros(roi.shape, array.dtype.numpy_dtype)
    if not known.empty:
        result[(known - roi.begin).to_slices()] = (
            array[_xyz(known)].read().result()[..., 0].transpose(2, 1, 0)
        )
    return result


def write_scale(array: Any, roi: Roi, labels_ZYX: np.ndarray) -> None:
    """Store the labels of a region; durable on return. The region consists of whole chunks (shards)."""
    array[_xyz(roi)].write(labels_ZYX.transpose(2, 1, 0)[..., np.newaxis]).result()


def _xyz(roi: Roi) -> tuple[slice, ...]:
    return tuple(slice(int(b), int(e)) for b, e in zip(roi.begin[::-1], roi.end[::-1], strict=True))


def _multiplied(factor: Factor, step: Sequence[int]) -> Factor:
    z, y, x = (a * b for a, b in zip(factor, step, strict=True))
    return (z, y, x)
