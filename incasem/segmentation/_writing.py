"""The last pass over the blocks of fragments: labels are replaced by the numbers of fragments.

On its own, so that its workers need not load the compiled loops of the other passes.
"""

from pathlib import Path

import numpy as np

from incasem.blockwise import Block, BlockFunction
from incasem.segmentation._tables import fragment_of_piece, look_up
from incasem.volumes import Volume, open_volume

__all__ = ["LABELS", "start_writing"]

LABELS = "labels.zarr"
"""The volume of the blocks' own labels, in the folder of scratch."""


def start_writing(folder: Path, output: Volume) -> BlockFunction:
    """Return the function that writes the fragments of a block."""
    labels = open_volume(folder / LABELS)

    def write(block: Block) -> None:
        places = labels.read_voxels(block.write_roi)
        ids = np.empty(places.shape, np.uint64)
        look_up(fragment_of_piece(folder, block.index), places, ids)
        output.write_voxels(block.write_roi, ids)

    return write
