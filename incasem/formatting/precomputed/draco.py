"""Encoded meshes (Draco, Google), by the optional package DracoPy."""

import importlib
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from incasem.errors import ConfigError
from incasem.formatting.precomputed.octree import QUANTIZATION_BITS

EXTRA = "viewers"
_EFFORT = 5
"""Of the compression, 0 to 10."""


def import_draco() -> ModuleType:
    """Return the module ``DracoPy``.

    Raises:
        ConfigError: it is not installed; the message names the extra.
    """
    try:
        return importlib.import_module("DracoPy")
    except ImportError as error:
        raise ConfigError(
            f"DracoPy cannot be imported ({error}); meshes need the extra `{EXTRA}`. Run, in the checkout: "
            f"pip install -c constraints.txt -e '.[{EXTRA}]', or leave the meshes out: --no_meshes"
        ) from error


def encode(vertices: NDArray[np.uint32], faces: NDArray[np.uint32]) -> bytes:
    """Return a mesh whose vertices are whole numbers of `QUANTIZATION_BITS` bits, exactly."""
    largest = 2**QUANTIZATION_BITS - 1
    encoded: bytes = import_draco().encode(
        vertices.astype(np.float32),
        faces,
        quantization_bits=QUANTIZATION_BITS,
        quantization_range=largest,  # a step of quantization is 1
        quantization_origin=[0, 0, 0],
        compression_level=_EFFORT,
    )
    return encoded
