"""How two partitions of a volume agree: variation of information and adapted Rand error, block by block.

Both come from the contingency table, the number of voxels that a segment and a true object share. It is
sparse, since a segment meets few objects, and it adds up over blocks to that of the whole volume exactly.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from incasem.compiled import compiled
from incasem.errors import DataError, explain
from incasem.metrics.overlap import check_shapes

Array = npt.NDArray[Any]
Ids = npt.NDArray[np.uint64]

_SLICE_VOXELS = 1 << 16
_LEAST_SLOTS = 1 << 18
_ONE = np.ones(1, np.int64)


@dataclass(frozen=True)
class PartitionScores:
    """The agreement of a segmentation with the truth over all counted voxels.

    ``voi_split`` = H(segmentation | truth) grows with each true object cut into pieces, ``voi_merge`` =
    H(truth | segmentation) with each segment that covers several objects; in bits, 0 is perfect (Meilă,
    Journal of Multivariate Analysis 98, 2007). ``adapted_rand_error`` = 1 - the harmonic mean of
    ``rand_precision`` and ``rand_recall``, the shares of voxel pairs of one segment that are of one object,
    and the other way round (Arganda-Carreras et al., Frontiers in Neuroanatomy 9, 2015).
    ``adapted_rand_snemi`` is the error as the SNEMI3D challenge and PyTorch Connectomics count it: segment
    0 is no segment, each of its voxels stands alone, and a voxel makes a pair with itself. (Their code
    divides the pairs of lone voxels by the number of voxels; with few of them the error is the same.)
    """

    voi_split: float
    voi_merge: float
    adapted_rand_error: float
    rand_precision: float
    rand_recall: float
    adapted_rand_snemi: float
    voxels: int

    @property
    def voi(self) -> float:
        """The sum of both conditional entropies, in bits."""
        return self.voi_split + self.voi_merge


class PartitionAccumulator:
    """Contingency table of a segmentation against the truth over any number of blocks.

    Args:
        ignored_truth: id of the truth whose voxels do not count; None: all of them count. Segment 0 is a
            segment like all others.
    """

    def __init__(self, ignored_truth: int | None = 0) -> None:
        self._ignored = ignored_truth
        self._clear(_LEAST_SLOTS)

    def _clear(self, slots: int) -> None:
        self._segments = np.zeros(slots, np.uint64)
        self._objects = np.zeros(slots, np.uint64)
        self._counts = np.zeros(slots, np.int64)
        self._used = 0

    @property
    def voxels(self) -> int:
        """Number of voxels counted so far."""
        return int(self._counts.sum())

    def add(self, segmentation: Array, truth: Array, mask: Array | None = None) -> None:
        """Count one block.

        Args:
            segmentation: id of each voxel, any shape, integers of at least 0.
            truth: the same, same shape.
            mask: voxels that count (nonzero), same shape; all of them if None.

        Raises:
            DataError: shapes differ, the type is not an integer, or an id is negative. The block is then
                not counted.
        """
        segmentation, truth = np.asarray(segmentation), np.asarray(truth)
        arrays = {"segmentation": segmentation, "truth": truth}
        check_shapes(arrays | ({} if mask is None else {"mask": np.asarray(mask)}), truth)
        for name, ids in arrays.items():
            _check_ids(name, ids)
        counted = None if mask is None else np.asarray(mask).reshape(-1) != 0
        segments, objects = segmentation.reshape(-1), truth.reshape(-1)
        for begin in range(0, objects.size, _SLICE_VOXELS):
            part = slice(begin, begin + _SLICE_VOXELS)
            s, o = segments[part].astype(np.uint64), objects[part].astype(np.uint64)
            keep = None if counted is None else counted[part]
            if self._ignored is not None:
                labelled = o != self._ignored
                keep = labelled if keep is None else keep & labelled
            if keep is not None and not keep.all():
                s, o = s[keep], o[keep]
            self._insert(s, o, _ONE)

    def merge(self, other: "PartitionAccumulator") -> None:
        """Add the counts of ``other``, for instance those of another worker.

        Raises:
            DataError: ``other`` ignores another id.
        """
        if other._ignored != self._ignored:
            raise DataError(
                explain(
                    "the ignored id of the merged scores", other._ignored, f"{self._ignored}, as here",
                    "Merge scores of one kind only",
                )
            )  # fmt: skip
        self._insert(*other.table())

    def add_table(self, segments: Ids, objects: Ids, counts: npt.NDArray[np.int64]) -> None:
        """Add what `table` of another accumulator with the same ``ignored_truth`` returned."""
        self._insert(segments, objects, counts)

    def _insert(self, segments: Ids, objects: Ids, counts: npt.NDArray[np.int64]) -> None:
        # Half of the slots stay free, so that a search ends soon.
        if 2 * (self._used + segments.size) > self._counts.size:
            old = self.table()
            self._clear(1 << math.ceil(math.log2(4 * (old[0].size + segments.size))))
            self._used = _count(*old, self._segments, self._objects, self._counts, 0)
        self._used = _count(
            segments, objects, counts, self._segments, self._objects, self._counts, self._used
        )

    def table(self) -> tuple[Ids, Ids, npt.NDArray[np.int64]]:
        """Return segment, true object and number of voxels of each pair that meets, in order of the ids."""
        filled = np.flatnonzero(self._counts)
        order = filled[np.lexsort((self._objects[filled], self._segments[filled]))]
        return self._segments[order], self._objects[order], self._counts[order]

    def scores(self) -> PartitionScores:
        """Return the scores over everything counted so far.

        Raises:
            DataError: no voxel was counted.
        """
        segments, objects, shared = self.table()
        total = int(shared.sum())
        if total == 0:
            raise DataError(
                "no voxel of the truth is labelled, so there is nothing to score. Score a labelled region."
            )
        of_segment, in_segment = _marginal(segments, shared)
        of_object, in_object = _marginal(objects, shared)
        share = shared / total
        split = -float(np.sum(share * np.log2(shared / in_object)))
        merge = -float(np.sum(share * np.log2(shared / in_segment)))
        both = _pairs(shared)
        precision, recall = (_ratio(both, _pairs(sizes)) for sizes in (of_segment, of_object))
        error = 1 - _ratio(2 * both, _pairs(of_segment) + _pairs(of_object))
        snemi = _snemi_error(segments, shared, of_object)
        return PartitionScores(split + 0.0, merge + 0.0, error, precision, recall, snemi, total)


def _check_ids(name: str, ids: Array) -> None:
    if ids.dtype.kind not in "bui":
        raise DataError(
            explain(f"type of the {name}", ids.dtype, "integers (ids)", "Convert it to integers without loss")
        )
    if ids.dtype.kind == "i" and ids.size and int(ids.min()) < 0:
        raise DataError(explain(f"an id in the {name}", int(ids.min()), "0 or more", "Relabel it"))


def _marginal(ids: Ids, shared: npt.NDArray[np.int64]) -> tuple[Array, Array]:
    """Return the voxels of each id, and of the id of each pair."""
    _, position = np.unique(ids, return_inverse=True)
    sizes = np.zeros(int(position.max()) + 1, np.int64)
    np.add.at(sizes, position, shared)
    return sizes, sizes[position]


def _snemi_error(segments: Ids, shared: npt.NDArray[np.int64], of_object: Array) -> float:
    """Return the adapted Rand error with the voxels of segment 0 as segments of their own."""
    alone = float(shared[segments == 0].sum())
    real = segments != 0
    of_segment = _marginal(segments[real], shared[real])[0] if real.any() else np.zeros(0)
    both = float(np.sum(shared[real] * 1.0 * shared[real])) + alone
    in_segments = float(np.sum(of_segment * 1.0 * of_segment)) + alone
    in_objects = float(np.sum(of_object * 1.0 * of_object))
    return 1 - 2 * both / (in_segments + in_objects)


def _pairs(sizes: npt.NDArray[np.int64]) -> float:
    """Return the ordered pairs of different voxels within sets of these sizes; beyond int64 in a terabyte."""
    return float(np.sum(sizes * (sizes - 1.0)))


def _ratio(part: float, whole: float) -> float:
    """Return part / whole; 1 where there is no pair that could be wrong."""
    return part / whole if whole else 1.0


@compiled
def _count(
    segments: Ids,
    objects: Ids,
    counts: npt.NDArray[np.int64],
    table_segments: Ids,
    table_objects: Ids,
    table_counts: npt.NDArray[np.int64],
    used: int,
) -> int:
    """Add pairs to a hash table with open addressing; return how many of its slots are in use.

    Args:
        segments: of each voxel or pair.
        objects: of the same.
        counts: of the same, or one count for all of them.
        table_segments: of each slot; the slots are a power of two, and there are enough of them.
        table_objects: of each slot.
        table_counts: of each slot; 0 is a free one.
        used: slots in use.
    """
    last = np.uint64(table_counts.size - 1)
    slot = np.uint64(0)
    for i in range(segments.size):
        segment, other = segments[i], objects[i]
        # Neighbours mostly are of one pair: the slot before is the first to try.
        if table_counts[slot] == 0 or table_segments[slot] != segment or table_objects[slot] != other:
            mixed = segment * np.uint64(0x9E3779B97F4A7C15) ^ other * np.uint64(0xC2B2AE3D27D4EB4F)
            slot = (mixed ^ (mixed >> np.uint64(29))) & last
            while table_counts[slot] and (table_segments[slot] != segment or table_objects[slot] != other):
                slot = (slot + np.uint64(1)) & last
            if table_counts[slot] == 0:
                table_segments[slot], table_objects[slot] = segment, other
                used += 1
        table_counts[slot] += counts[i] if counts.size > 1 else counts[0]
    return used
