"""Volumes that must be of three dimensions and nothing else."""

import logging

from incasem.errors import DataError, explain
from incasem.volumes.volume import Volume

logger = logging.getLogger(__name__)


def check_spatial(volume: Volume, of: str = "") -> None:
    """Raise a DataError for a volume with other axes than z, y, x, such as channels.

    Args:
        volume: as opened.
        of: what it belongs to, for the message.
    """
    if volume.axes != ("z", "y", "x"):
        raise DataError(
            explain(
                f"axes of {volume.path}{f' of {of!r}' if of else ''}",
                ", ".join(volume.axes),
                "z, y, x",
                "Choose or extract a single channel",
            )
        )


def placed_like(volume: Volume, reference: Volume) -> Volume:
    """Return ``volume``, with the voxel size of ``reference`` if it states none (TIFF, many HDF5 files)."""
    if volume.has_stated_place:
        return volume
    logger.warning("%s states no voxel size; that of %s is taken", volume.path, reference.path)
    return volume.with_place(voxel_size=reference.voxel_size)


def check_same_voxel_size(volume: Volume, reference: Volume, what: str) -> None:
    """Raise a DataError for a volume of another voxel size than ``reference``, which is ``what``."""
    if volume.voxel_size != reference.voxel_size:
        raise DataError(
            explain(
                f"the voxel size of {volume.path}",
                f"{volume.voxel_size} nm",
                f"that of the {what}, {reference.voxel_size} nm",
                "Give volumes of one resolution",
            )
        )
