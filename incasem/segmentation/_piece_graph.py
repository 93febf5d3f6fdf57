"""The region graph out of what was counted while the blocks were labelled.

A block that is labelled (`incasem.segmentation._labelling`) has its affinities and its pieces in memory: it
counts the edges between its pieces, and keeps the edges that lead out of it beside its faces. Neighbours that
compare their faces count these. When each piece has the number of its fragment, the graph is a sum of small
tables: the affinities, most of what there is to read, are read once for fragments and graph.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from incasem.blockwise import Block, BlockFunction, Grid
from incasem.segmentation._joining import neighbours
from incasem.segmentation._packing import pack_edges, unpack_edges
from incasem.segmentation._pairs import EdgeCounter, count_labels
from incasem.segmentation._tables import Table, fragment_of_piece, load
from incasem.segmentation.affinity_map import NEAREST
from incasem.segmentation.edge_store import EdgeStore
from incasem.segmentation.region_graph import (
    EdgeTable,
    FragmentTable,
    renamed_edges,
    summed_edges,
    summed_fragments,
)

__all__ = ["count_across", "count_pieces", "start_collecting"]


def count_pieces(
    labels_ZYX: NDArray[np.uint32], pieces: int, edges: NDArray[np.uint8], *, histograms: bool
) -> Table:
    """Return what a block knows of the graph, for its table of pieces.

    Args:
        labels_ZYX: the block's pieces.
        pieces: how many there are.
        edges: to the voxel before in z, y, x, of the block's voxels; steps of 1/255, shape (3, z, y, x).
        histograms: whether to count each affinity of a pair too.

    Returns:
        ``edges``: those between two pieces; ``voxels``: of each piece; ``edges_0`` … ``edges_2``: of the
        first plane along an axis, to the block before.
    """
    counter = EdgeCounter(histograms=histograms)
    for axis, offset in enumerate(NEAREST):
        before = (-offset[0], -offset[1], -offset[2])
        z, y, x = (slice(b, None) for b in before)
        counter.add(labels_ZYX, before, offset, edges[axis, z, y, x], near=True)
    table: Table = {"edges": _packed(counter), "voxels": count_labels(labels_ZYX, pieces)}
    return table | {f"edges_{axis}": edges[axis].take(0, axis=axis) for axis in range(3)}


def count_across(near: Any, far: Any, axis: int, *, histograms: bool) -> Table:
    """Return the edges between two blocks, ``edges_0`` … ``edges_2`` by the axis along which they touch.

    The far block's pieces are counted on from those of the near one.

    Args:
        near: the near block's table of pieces.
        far: that of the far block.
        axis: z, y or x.
        histograms: whether to count each affinity of a pair too.
    """
    labels = far[f"face_{axis}0"][0]
    planes = np.zeros((2, *labels.shape), np.uint32)
    planes[0] = near[f"face_{axis}1"][0]
    planes[1] = np.where(labels, labels + len(near["first"]), 0)
    counter = EdgeCounter(histograms=histograms)
    counter.add(planes, (1, 0, 0), (-1, 0, 0), far[f"edges_{axis}"][np.newaxis], near=True)
    return {f"edges_{axis}": _packed(counter)}


def _packed(counter: EdgeCounter) -> NDArray[np.uint8]:
    return np.frombuffer(pack_edges(counter.table()), np.uint8)


def start_collecting(grid: Grid, folder: Path, store: EdgeStore, cut: str) -> BlockFunction:
    """Return the function that puts a block's part of the graph into a store."""

    def collect(block: Block) -> None:
        names = fragment_of_piece(folder, block.index)
        with load(folder / "pieces", block.index) as pieces:
            voxels = pieces["voxels"]
            tables = [renamed_edges(_unpacked(pieces["edges"], folder), names)]
        tables += _across(grid, folder, block, names)
        sizes = summed_fragments([FragmentTable(names[1:], voxels)])
        store.write_block(cut, block.index, summed_edges(tables), sizes)

    return collect


def _across(grid: Grid, folder: Path, block: Block, names: NDArray[np.uint64]) -> Iterator[EdgeTable]:
    with load(folder / "matches", block.index) as matches:
        for axis, neighbour in neighbours(grid, block):
            both = np.concatenate([names, fragment_of_piece(folder, neighbour.index)[1:]])
            yield renamed_edges(_unpacked(matches[f"edges_{axis}"], folder), both)


def _unpacked(stored: NDArray[np.uint8], folder: Path) -> EdgeTable:
    return unpack_edges(stored.tobytes(), str(folder))
