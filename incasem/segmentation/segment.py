"""Affinities to segments: fragments, region graph, agglomeration, relabelling; for one or several thresholds.

Beside the affinities, or wherever the output is asked to go:

```
fragments/                      ids of the watershed, uint64
edges.sqlite                    the region graph (…_histograms, …_long_range: with these)
lookup/<scoring>_<threshold>/   segment of each fragment
segmentation/<scoring>_<threshold>/   ids of the segments, uint64
```

The fragments' last pass writes the segmentations as well, where the region graph is counted before it.

Each stage is continued after an interruption and skipped when it is finished; other settings for the same
output are refused. More thresholds and other scorings use the fragments and the region graph that are there.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from incasem.blockwise import format_seconds, is_finished_and_clean, run_together
from incasem.blockwise.state import held
from incasem.errors import ConfigError, DataError, explain
from incasem.segmentation._writing import start_writing
from incasem.segmentation.affinity_map import AffinityMap, open_affinities
from incasem.segmentation.agglomeration import SizeRules, agglomerate, check_thresholds
from incasem.segmentation.edge_store import EdgeStore, open_edge_store
from incasem.segmentation.edges import EdgeSettings, GraphTarget, write_edges
from incasem.segmentation.fragment_settings import FragmentSettings
from incasem.segmentation.fragments import FragmentStage, prepare_fragments
from incasem.segmentation.relabel import (
    LookUp,
    Target,
    create_segmentation,
    relabel_job,
    start_relabelling,
)
from incasem.segmentation.scoring import Scoring, parse_scoring
from incasem.volumes import Volume, open_volume, placed_like, split_path

__all__ = ["SegmentOptions", "SegmentReport", "Segmentation", "segment"]

_OWN_CONTAINERS = (".zarr", ".n5")


@dataclass(frozen=True)
class SegmentOptions:
    """What is segmented, and how.

    Attributes:
        file: container of the affinities.
        dataset: affinities: axes c, z, y, x; uint8 (round(255 p)) or floats.
        out_file: container of the output; None: that of the affinities.
        out_group: group of the output; None: that of the affinities.
        offsets: the other end of each channel's edge, voxels z, y, x; None: as stored.
        fragments: how fragments are made.
        own_fragments: container and dataset of fragments made elsewhere; None makes them.
        mask: container and dataset; 0 where there is nothing to segment; None: no mask.
        scoring: name of the scoring function.
        thresholds: scores up to which is merged, as in waterz: 1 - affinity, a larger one merges more.
        rules: for small segments.
        long_range: whether long-range channels count as evidence on fragments that touch.
        edge_store: a file, or ``postgresql://…``; None: ``edges.sqlite`` in the output.
        block_shape: voxels a block, z, y, x, a multiple of ``chunk_shape``; None chooses.
        chunk_shape: of fragments made here, and of the segmentations; voxels z, y, x.
    """

    file: Path
    dataset: str
    out_file: Path | None = None
    out_group: str | None = None
    offsets: Sequence[Sequence[int]] | None = None
    fragments: FragmentSettings = field(default_factory=FragmentSettings)
    own_fragments: str | None = None
    mask: str | None = None
    scoring: str = "mean"
    thresholds: Sequence[float] = (0.5,)
    rules: SizeRules = field(default_factory=SizeRules)
    long_range: bool = False
    edge_store: str | None = None
    block_shape: Sequence[int] | None = None
    chunk_shape: Sequence[int] = (128, 128, 128)

    @property
    def output(self) -> Path:
        """Directory of the output.

        Raises:
            DataError: a container that is neither Zarr nor N5.
        """
        container, dataset = split_path(f"{self.file.expanduser()}/{self.dataset.strip('/')}")
        root = Path(container) if self.out_file is None else self.out_file.expanduser()
        if not any(part.endswith(_OWN_CONTAINERS) for part in root.parts):
            raise DataError(
                explain("the output container", root, "NAME.zarr or NAME.n5", "Name one with --out_filename")
            )
        group = str(Path(dataset).parent) if self.out_group is None else self.out_group.strip("/")
        return root / group


@dataclass(frozen=True)
class Segmentation:
    """One segmentation: its threshold, how many segments it has, and where it is."""

    threshold: float
    segments: int
    path: Path


@dataclass(frozen=True)
class SegmentReport:
    """What came out.

    Attributes:
        fragments: number of fragments.
        edges: pairs of them that touch.
        segmentations: one a threshold, ascending.
        seconds: wall time of each stage of this run.
        output: directory of everything.
    """

    fragments: int
    edges: int
    segmentations: tuple[Segmentation, ...]
    seconds: Mapping[str, float]
    output: Path

    def summary(self) -> str:
        """Return some lines for the terminal."""
        stages = ", ".join(f"{name} {format_seconds(seconds)}" for name, seconds in self.seconds.items())
        lines = [f"segment: {self.fragments:,} fragments, {self.edges:,} pairs of them touch; {stages}"]
        lines += [f"  {s.path}: {s.segments:,} segments" for s in self.segmentations]
        return "\n".join(lines)


def segment(options: SegmentOptions, *, num_workers: int, progress: bool = True) -> SegmentReport:
    """Make fragments, their region graph, and a segmentation for each threshold.

    Raises:
        ConfigError: settings that make no sense.
        DataError: affinities or fragments that cannot be used, or an output of other settings.
        FailedBlocksError: blocks that could not be done.
    """
    scoring = parse_scoring(options.scoring)
    thresholds = check_thresholds(options.thresholds)
    if len({_name(scoring, t) for t in thresholds}) < len(thresholds):
        raise ConfigError(
            explain("threshold", thresholds, "numbers that differ in six digits", "Leave some of them out")
        )
    if options.mask is not None and options.own_fragments is not None:
        todo = "Leave it out, and set the fragments to 0 outside it"
        raise ConfigError(explain("mask", options.mask, "only where fragments are made here", todo))
    if num_workers < 1:
        raise ConfigError(explain("num_workers", num_workers, "1 or more", "Use the number of cores"))
    affinities = open_affinities(f"{options.file.expanduser()}/{options.dataset.strip('/')}", options.offsets)
    if options.fragments.per_section and not affinities.connects_sections:
        affinities = affinities.by_section()
    _ = affinities.nearest
    graph = _graph(options, scoring)
    clock = _Clock()
    with _sole_command(options.output), ExitStack() as stack:
        with clock("fragments"):
            fragments, unwritten = _fragments(options, affinities, graph, num_workers, progress)
            if unwritten is not None:
                stack.enter_context(unwritten.sole_command())
                unwritten.number(num_workers, progress)
        with clock("edges"):
            if unwritten is not None:
                unwritten.collect(num_workers, progress)
            else:
                write_edges(
                    affinities,
                    fragments,
                    graph,
                    num_workers=num_workers,
                    progress=progress,
                    block_shape=options.block_shape,
                )
        results = [_Result(options, scoring, t, affinities, fragments) for t in thresholds]
        with clock("agglomeration"):
            _agglomerate(results, graph.store, scoring, options.rules)
        with clock("writing"):
            _write(results, fragments, unwritten, num_workers, progress)
        graph.store.database.disconnect()
    counts = [result.target.table.counts() for result in results]
    made = (
        Segmentation(result.threshold, segments, Path(result.target.volume.path))
        for result, (_, _, segments) in zip(results, counts, strict=True)
    )
    return SegmentReport(counts[0][0], counts[0][1], tuple(made), clock.seconds, options.output)


def _name(scoring: Scoring, threshold: float) -> str:
    return f"{scoring.name}_{threshold:g}"


class _Clock:
    """Measures stages."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.seconds[stage] = time.monotonic() - began


@contextmanager
def _sole_command(output: Path) -> Iterator[None]:
    """Keep other commands away from an output's tables, which no stage's lock guards.

    Raises:
        DataError: another command works on the output.
    """
    path = output / ".segment.lock"
    with held(path):
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _fragments(
    options: SegmentOptions, affinities: AffinityMap, graph: GraphTarget, num_workers: int, progress: bool
) -> tuple[Volume, FragmentStage | None]:
    """Return the fragments; and, where the graph comes before their last pass, the passes that make them."""
    if options.own_fragments is not None:
        return placed_like(open_volume(options.own_fragments, quiet=True), affinities.volume), None
    stage = prepare_fragments(
        affinities,
        options.output / "fragments",
        options.fragments,
        mask=None if options.mask is None else open_volume(options.mask),
        block_shape=options.block_shape,
        chunk_shape=options.chunk_shape,
        graph=graph,
    )
    if stage.graph is not None and not stage.is_finished():
        return stage.output, stage
    stage.run(num_workers, progress)
    return stage.output, None


def _edge_settings(options: SegmentOptions, scoring: Scoring) -> EdgeSettings:
    return EdgeSettings(histograms=scoring.needs_histograms, long_range=options.long_range)


def _edge_name(settings: EdgeSettings) -> str:
    """Return a name for each kind of region graph, so that a scoring that needs more finds room for it."""
    named = (("_long_range", settings.long_range), ("_histograms", settings.histograms))
    return "edges" + "".join(name for name, wanted in named if wanted)


def _graph(options: SegmentOptions, scoring: Scoring) -> GraphTarget:
    settings = _edge_settings(options, scoring)
    name = _edge_name(settings)
    location = options.output / f"{name}.sqlite" if options.edge_store is None else options.edge_store
    store = open_edge_store(location, str((options.output / name).absolute()))
    return GraphTarget(store, options.output / f".{name}.incasem", settings)


class _Result:
    """The segmentation of one threshold: its look-up table, its volume, and the job that writes it."""

    def __init__(
        self,
        options: SegmentOptions,
        scoring: Scoring,
        threshold: float,
        affinities: AffinityMap,
        fragments: Volume,
    ) -> None:
        """Create the volume.

        Raises:
            DataError: it exists and belongs to other settings or inputs.
        """
        self.threshold = threshold
        rules = options.rules
        self.identity: dict[str, Any] = {
            **affinities.identity(),
            "fragments": fragments.fingerprint(),
            "scoring": scoring.name,
            "threshold": threshold,
            "long_range": options.long_range,
            "min_size": rules.min_size,
            "join_affinity": rules.join_affinity if rules.min_size else None,
            "dust": rules.dust,
        }
        name = _name(scoring, threshold)
        path = str(options.output / "segmentation" / name)
        self.target = Target(
            LookUp(options.output / "lookup" / name),
            create_segmentation(path, fragments, options.chunk_shape),
        )
        self.job = relabel_job(fragments, self.target, self.identity, options.block_shape)
        self.is_written()  # refuses what other settings made, before the long work

    @property
    def needs_table(self) -> bool:
        """Whether the table is still to be made."""
        return not self.target.table.belongs_to(self.identity)

    def is_written(self) -> bool:
        """Return whether the segmentation is there."""
        return is_finished_and_clean(self.job, self.target.volume)


def _agglomerate(results: Sequence[_Result], store: EdgeStore, scoring: Scoring, rules: SizeRules) -> None:
    """Make the look-up tables that are missing."""
    wanted = [result for result in results if result.needs_table]
    if not wanted:
        return
    found = agglomerate(
        store.edges(), store.fragments(), scoring, [result.threshold for result in wanted], rules
    )
    for result, segments in zip(wanted, found.segments, strict=True):
        result.target.table.write(found.fragments, segments, found.edges, result.identity)


def _write(
    results: Sequence[_Result],
    fragments: Volume,
    unwritten: FragmentStage | None,
    num_workers: int,
    progress: bool,
) -> None:
    """Write the segmentations that are missing in one pass, and in the same one the fragments if they are."""
    left = [result for result in results if not result.is_written()]
    parts = [(result.job, result.target.volume) for result in left]
    targets = [result.target for result in left]
    if unwritten is not None:
        parts = [(unwritten.write_job(), fragments), *parts]
        start = partial(start_writing, unwritten.folder, fragments, targets)
        run_together("write", parts, start, num_workers, progress)
    elif parts:
        run_together("relabel", parts, partial(start_relabelling, fragments, targets), num_workers, progress)
