"""Fragments: the over-segmentation of an affinity map of any size, block by block.

1. Each block is labelled alone, by one of three methods (`FragmentSettings`); labels go to a scratch volume
   inside the output, pieces and faces to small tables (`incasem.segmentation._labelling`);
2. neighbouring blocks compare their faces, and each piece gets the number of its fragment
   (`incasem.segmentation._joining`);
3. the labels are replaced by these numbers (`incasem.segmentation._writing`).

Where the region graph is wanted too, the first pass counts it on the way, see
`incasem.segmentation._piece_graph`. It is complete before the last pass, which can write segmentations, too.

Fragments are numbered 1, 2, … in the order in which a scan of the volume meets them; 0 is background.

With the method ``watershed`` partition and numbers do not depend on the blocks. With ``seeded`` and
``mutex``, whose reach has no bound, they do: a fragment may end at a face between two blocks, where these
disagree about it. Measured against one pass over the whole volume, as variation of information (split +
merge, in bits; neurites of `AffinityPhantom` 14 voxels apart, 96³, blocks of 48³, offsets of up to 6 voxels):

- ``seeded``: 0.02 + 0.03 with a context of 16 voxels, 0.002 + 0.01 with 32;
- ``seeded``, per section: 0.0005 + 0.0005 and 0;
- ``mutex``: 0.02 + 0.02 with either; 0.06 + 0.06 with biases of 0.2 and 0.7, where fragments are small.

Cost of the watershed with its region graph, 255 steps in and ids out: about 65 ns of CPU a voxel, 25 of them
for the watershed itself.
Memory: a few blocks a worker (0.75 GB for 256³), and tables of the pieces, see `_joining`.
"""

import logging
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from incasem.blockwise import (
    Grid,
    Job,
    default_block_shape,
    is_finished,
    is_finished_and_clean,
    mark_finished,
    run_in_process,
    run_job,
    run_stage,
)
from incasem.blockwise.state import work_lock
from incasem.errors import ConfigError, DataError, explain
from incasem.geometry import Coordinate
from incasem.segmentation._joining import join, start_matching
from incasem.segmentation._labelling import labelling, matcher_of
from incasem.segmentation._piece_graph import count_across, start_collecting
from incasem.segmentation._writing import LABELS, start_writing
from incasem.segmentation.affinity_map import AffinityMap
from incasem.segmentation.edges import GraphTarget
from incasem.segmentation.extra import import_neurons
from incasem.segmentation.fragment_settings import FragmentSettings
from incasem.volumes import (
    Volume,
    check_same_voxel_size,
    check_spatial,
    create_volume,
    exists,
    open_volume,
)

__all__ = ["COUNT_ATTRIBUTE", "FragmentSettings", "FragmentStage", "prepare_fragments", "write_fragments"]

logger = logging.getLogger(__name__)

JOB = "fragments"
COUNT_ATTRIBUTE = "num_fragments"
"""Attribute of the output that says how many fragments there are, which is also the largest id."""

_MARK = "incasem"
# Read and written several times: on fragments Zstandard is four times slower, and saves 0.3 bytes a voxel.
_COMPRESSION = "lz4"
_CONTAINERS = (".zarr", ".n5")
_MOST_VOXELS = 2**31 - 1  # of a block; labels inside it take 32 bits
# Up to here starting workers takes longer than comparing the faces.
_FEW_BLOCKS = 64


def write_fragments(
    affinities: AffinityMap,
    output: str | os.PathLike[str],
    settings: FragmentSettings | None = None,
    *,
    mask: Volume | None = None,
    num_workers: int = 1,
    progress: bool = True,
    block_shape: Sequence[int] | None = None,
    chunk_shape: Sequence[int] = (128, 128, 128),
    graph: GraphTarget | None = None,
) -> Volume:
    """Write the fragments of an affinity map, continuing an interrupted run.

    Args:
        affinities: the map.
        output: container and dataset: uint64, of the place and size of the map.
        settings: how; None for the exact watershed with waterz's thresholds.
        mask: voxels that are 0 there, or beyond it, are background; of the map's voxel size.
        num_workers: worker processes; 0 does it in this process, and nothing can be continued.
        progress: whether to show progress lines on standard error.
        block_shape: voxels, a multiple of ``chunk_shape``; None chooses one.
        chunk_shape: of the output; voxels.
        graph: gets the region graph as well, where it can be counted on the way: fragments of the watershed
            in 3D, edges between direct neighbours. Else, or where the fragments are there already, nothing is
            done with it: `incasem.segmentation.edges.write_edges` makes what is missing.

    Returns:
        The output, with an attribute ``num_fragments``.

    Raises:
        DataError: the map holds NaN or lacks the nearest edges; the output exists and is another one; the
            mask does not fit.
        ConfigError: an extra is missing, or blocks that are no multiple of chunks.
        FailedBlocksError: blocks that could not be done, with the reason of each.
    """
    if num_workers < 0:
        raise ConfigError(explain("num_workers", num_workers, "0 or more", "Use the number of cores"))
    stage = prepare_fragments(affinities, output, settings, mask, block_shape, chunk_shape, graph)
    stage.run(num_workers, progress)
    return stage.output


@dataclass(frozen=True)
class FragmentStage:
    """The passes that write fragments.

    Attributes:
        affinities: the map.
        output: uint64.
        settings: how.
        mask: what is not background, or None.
        grid: blocks of all passes.
        graph: gets the region graph; None for none.
    """

    affinities: AffinityMap
    output: Volume
    settings: FragmentSettings
    mask: Volume | None
    grid: Grid
    graph: GraphTarget | None = None

    @property
    def state_dir(self) -> Path:
        """Where marks, logs and scratch lie: inside the output, so that they are deleted together."""
        return Path(self.output.path) / ".incasem"

    @property
    def folder(self) -> Path:
        """Scratch of runs that cut the volume and count the graph like this one."""
        name = "x".join(str(int(s)) for s in self.grid.block_shape)
        if self.graph is not None:
            name += "_histograms" if self.graph.settings.histograms else "_edges"
        return self.state_dir / name

    @property
    def identity(self) -> dict[str, object]:
        """What determines the fragments."""
        identity = self.affinities.identity() | self.settings.identity()
        identity["mask"] = None if self.mask is None else self.mask.fingerprint()
        if self.settings.method != "watershed":
            identity["block_shape"] = [int(s) for s in self.grid.block_shape]
        return identity

    def scratch(self) -> Volume:
        """Create or reopen the volume of the blocks' own labels."""
        return create_volume(
            str(self.folder / LABELS),
            shape=self.output.shape,
            dtype=np.dtype(np.uint32),
            voxel_size=self.output.voxel_size,
            offset_nm=self.output.offset_nm,
            chunk_shape=self.output.write_shape,
            compression=_COMPRESSION,
            existing="resume",
        )

    def label_job(self, *, durable: bool = True) -> Job:
        """Return the first pass: each block is labelled alone."""
        return Job(
            name="label blocks",
            grid=replace(self.grid, context=Coordinate(self.settings.context)),
            start_worker=partial(
                labelling,
                self.affinities,
                self.mask,
                self.settings,
                self.scratch(),
                self.folder / "pieces",
                durable,
                None if self.graph is None else self.graph.settings,
            ),
            identity=self.identity,
            state_dir=self.folder / "labelling",
        )

    def match_job(self, *, durable: bool = True) -> Job:
        """Return the second pass: neighbours compare their faces."""
        count = None
        if self.graph is not None:
            count = partial(count_across, histograms=self.graph.settings.histograms)
        matcher = matcher_of(self.settings)
        return Job(
            name="match faces",
            grid=self.grid,
            start_worker=partial(start_matching, self.grid, self.folder, matcher, durable, count),
            identity=self.identity,
            state_dir=self.folder / "matching",
        )

    def graph_job(self, graph: GraphTarget) -> Job:
        """Return the pass over the tables that puts the region graph together."""
        start = partial(start_collecting, self.grid, self.folder, graph.store, graph.output(self.grid).cut)
        return graph.job(self.affinities, self.output, self.grid, start)

    def is_finished(self) -> bool:
        """Return whether the fragments are there.

        Raises:
            DataError: there are others.
        """
        return is_finished_and_clean(self.write_job(), self.output)

    def run(self, num_workers: int, progress: bool) -> None:
        """Run all passes, or what is left of them; 0 workers do it in this process."""
        if self.is_finished():
            return
        with self.sole_command():
            if num_workers == 0:
                self.run_in_process()
            else:
                self.number(num_workers, progress)
                self.collect(num_workers, progress)
                run_stage(self.write_job(), self.output, num_workers, progress)

    @contextmanager
    def sole_command(self) -> Iterator[None]:
        """Keep other commands away from the tables between the passes.

        Raises:
            DataError: another command is there, or the store holds the graph of other fragments.
        """
        self.graph_is_wanted()
        with work_lock(replace(self.write_job(), state_dir=self.state_dir / "command")):
            yield

    def graph_is_wanted(self) -> bool:
        """Return whether there is a region graph to be put together.

        Raises:
            DataError: the store holds the graph of other fragments.
        """
        graph = self.graph
        return graph is not None and not is_finished(self.graph_job(graph), graph.output(self.grid))

    def collect(self, num_workers: int, progress: bool) -> None:
        """Put the region graph together; 0 workers do it in this process."""
        if self.graph is None or not self.graph_is_wanted():
            return
        job, output = self.graph_job(self.graph), self.graph.output(self.grid)
        if num_workers > 0 and len(self.grid) > _FEW_BLOCKS:
            run_stage(job, output, num_workers, progress)
        else:
            run_in_process(job)
            mark_finished(job, output)

    def write_job(self) -> Job:
        """Return the last pass: labels become fragments."""
        return Job(
            name=JOB,
            grid=self.grid,
            start_worker=partial(start_writing, self.folder, self.output),
            identity=self.identity,
            state_dir=self.state_dir,
        )

    def number(self, num_workers: int, progress: bool) -> None:
        """Run the passes that number the fragments, or what is left of them."""
        run_stage(self.label_job(), self.scratch(), num_workers, progress)
        if len(self.grid) <= _FEW_BLOCKS:
            run_in_process(self.match_job())
        else:
            run_job(self.match_job(), num_workers=num_workers, progress=progress)
        self._join()

    def _join(self) -> None:
        count = join(self.grid, self.folder)
        self.output.set_attributes(**{COUNT_ATTRIBUTE: count})
        logger.info("%s: %d fragments", self.output.path, count)

    def run_in_process(self) -> None:
        """Do everything in this process, without marks, and remove the scratch."""
        run_in_process(self.label_job(durable=False))
        run_in_process(self.match_job(durable=False))
        self._join()
        self.collect(0, progress=False)
        run_in_process(self.write_job())
        mark_finished(self.write_job(), self.output)
        shutil.rmtree(self.state_dir)


def prepare_fragments(
    affinities: AffinityMap,
    output: str | os.PathLike[str],
    settings: FragmentSettings | None = None,
    mask: Volume | None = None,
    block_shape: Sequence[int] | None = None,
    chunk_shape: Sequence[int] = (128, 128, 128),
    graph: GraphTarget | None = None,
) -> FragmentStage:
    """Check everything, create the output, and return the passes that fill it; see `write_fragments`."""
    settings = settings or FragmentSettings()
    if settings.per_section:
        affinities = affinities.by_section()
    if settings.method == "mutex":
        import_neurons("mwatershed")
    else:
        _ = affinities.nearest  # says what is missing
    if settings.method == "seeded":
        import_neurons("edt")
    if mask is not None:
        check_spatial(mask)
        check_same_voxel_size(mask, affinities.volume, "affinities")
    path = os.fspath(output)
    if not any(part.endswith(_CONTAINERS) for part in Path(path).parts):
        allowed = "a dataset in a container NAME.zarr or NAME.n5"
        raise DataError(explain("the output", path, allowed, "Rename it"))
    if exists(path) and _MARK not in open_volume(path).attributes:
        raise DataError(
            f"the output {path} exists and was not made by incasem; allowed: a new name, or one that an "
            "earlier run began. Choose another output dataset, or delete this one."
        )
    volume = affinities.volume
    created = create_volume(
        path,
        shape=volume.shape[-3:],
        dtype=np.dtype(np.uint64),
        voxel_size=volume.voxel_size,
        offset_nm=volume.offset_nm,
        chunk_shape=chunk_shape,
        compression=_COMPRESSION,
        existing="resume",
        attributes={_MARK: {"begun_by": JOB}},
    )
    block = block_shape or default_block_shape(created.write_shape, volume_shape=created.shape)
    _check_blocks(block, created)
    if graph is not None and not _counts_on_the_way(settings, graph):
        graph = None
    grid = Grid(created.roi_voxels, Coordinate(block))
    return FragmentStage(affinities, created, settings, mask, grid, graph)


def _counts_on_the_way(settings: FragmentSettings, graph: GraphTarget) -> bool:
    """Return whether blocks and their faces tell the whole graph; else it takes a pass of its own."""
    return settings.method == "watershed" and not (settings.per_section or graph.settings.long_range)


def _check_blocks(block_shape: Sequence[int], output: Volume) -> None:
    unit, shape = output.write_shape, output.shape
    fits = len(block_shape) == 3 and all(
        b >= 1 and (b % u == 0 or b >= s) for b, u, s in zip(block_shape, unit, shape, strict=True)
    )
    if not fits or math.prod(min(b, s) for b, s in zip(block_shape, shape, strict=True)) > _MOST_VOXELS:
        raise ConfigError(
            explain(
                "block_shape",
                tuple(block_shape),
                f"multiples of the output's chunks {unit}, fewer than 2³¹ voxels in all",
                "Correct it, or leave it out",
            )
        )
