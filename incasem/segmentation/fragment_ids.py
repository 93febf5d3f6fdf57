"""Ids of fragments, as whoever made them stored them."""

import numpy as np
from numpy.typing import NDArray

from incasem.errors import DataError, explain
from incasem.geometry import Roi, format_roi
from incasem.volumes import Volume

__all__ = ["read_ids"]

_LARGEST_ID = (1 << 63) - 1  # databases have signed integers


def read_ids(fragments: Volume, roi_voxels: Roi) -> NDArray[np.uint64]:
    """Return ids in a region, 0 beyond the volume; uint64, z, y, x.

    Raises:
        DataError: an id below 0 or above 2^63 - 1.
    """
    ids = fragments.read_voxels(roi_voxels, beyond="constant")
    found = int(ids.min()) if fragments.dtype.kind == "i" and ids.size else 0
    if found == 0 and fragments.dtype == np.uint64 and ids.size:
        found = int(ids.max())
    if not 0 <= found <= _LARGEST_ID:
        raise DataError(
            explain(
                f"an id in {fragments.path} at {format_roi(roi_voxels)}",
                found,
                f"0 (background) to {_LARGEST_ID}",
                "Relabel the fragments",
            )
        )
    return ids.astype(np.uint64, copy=False)
