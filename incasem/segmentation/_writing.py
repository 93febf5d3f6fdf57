"""The last pass over the blocks: labels are replaced by the numbers of fragments, and by those of segments.

Segments are looked up for the pieces of a block and not for its voxels, so that each further segmentation
costs little more than its writing.

On its own, so that its workers need not load the compiled loops of the other passes.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from incasem.blockwise import Block, BlockFunction
from incasem.segmentation._tables import fragment_of_piece, look_up
from incasem.segmentation.relabel import Target, relabel
from incasem.volumes import Volume, open_volume

__all__ = ["LABELS", "start_writing"]

LABELS = "labels.zarr"
"""The volume of the blocks' own labels, in the folder of scratch."""


def start_writing(folder: Path, output: Volume, targets: Sequence[Target] = ()) -> BlockFunction:
    """Return the function that writes the fragments of a block, and its segments.

    Args:
        folder: scratch of the earlier passes.
        output: gets the fragments.
        targets: get the segments.
    """
    labels = open_volume(folder / LABELS)
    tables = [(target.table.read(), target.volume) for target in targets]

    def write(block: Block) -> None:
        pieces = labels.read_voxels(block.write_roi)
        fragments = fragment_of_piece(folder, block.index)
        ids = np.empty(pieces.shape, np.uint64)
        look_up(fragments, pieces, ids)
        output.write_voxels(block.write_roi, ids)
        for (known, segments), volume in tables:
            look_up(relabel(fragments, known, segments), pieces, ids)
            volume.write_voxels(block.write_roi, ids)

    return write
