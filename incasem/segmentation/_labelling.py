"""The first pass over the blocks: each is labelled, its pieces and faces are put down for `_joining`."""

from abc import abstractmethod
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from incasem.blockwise import Block, StagedFunction
from incasem.geometry import Coordinate, Roi
from incasem.segmentation._basins import AFTER, BEFORE, block_basins, clip_edges
from incasem.segmentation._joining import Matcher, flat_in_region, match_basins, match_overlaps
from incasem.segmentation._mutex import mutex_labels
from incasem.segmentation._piece_graph import count_pieces
from incasem.segmentation._seeded import seeded_labels
from incasem.segmentation._tables import Table, save
from incasem.segmentation.affinity_map import AffinityMap
from incasem.segmentation.edges import EdgeSettings
from incasem.segmentation.fragment_settings import STEPS, FragmentSettings
from incasem.volumes import Volume

__all__ = ["LabelBlocks", "labelling", "matcher_of"]

_Given: TypeAlias = tuple[NDArray[np.uint8], NDArray[np.bool_] | None]
_Labelled: TypeAlias = tuple[NDArray[np.uint32], Table]
_NONE, _ONE = Coordinate(0, 0, 0), Coordinate(1, 1, 1)


@dataclass
class LabelBlocks(StagedFunction[_Given, _Labelled]):
    """Labels blocks: stores labels in ``scratch``, and a table of pieces in ``folder``.

    Attributes:
        affinities: the map.
        mask: voxels that are 0 there, or beyond it, are background; None for none.
        settings: how.
        scratch: uint32 labels, counted 1, 2, … in each block.
        folder: of the tables.
        durable: whether tables must be on the disk before a block counts as done.
        graph: what to count of the region graph on the way; None for nothing. The watershed only.
    """

    affinities: AffinityMap
    mask: Volume | None
    settings: FragmentSettings
    scratch: Volume = field(repr=False)
    folder: Path
    durable: bool
    graph: EdgeSettings | None = None

    @abstractmethod
    def read(self, block: Block) -> _Given:
        """Return what is known of a block: edges, which `compute` may change, and the mask."""

    def write(self, block: Block, result: _Labelled) -> None:
        """Store labels and table."""
        labels, table = result
        self.scratch.write_voxels(block.write_roi, labels)
        save(self.folder / f"{block.index}.npz", table, durable=self.durable)

    def inside(self, roi: Roi) -> NDArray[np.bool_] | None:
        """Return where the mask is not 0; None where there is no mask."""
        if self.mask is None:
            return None
        return self.mask.read_voxels(roi, beyond="constant", fill=0) != 0


class _Watershed(LabelBlocks):
    def read(self, block: Block) -> _Given:
        roi = block.write_roi.grow(Coordinate([BEFORE] * 3), Coordinate([AFTER] * 3))
        # An edge at the first of these voxels has its other end one before it.
        return self.affinities.read_nearest(roi), self.inside(roi.grow(_ONE, _NONE))

    def compute(self, block: Block, given: _Given) -> _Labelled:
        edges, inside = given
        own = edges[:, BEFORE:-AFTER, BEFORE:-AFTER, BEFORE:-AFTER]
        counted = None if self.graph is None else own.copy()
        clear_edges(edges, inside, self.settings.low_step, self.settings.high_step)
        basins = block_basins(edges)
        at = flat_in_region(block, basins.link_at // 6) * 6 + basins.link_at % 6
        table: Table = {
            "first": flat_in_region(block, basins.first),
            "link_of": basins.link_of,
            "link_at": at,
            "link_to": basins.link_to,
        }
        for axis in range(3):
            for side in range(2):
                planes = [a.take(-side, axis=axis) for a in (basins.labels, basins.codes)]
                table[f"face_{axis}{side}"] = np.stack(planes, dtype=np.int32)
        labels = basins.labels.view(np.uint32)
        if self.graph is not None and counted is not None:
            table |= count_pieces(labels, len(basins.first), counted, histograms=self.graph.histograms)
        return labels, table


def clear_edges(
    edges: NDArray[np.uint8], inside: NDArray[np.bool_] | None, low_step: int, high_step: int = STEPS
) -> None:
    """Set edges to 0, in place, that are at or below ``low_step`` or have an end outside the mask.

    Args:
        edges: to the voxel before in z, y, x; shape (3, z, y, x).
        inside: the mask, one voxel larger: at the beginning of each axis.
        low_step: of 255.
        high_step: larger ones are set to this.
    """
    clip_edges(edges, low_step, high_step)
    if inside is not None:
        here = inside[1:, 1:, 1:]
        for axis, channel in enumerate(edges):
            before = tuple(slice(0, -1) if a == axis else slice(1, None) for a in range(3))
            channel *= here & inside[before]


class _Overlapping(LabelBlocks):
    """Labels more than the block, and compares it with what the neighbours make of it."""

    @abstractmethod
    def labels_of(self, known: Roi, given: _Given) -> NDArray[np.uint32]:
        """Return labels of all that was read of a block, see `known`."""

    def known(self, block: Block) -> Roi:
        """Return what is read of a block: with its context, as far as the volume goes."""
        return block.read_roi.intersect(self.affinities.roi_voxels)

    def compute(self, block: Block, given: _Given) -> _Labelled:
        known, roi = self.known(block), block.write_roi
        grown = self.labels_of(known, given)
        begin = tuple(int(b) for b in roi.begin - known.begin)
        end = tuple(b + int(s) for b, s in zip(begin, roi.shape, strict=True))
        inner = tuple(slice(b, e) for b, e in zip(begin, end, strict=True))
        first, numbers = _numbered(grown[inner], int(grown.max()))
        grown = numbers[grown]
        none = np.zeros(0, np.int64)
        table: Table = {
            "first": flat_in_region(block, first),
            "link_of": none,
            "link_at": none,
            "link_to": none,
        }
        for axis in range(3):
            for side in range(2):
                table[f"face_{axis}{side}"] = _both_sides(grown, axis, side, begin, end)
        return np.ascontiguousarray(grown[inner]), table


def _numbered(labels: NDArray[np.uint32], largest: int) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
    """Return the first voxel of each label of a block, and a table that numbers the labels in that order.

    Labels up to ``largest`` that do not reach the block get 0: they are none of its pieces.
    """
    found, first = np.unique(labels.ravel(), return_index=True)
    if found[0] == 0:
        found, first = found[1:], first[1:]
    order = np.argsort(first)
    numbers = np.zeros(largest + 1, np.uint32)
    numbers[found[order]] = np.arange(1, len(found) + 1)
    return first[order], numbers


def _both_sides(
    grown: NDArray[np.uint32], axis: int, side: int, begin: tuple[int, ...], end: tuple[int, ...]
) -> NDArray[np.int32]:
    """Return the planes before and after a face of the block; empty at the volume's border."""
    after = end[axis] if side else begin[axis]
    if not 0 < after < grown.shape[axis]:
        return np.zeros((2, 0, 0), np.int32)
    index = [slice(b, e) for b, e in zip(begin, end, strict=True)]
    index[axis] = slice(after - 1, after + 1)
    return np.moveaxis(grown[tuple(index)], axis, 0).astype(np.int32)


class _Seeded(_Overlapping):
    def read(self, block: Block) -> _Given:
        roi = self.known(block)
        edges = self.affinities.read_nearest(roi.grow(_NONE, _ONE))  # of both sides of each voxel
        return edges, self.inside(roi.grow(_ONE, _ONE))

    def labels_of(self, known: Roi, given: _Given) -> NDArray[np.uint32]:
        edges, inside = given
        clear_edges(edges, inside, self.settings.low_step)
        whole = self.affinities.roi_voxels
        begins = [bool(a == b) for a, b in zip(known.begin, whole.begin, strict=True)]
        ends = [bool(a == b) for a, b in zip(known.end, whole.end, strict=True)]
        at_border = list(zip(begins, ends, strict=True))
        return seeded_labels(edges, self.settings, self.affinities.volume.voxel_size, at_border)


class _Mutex(_Overlapping):
    def read(self, block: Block) -> _Given:
        roi = self.known(block)
        return self.affinities.read(roi), self.inside(roi)

    def labels_of(self, known: Roi, given: _Given) -> NDArray[np.uint32]:
        return mutex_labels(*given, self.affinities.offsets, self.settings)


_LABELLING: dict[str, type[LabelBlocks]] = {"watershed": _Watershed, "seeded": _Seeded, "mutex": _Mutex}


def labelling(
    affinities: AffinityMap,
    mask: Volume | None,
    settings: FragmentSettings,
    scratch: Volume,
    folder: Path,
    durable: bool,
    graph: EdgeSettings | None,
) -> LabelBlocks:
    """Return the function that labels blocks by the method of ``settings``; see `LabelBlocks`."""
    return _LABELLING[settings.method](affinities, mask, settings, scratch, folder, durable, graph)


def matcher_of(settings: FragmentSettings) -> Matcher:
    """Return the function that compares faces as the method of ``settings`` stores them."""
    if settings.method == "watershed":
        return match_basins
    return partial(match_overlaps, settings.join_overlap)
