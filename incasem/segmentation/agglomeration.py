"""Hierarchical agglomeration of a region graph: which fragments form one segment at each threshold.

In memory, about 250 bytes an edge (and some 30 a bin of a histogram). Equal to waterz but for ties and the
rounding of its means, which are float32; here the order is by score, then by ids, and scores come from whole
numbers.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from incasem.errors import ConfigError, DataError, explain
from incasem.segmentation._merging import MAX, MEAN, QUANTILE, agglomerate_edges
from incasem.segmentation.region_graph import EdgeTable, FragmentTable, summed_edges, summed_fragments
from incasem.segmentation.scoring import Scoring

__all__ = ["Agglomeration", "SizeRules", "agglomerate", "check_thresholds"]


@dataclass(frozen=True)
class SizeRules:
    """What becomes of small segments after the agglomeration; the rules of zwatershed.

    Attributes:
        min_size: a segment of fewer voxels joins its neighbours, the best one first; 0: none does.
        join_affinity: the lowest affinity (0 to 1, as scored) at which it does.
        dust: what then still has fewer voxels becomes background; 0: nothing does.

    Raises:
        ConfigError: negative sizes, an affinity outside 0 to 1.
    """

    min_size: int = 0
    join_affinity: float = 0.2
    dust: int = 0

    def __post_init__(self) -> None:
        """Check the values."""
        for name, value in (("min_size", self.min_size), ("dust", self.dust)):
            if value < 0:
                raise ConfigError(explain(name, value, "0 or more voxels", "Correct it"))
        if not 0 <= self.join_affinity <= 1:
            raise ConfigError(
                explain("join_affinity", self.join_affinity, "0 to 1", "Affinities are between 0 and 1")
            )


@dataclass(frozen=True)
class Agglomeration:
    """Segments of all fragments.

    Attributes:
        fragments: 0, and then all ids, ascending.
        segments: one row a threshold; the segment of each fragment: the smallest id of its fragments, 0 for
            background and dust.
        edges: pairs of touching fragments.
    """

    fragments: NDArray[np.uint64]
    segments: NDArray[np.uint64]
    edges: int

    def count(self, threshold: int) -> int:
        """Return the number of segments at a threshold, by its position."""
        return int(np.count_nonzero(np.unique(self.segments[threshold])))


def check_thresholds(thresholds: Sequence[float]) -> list[float]:
    """Return thresholds in ascending order.

    Raises:
        ConfigError: none, one outside 0 to 1, or one twice.
    """
    found = sorted(float(t) for t in thresholds)
    wrong = [t for t in found if not 0 <= t <= 1]
    if not found or wrong or len(set(found)) < len(found):
        raise ConfigError(
            explain(
                "threshold",
                " ".join(f"{t:g}" for t in thresholds) or "missing",
                "different numbers from 0 (merges nothing) to 1 (merges most), scores as in waterz",
                "Correct it",
            )
        )
    return found


def agglomerate(
    edges: Iterable[EdgeTable],
    fragments: Iterable[FragmentTable],
    scoring: Scoring,
    thresholds: Sequence[float],
    rules: SizeRules | None = None,
) -> Agglomeration:
    """Merge fragments, surest pair first, until no score is below the threshold; for several of them.

    Args:
        edges: parts of the region graph.
        fragments: parts of the list of all fragments.
        scoring: what a pair's score is.
        thresholds: as `check_thresholds` returns them; scores are 1 - affinity, a larger one merges more.
        rules: for small segments; None leaves them.

    Raises:
        DataError: an edge of a fragment that is not listed, or histograms are missing.
    """
    rules = rules or SizeRules()
    nodes, graph = summed_fragments(fragments), summed_edges(edges)
    touching = np.flatnonzero(graph.contact > 0)
    place = np.empty((touching.size, 2), np.int64)
    for side, ids in enumerate((graph.u, graph.v)):
        place[:, side] = _positions(nodes.ids, ids[touching])
    statistics = (graph.count[touching], graph.total[touching], graph.highest[touching])
    kind = {"mean": MEAN, "max": MAX, "quantile": QUANTILE}[scoring.kind]
    found = agglomerate_edges(
        len(nodes),
        place.ravel(),
        statistics,
        _histograms(graph, touching, scoring),
        kind,
        scoring.quantile,
        np.array(thresholds, np.float64),
        nodes.voxels,
        rules.min_size,
        1 - rules.join_affinity,
    )
    segments = np.zeros((len(thresholds), len(nodes) + 1), np.uint64)
    for row, region in zip(segments, found, strict=True):
        sizes = np.bincount(region, nodes.voxels, minlength=len(nodes))
        row[1:] = np.where(sizes[region] < rules.dust, np.uint64(0), nodes.ids[region])
    ids = np.concatenate([np.zeros(1, np.uint64), nodes.ids])
    return Agglomeration(ids, segments, int(touching.size))


def _positions(ids: NDArray[np.uint64], wanted: NDArray[np.uint64]) -> NDArray[np.int64]:
    positions = np.searchsorted(ids, wanted)
    missing = wanted[(positions == ids.size) | (ids[np.minimum(positions, ids.size - 1)] != wanted)]
    if missing.size:
        raise DataError(
            explain("a fragment of the region graph", missing[0], "one that is listed", "Make the graph anew")
        )
    return positions


def _histograms(graph: EdgeTable, touching: NDArray[np.int64], scoring: Scoring) -> Any:
    """Return first bins, numbers of bins, bins, how often each, and how many there are; see `_merging`."""
    if scoring.kind != "quantile":
        return _no_values(), _no_values(), np.zeros(0, np.uint8), _no_values(), 0
    if scoring.of_maxima:
        ones = np.ones(touching.size, np.int64)
        return np.arange(touching.size), ones, graph.highest[touching], ones.copy(), touching.size
    length = np.diff(graph.first_bin)[touching]
    if (length == 0).any():
        raise DataError(
            f"the region graph has no histograms, which the scoring {scoring.name} needs. Make it anew."
        )
    return graph.first_bin[touching], length, graph.bins, graph.bin_counts, graph.bins.size


def _no_values() -> NDArray[np.int64]:
    return np.zeros(0, np.int64)
