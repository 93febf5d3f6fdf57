"""A small map of a job's blocks: where the time went, what was left out, what failed."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from incasem.blockwise import FAILED, SKIPPED, BlockRecord, format_seconds
from incasem.evaluation.report_pictures import Diagram, figure, figure_png
from incasem.geometry import format_roi

_SKIPPED_COLOUR, _FAILED_COLOUR, _UNKNOWN_COLOUR = "#b8bec6", "#D55E00", "#e9ecef"
_SLOWEST = 8


def block_map(record: BlockRecord, caption: str = "") -> Diagram:
    """Return the blocks seen along z and along y, coloured by their mean work.

    A block that failed shows through all others; one is shown as left out where all behind it are.

    Args:
        record: of a job with blocks in z, y, x.
        caption: under the picture.
    """
    made = figure(5.6, 3.3)
    layout = made.add_gridspec(1, 2, width_ratios=[1, 1])
    means = [_mean_seconds(record, axis) for axis in range(2)]
    highest = max((float(m[np.isfinite(m)].max()) for m in means if np.isfinite(m).any()), default=1.0)
    picture = None
    for axis, labels in enumerate((("y", "x"), ("z", "x"))):
        axes = made.add_subplot(layout[0, axis])
        picture = _draw(axes, record, axis, means[axis], highest) or picture
        axes.set_title(f"seen along {'zy'[axis]}", fontsize=10, loc="left")
        axes.set_ylabel(f"{labels[0]} (blocks)")
        axes.set_xlabel(f"{labels[1]} (blocks)")
    if picture is not None:
        made.colorbar(picture, ax=made.axes, label="work of a block (s)", shrink=0.85)
    _add_legend(made, record)
    return Diagram("Time of each block", figure_png(made, 160), caption)


def slowest_blocks(record: BlockRecord) -> dict[str, str]:
    """Return the slowest blocks for a table: place → work and its stages."""
    rows = {}
    for block, stages in record.slowest(_SLOWEST):
        reading, computing, writing = (_seconds(float(s)) for s in stages)
        rows[f"block {block.index}, {format_roi(block.write_roi)} voxels"] = (
            f"{_seconds(float(stages.sum()))}: read {reading}, compute {computing}, write {writing}"
        )
    return rows


def _seconds(seconds: float) -> str:
    return format_seconds(seconds) if seconds >= 10 else f"{seconds:.2f} s"


def failed_blocks(record: BlockRecord, most: int = 20) -> dict[str, str]:
    """Return the blocks that were not done, for a table."""
    indices = np.flatnonzero(record.state == FAILED)
    rows = {f"block {i}": f"{format_roi(record.grid.write_roi(int(i)))} voxels" for i in indices[:most]}
    if len(indices) > most:
        rows["and"] = f"{len(indices) - most} more"
    return rows


def _mean_seconds(record: BlockRecord, axis: int) -> NDArray[np.float64]:
    """Return the mean work of the blocks behind one another along ``axis``; NaN where none is known."""
    totals = record.totals
    counts = np.isfinite(totals).sum(axis=axis)
    return np.where(counts > 0, np.nansum(totals, axis=axis) / np.maximum(counts, 1), np.nan)


def _draw(axes: Any, record: BlockRecord, axis: int, mean: NDArray[np.float64], highest: float) -> Any:
    """Draw one projection; return its picture if any time is known."""
    from matplotlib.colors import ListedColormap
    from matplotlib.ticker import MaxNLocator

    skipped = (record.state == SKIPPED).all(axis=axis)
    failed = (record.state == FAILED).any(axis=axis)
    axes.set_facecolor(_UNKNOWN_COLOUR)
    picture = None
    if np.isfinite(mean).any():
        picture = axes.imshow(mean, cmap="viridis", vmin=0, vmax=highest, interpolation="nearest")
    for which, colour in ((skipped, _SKIPPED_COLOUR), (failed, _FAILED_COLOUR)):
        _cover(axes, which, ListedColormap([colour]))
    axes.set_xlim(-0.5, mean.shape[1] - 0.5)
    axes.set_ylim(mean.shape[0] - 0.5, -0.5)
    axes.set_aspect("equal" if 0.2 < mean.shape[0] / mean.shape[1] < 5 else "auto")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True, min_n_ticks=1))
    flat = mean.shape[0] < 0.5 * mean.shape[1]
    axes.yaxis.set_major_locator(MaxNLocator(nbins=2 if flat else 5, integer=True, min_n_ticks=1))
    return picture


def _cover(axes: Any, which: NDArray[np.bool_], colours: Any) -> None:
    if which.any():
        axes.imshow(np.where(which, 1.0, np.nan), cmap=colours, interpolation="nearest")


def _add_legend(made: Any, record: BlockRecord) -> None:
    from matplotlib.patches import Patch

    there = (
        ("left out (mask)", _SKIPPED_COLOUR, (record.state == SKIPPED).any()),
        ("failed", _FAILED_COLOUR, (record.state == FAILED).any()),
    )
    patches = [Patch(facecolor=colour, label=name) for name, colour, shown in there if shown]
    if patches:
        made.legend(handles=patches, loc="outside lower center", ncols=2, frameon=False, fontsize=8)
