"""The region graph of fragments, in blocks: which of them touch, and the affinities of the edges between.

Each edge belongs to the voxel that its channel is stored at, so that exactly one block counts it; the block
reads the fragments one voxel further (for long-range channels, as far as these reach). Everything counted is
an integer: the graph is the same, bit by bit, for any blocks and any number of workers.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from incasem.blockwise import Block, BlockFunction, Grid, Job, JobReport, default_block_shape, run_stage
from incasem.errors import DataError, explain
from incasem.geometry import Coordinate, Roi, format_roi
from incasem.segmentation._pairs import EdgeCounter, count_fragments
from incasem.segmentation.affinity_map import NEAREST, AffinityMap, Offset
from incasem.segmentation.edge_store import EdgeStore, cut_of
from incasem.segmentation.fragment_ids import read_ids
from incasem.segmentation.region_graph import EdgeTable, FragmentTable
from incasem.volumes import Volume, check_same_voxel_size, check_spatial

__all__ = ["EdgeSettings", "GraphTarget", "count_block", "write_edges"]

JOB = "edges"
_LARGEST_UNIT = 128  # voxels


@dataclass(frozen=True)
class EdgeSettings:
    """What is counted.

    Attributes:
        histograms: count each affinity of a pair too, for scores that are quantiles of them all.
        long_range: count the edges of all channels, and not only those between direct neighbours, as evidence
            on fragments that touch. Fragments that do not touch stay unconnected.
    """

    histograms: bool = False
    long_range: bool = False


@dataclass(frozen=True)
class GraphTarget:
    """Where a region graph goes, and what is counted for it.

    Attributes:
        store: gets the pairs of touching fragments, and the sizes of all.
        state_dir: where the marks of finished blocks lie, until all are done (a suffix is added).
        settings: what is counted.
    """

    store: EdgeStore
    state_dir: Path
    settings: EdgeSettings

    def job(
        self, affinities: AffinityMap, fragments: Volume, grid: Grid, start: Callable[[], BlockFunction]
    ) -> Job:
        """Create the store, and return the job that fills it."""
        # So that the marks of blocks whose store was deleted are not believed.
        token = self.store.create()
        state_dir = self.state_dir.with_name(f"{self.state_dir.name}.{token}")
        for left in self.state_dir.parent.glob(f"{self.state_dir.name}.*"):
            if left != state_dir:
                shutil.rmtree(left, ignore_errors=True)
        return Job(
            name=JOB,
            grid=grid,
            start_worker=start,
            identity={
                **affinities.identity(),
                "fragments": fragments.fingerprint(),
                "histograms": self.settings.histograms,
                "long_range": self.settings.long_range,
            },
            state_dir=state_dir,
        )

    def output(self, grid: Grid) -> "GraphOutput":
        """Return the store as the output of a stage whose blocks are those of ``grid``."""
        return GraphOutput(self.store, cut_of(grid))


@dataclass(frozen=True)
class GraphOutput:
    """The store as a stage's output: it is told which cut is complete together with the finished-mark."""

    store: EdgeStore
    cut: str

    @property
    def path(self) -> str:
        """For messages."""
        return self.store.path

    @property
    def attributes(self) -> Mapping[str, Any]:
        """Attributes as stored."""
        return self.store.attributes

    def set_attributes(self, **attributes: Any) -> None:
        """Note that the cut is complete, with attributes."""
        self.store.finish(self.cut, **attributes)


def write_edges(
    affinities: AffinityMap,
    fragments: Volume,
    target: GraphTarget,
    *,
    num_workers: int,
    progress: bool = True,
    block_shape: Sequence[int] | None = None,
) -> JobReport:
    """Fill an edge store, continuing what an interrupted run began; do nothing where it is finished.

    Args:
        affinities: the affinity map.
        fragments: ids of its voxels, 0 is background; any integer type.
        target: the store, and what is counted.
        num_workers: worker processes.
        progress: whether to show a progress line.
        block_shape: voxels a block; None chooses.

    Raises:
        DataError: fragments that do not fit the affinities or have negative ids, another graph in the store,
            the disk is full.
        FailedBlocksError: blocks that could not be done.
    """
    job = edge_job(affinities, fragments, target, block_shape)
    return run_stage(job, target.output(job.grid), num_workers, progress)


def edge_job(
    affinities: AffinityMap, fragments: Volume, target: GraphTarget, block_shape: Sequence[int] | None = None
) -> Job:
    """Check everything, create the store, and return the job that fills it."""
    check_fragments(affinities, fragments)
    _ = affinities.nearest
    unit = [min(size, _LARGEST_UNIT) for size in fragments.write_shape]  # files of others may be one chunk
    block = block_shape or default_block_shape(unit, volume_shape=fragments.shape)
    grid = Grid(fragments.roi_voxels, Coordinate(block))
    start = partial(_start, affinities, fragments, target.store, target.settings, cut_of(grid))
    return target.job(affinities, fragments, grid, start)


def check_fragments(affinities: AffinityMap, fragments: Volume) -> None:
    """Refuse fragments that cannot be those of an affinity map.

    Raises:
        DataError: channels, no integers, another voxel size, or a place beyond the affinities.
    """
    check_spatial(fragments)
    if fragments.dtype.kind not in "ui":
        raise DataError(
            explain(
                f"dtype of {fragments.path}", fragments.dtype, "integers (ids of fragments)", "Convert it"
            )
        )
    check_same_voxel_size(fragments, affinities.volume, "affinities")
    if not affinities.roi_voxels.contains(fragments.roi_voxels):
        raise DataError(
            explain(
                f"the place of {fragments.path}",
                f"{format_roi(fragments.roi_voxels)} voxels",
                f"a region inside that of the affinities, {format_roi(affinities.roi_voxels)}",
                "Correct its offset, or take the fragments of these affinities",
            )
        )


def _start(
    affinities: AffinityMap, fragments: Volume, store: EdgeStore, settings: EdgeSettings, cut: str
) -> BlockFunction:
    def count(block: Block) -> None:
        edges, sizes = count_block(affinities, fragments, settings, block.write_roi)
        store.write_block(cut, block.index, edges, sizes)

    return count


def count_block(
    affinities: AffinityMap, fragments: Volume, settings: EdgeSettings, roi: Roi
) -> tuple[EdgeTable, FragmentTable]:
    """Return the edges that belong to the voxels of a region, and the sizes of the fragments there."""
    far = _far_channels(affinities) if settings.long_range else {}
    before = [max(0, *(-step for step in steps)) for steps in zip(*NEAREST, *far.values(), strict=True)]
    after = [max(0, *steps) for steps in zip(*NEAREST, *far.values(), strict=True)]
    grown = roi.grow(Coordinate(before), Coordinate(after))
    ids = read_ids(fragments, grown)
    begin = (before[0], before[1], before[2])
    inside = tuple(slice(b, b + s) for b, s in zip(begin, roi.shape, strict=True))
    sizes = count_fragments(ids[inside])
    counter = EdgeCounter(histograms=settings.histograms)
    if len(sizes):
        near = affinities.read_nearest(roi)
        for axis, offset in enumerate(NEAREST):
            if affinities.nearest[axis] is None:
                continue
            counter.add(ids, begin, offset, near[axis], near=True)
        del near
        if far:
            values = affinities.read(roi)
            for channel, offset in far.items():
                counter.add(ids, begin, offset, values[channel], near=False)
    return counter.table(), sizes


def _far_channels(affinities: AffinityMap) -> dict[int, Offset]:
    nearest = set(affinities.nearest)
    return {c: offset for c, offset in enumerate(affinities.offsets) if c not in nearest}
