"""The times of a prediction's blocks, kept until its page is written.

A job forgets them when it is done. A run that is killed later, while it takes scores, is gone on with by a
command that finds nothing left to predict, and its page shall say all the same where the time went.
"""

import contextlib
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from incasem.blockwise import DONE, RESUMED, BlockRecord, Grid
from incasem.durable import write_durably
from incasem.errors import DataError
from incasem.geometry import Coordinate, Roi
from incasem.prediction import EntryPrediction

__all__ = ["BlockTimes"]


class BlockTimes:
    """One file for each predicted region, in a folder of the report."""

    def __init__(self, report: Path) -> None:
        """``report``: the folder of the page; it is made when there is something to keep."""
        self.folder = report / "block_times"

    def kept(self, prediction: EntryPrediction, iteration: int | None = None) -> EntryPrediction:
        """Keep the times of a region, or give it back those that an earlier command has kept.

        A full disk costs the times, not the prediction.

        Args:
            prediction: the region.
            iteration: of its checkpoint, where several ones predict it.
        """
        series = "" if iteration is None else f"iteration_{iteration:06d}_"
        path = self.folder / f"{series}{prediction.entry.nickname.replace('/', '_')}.npz"
        record = prediction.report.blocks
        if record is None:
            return replace(prediction, report=replace(prediction.report, blocks=_read(path, prediction)))
        with contextlib.suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_durably(path, lambda file: np.savez_compressed(file, **_arrays(record)))
        return prediction

    def forget(self) -> None:
        """Remove what was kept."""
        with contextlib.suppress(OSError):
            for path in self.folder.glob("*.npz"):
                path.unlink()
            self.folder.rmdir()


def _arrays(record: BlockRecord) -> dict[str, Any]:
    grid = record.grid
    places = (grid.total_roi.begin, grid.total_roi.shape, grid.block_shape, grid.context)
    return {"grid": np.array(places, np.int64), "state": record.state, "seconds": record.seconds}


def _read(path: Path, prediction: EntryPrediction) -> BlockRecord | None:
    """Return what was kept of a region; None where nothing was, or it is of another region or damaged."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            begin, shape, block, context = (Coordinate(map(int, row)) for row in kept["grid"])
            state, seconds = kept["state"], kept["seconds"]
        grid = Grid(Roi(begin, shape), block, context)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, DataError):
        return None
    if grid.total_roi != prediction.roi_voxels or state.shape != grid.shape:
        return None
    return BlockRecord(grid, np.where(state == DONE, RESUMED, state).astype(np.uint8), seconds)
