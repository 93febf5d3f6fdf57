"""What grey values of each type mean: raw data are read alike by every task."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from incasem.errors import DataError, explain


def full_scale(dtype: np.dtype[Any]) -> float:
    """Return the grey value that means 1 for raw data of a type: 255, 65535, or 1.0 for floats.

    Raises:
        DataError: raw data of this type have no agreed range.
    """
    kind = np.dtype(dtype)
    if kind in (np.dtype(np.uint8), np.dtype(np.uint16)):
        return float(np.iinfo(kind).max)
    if kind.kind == "f":
        return 1.0
    raise DataError(
        explain(
            "data type of the raw data",
            kind,
            "uint8, uint16, or floats in [0, 1]",
            "Convert the volume, for instance with `incasem convert --dtype uint8`",
        )
    )


def normalise(raw: NDArray[Any]) -> NDArray[np.float32]:
    """Return raw data of any allowed type as float32 in [-1, 1], as the network reads them."""
    factor = np.float32(2.0 / full_scale(raw.dtype))
    unit: NDArray[np.float32] = raw.astype(np.float32)
    unit *= factor
    unit -= np.float32(1)
    return unit
