"""Places and sizes: between world nanometres and the absolute voxel grid.

Two kinds of region are used, both `funlib.geometry.Roi` in z, y, x:

- a *world* ROI in nm, the common language between volumes of different resolution;
- a *voxel* ROI on a volume's absolute grid, where voxel ``i`` begins at ``i * voxel_size`` nm. A volume's
  own offset says which voxel its first element is, so equal voxel ROIs mean equal places.

`Roi` holds integers while voxel sizes may be fractional (5.9 nm). The corners of a world ROI are rounded
to whole nm; since a voxel is larger than 1 nm, the way back is exact.
"""

from collections.abc import Iterable, Sequence

from funlib.geometry import Coordinate, Roi

from incasem.errors import DataError

VoxelSize = tuple[float, ...]

__all__ = [
    "Coordinate",
    "Roi",
    "VoxelSize",
    "ceil_to_multiple",
    "format_roi",
    "grow",
    "snap_outward",
    "to_voxels",
    "to_world",
]


def to_world(roi_voxels: Roi, voxel_size: Sequence[float]) -> Roi:
    """Return the world ROI (nm, corners rounded to whole nm) of a voxel ROI."""
    begin = [round(b * v) for b, v in zip(roi_voxels.begin, voxel_size, strict=True)]
    end = [round(e * v) for e, v in zip(roi_voxels.end, voxel_size, strict=True)]
    return Roi(begin, [e - b for b, e in zip(begin, end, strict=True)])


def to_voxels(roi_nm: Roi, voxel_size: Sequence[float]) -> Roi:
    """Return the voxel ROI of a world ROI (nm).

    Raises:
        DataError: a corner lies more than half a nanometre off the voxel grid.
    """
    begin = [_to_voxel(b, v, roi_nm) for b, v in zip(roi_nm.begin, voxel_size, strict=True)]
    end = [_to_voxel(e, v, roi_nm) for e, v in zip(roi_nm.end, voxel_size, strict=True)]
    return Roi(begin, [e - b for b, e in zip(begin, end, strict=True)])


def _to_voxel(position_nm: float, voxel_size_nm: float, roi_nm: Roi) -> int:
    index = round(position_nm / voxel_size_nm)
    if abs(index * voxel_size_nm - position_nm) > 0.5:
        raise DataError(
            f"position {position_nm} nm of the ROI {format_roi(roi_nm)} nm lies between two voxels; "
            f"allowed: multiples of the voxel size {voxel_size_nm:g} nm. "
            "Correct the offset or the voxel size."
        )
    return index


def grow(roi: Roi, by: Iterable[int]) -> Roi:
    """Return ``roi`` grown by ``by`` (z, y, x; same unit) on both sides of each axis."""
    amount = Coordinate(by)
    return roi.grow(amount, amount)


def snap_outward(roi_voxels: Roi, multiple: Iterable[int]) -> Roi:
    """Return the smallest ROI around ``roi_voxels`` whose corners lie on multiples of ``multiple``."""
    steps = tuple(multiple)
    begin = [b // m * m for b, m in zip(roi_voxels.begin, steps, strict=True)]
    end = [-(-e // m) * m for e, m in zip(roi_voxels.end, steps, strict=True)]
    return Roi(begin, [e - b for b, e in zip(begin, end, strict=True)])


def ceil_to_multiple(shape: Iterable[int], multiple: Iterable[int]) -> Coordinate:
    """Return the smallest multiple of ``multiple`` that is at least ``shape``, per axis."""
    return Coordinate(-(-s // m) * m for s, m in zip(shape, multiple, strict=True))


def format_roi(roi: Roi) -> str:
    """Return ``[z0:z1, y0:y1, x0:x1]`` for messages."""
    return "[" + ", ".join(f"{b}:{e}" for b, e in zip(roi.begin, roi.end, strict=True)) + "]"
