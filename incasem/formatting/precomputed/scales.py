"""The images: the labels as they are, and scale after scale half as fine.

Each scale is a stage of its own. The first one also counts the voxels of each label, block by block.
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from incasem.blockwise import Block, BlockFunction, Grid, Job, JobReport, default_block_shape, run_stage
from incasem.durable import write_durably
from incasem.errors import DataError, explain
from incasem.formatting._downscale import Factor, finer_roi, merge_windows
from incasem.formatting._folder import STATE, Folder
from incasem.formatting.precomputed.layout import (
    CHUNK,
    Layout,
    Scale,
    open_scale,
    read_scale,
    roi_of,
    unit_of,
    write_scale,
)
from incasem.geometry import Coordinate, Roi
from incasem.volumes import Volume

_BLOCK_VOXELS = 160**3
COUNT = np.dtype([("id", "<u8"), ("voxels", "<u8")])


def write_scales(layout: Layout, num_workers: int, progress: bool) -> list[tuple[str, JobReport]]:
    """Fill all scales, continuing an interrupted run; return name and report of each.

    Raises:
        DataError: the folder was made of other labels.
        FailedBlocksError: blocks that could not be done (negative labels), with the reason of each.
    """
    reports = []
    for scale in layout.scales:
        job, output = prepare_scale(layout, scale)
        reports.append((scale.key, run_stage(job, output, num_workers, progress)))
    return reports


def prepare_scale(layout: Layout, scale: Scale) -> tuple[Job, Folder]:
    """Return the job that fills a scale from the labels, or from the next finer scale."""
    output = Folder(layout.root / scale.key)
    array = open_scale(layout.root, scale.index)
    block = default_block_shape(unit_of(array), _BLOCK_VOXELS, volume_shape=scale.roi.shape)
    if scale.index == 0:
        counts = counts_folder(layout)
        counts.mkdir(parents=True, exist_ok=True)
        start = partial(_start_copy, layout.source, layout.root, counts)
    else:
        start = partial(
            _start_merge, layout.root, scale.index, layout.step_from(layout.scales[scale.index - 1])
        )
    job = Job(
        name=f"scale {scale.key}",
        grid=Grid(scale.roi, block),
        start_worker=start,
        identity={"source": layout.source.fingerprint(), "factor": list(scale.factor)},
        state_dir=output.state / "job",
    )
    return job, output


def counts_folder(layout: Layout) -> Path:
    """Return where the voxels of each label are counted, a file for each block."""
    return layout.root / layout.scales[0].key / STATE / "counts"


def segments(layout: Layout) -> NDArray[Any]:
    """Return id and voxels of all labels but 0, by id: structured (`COUNT`). Memory: 16 bytes a label."""
    file = counts_folder(layout) / "all.npy"
    if not file.exists():
        parts = sorted(counts_folder(layout).glob("block_*.npy"))
        total = np.zeros(0, COUNT)
        waiting: list[NDArray[Any]] = []
        for k, part in enumerate(parts):
            waiting.append(np.load(part))
            if sum(map(len, waiting)) > max(len(total), 2**20) or k == len(parts) - 1:
                total, waiting = _summed([total, *waiting]), []
        write_durably(file, partial(np.save, arr=total))
        for part in parts:
            part.unlink()
    return np.load(file)


def _summed(counts: list[NDArray[Any]]) -> NDArray[Any]:
    together = np.concatenate(counts)
    ids, inverse = np.unique(together["id"], return_inverse=True)
    result = np.zeros(len(ids), COUNT)
    result["id"] = ids
    np.add.at(result["voxels"], inverse, together["voxels"])
    return result


def _start_copy(source: Volume, root: Path, counts: Path) -> BlockFunction:
    return partial(_copy_block, source, open_scale(root, 0), counts)


def _copy_block(source: Volume, array: Any, counts: Path, block: Block) -> None:
    labels_ZYX = as_ids(source.read_voxels(block.write_roi), array.dtype.numpy_dtype, source.path)
    write_scale(array, block.write_roi, labels_ZYX)
    ids, voxels = np.unique(labels_ZYX, return_counts=True)
    table = np.zeros(np.count_nonzero(ids), COUNT)
    table["id"], table["voxels"] = ids[ids > 0], voxels[ids > 0]
    write_durably(counts / f"block_{block.index:08d}.npy", partial(np.save, arr=table))


def as_ids(labels: NDArray[Any], dtype: np.dtype[Any], name: str) -> NDArray[Any]:
    """Return labels as unsigned integers.

    Raises:
        DataError: a label is negative.
    """
    if labels.dtype.kind == "i" and labels.size and labels.min() < 0:
        raise DataError(
            explain(
                f"a label of {name}", int(labels.min()), "0 (background) and above", "Renumber the labels"
            )
        )
    return labels.astype(dtype, copy=False)


def _start_merge(root: Path, index: int, step: Factor) -> BlockFunction:
    return partial(_merge_block, open_scale(root, index - 1), open_scale(root, index), step)


def _merge_block(finer: Any, array: Any, step: Factor, block: Block) -> None:
    """Fill a block, whose finer voxels would be many gigabytes where it is a shard, piece by piece."""
    labels_ZYX = np.empty(block.write_roi.shape, array.dtype.numpy_dtype)
    for piece in Grid(block.write_roi, Coordinate([CHUNK] * 3)).blocks():
        inside = (piece.write_roi - block.write_roi.begin).to_slices()
        labels_ZYX[inside] = _merged(finer, piece.write_roi, step)
    write_scale(array, block.write_roi, labels_ZYX)


def _merged(finer: Any, roi: Roi, step: Factor) -> NDArray[Any]:
    """Return the labels of a region of a scale, of the next finer one."""
    wanted, whole = finer_roi(roi, step), roi_of(finer)
    known = wanted.intersect(whole)
    missing = [
        (int(k - w), int(we - ke))
        for w, k, we, ke in zip(wanted.begin, known.begin, wanted.end, known.end, strict=True)
    ]
    return merge_windows(read_scale(finer, known), missing, step, "majority")
