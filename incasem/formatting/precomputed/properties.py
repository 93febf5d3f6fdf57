"""What viewers list of each segment: how large it is.

Format: google/neuroglancer, ``src/datasource/precomputed/segment_properties.md``.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from incasem.durable import write_durably
from incasem.formatting.precomputed.layout import PROPERTIES

MOST_LISTED = 500_000
"""The file is read whole by the browser: of more segments only the largest are listed."""


def write_properties(root: Path, segments: NDArray[Any], voxel_size: Sequence[float]) -> int:
    """Write voxels and µm³ of each segment; return how many are listed.

    Args:
        root: the precomputed folder.
        segments: `id` and `voxels`.
        voxel_size: nm.
    """
    if len(segments) > MOST_LISTED:
        order = np.argsort(segments["voxels"], kind="stable")
        segments = segments[np.sort(order[-MOST_LISTED:])]
    voxels = segments["voxels"]
    exact = not len(voxels) or int(voxels.max()) < 2**32
    volume = voxels * (math.prod(voxel_size) / 1e9)
    numbers = [
        ("voxels", "uint32" if exact else "float32", "number of voxels", voxels.tolist()),
        ("um3", "float32", "volume in cubic micrometres", [float(f"{v:.6g}") for v in volume]),
    ]
    info = {
        "@type": "neuroglancer_segment_properties",
        "inline": {
            "ids": [str(label) for label in segments["id"].tolist()],
            "properties": [
                {"id": name, "type": "number", "data_type": kind, "description": text, "values": values}
                for name, kind, text, values in numbers
            ],
        },
    }
    folder = root / PROPERTIES
    folder.mkdir(exist_ok=True)
    write_durably(folder / "info", json.dumps(info).encode())
    return len(segments)
