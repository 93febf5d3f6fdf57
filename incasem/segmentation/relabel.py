"""Segmentations of a volume: each fragment's id replaced by that of its segment, in one pass for all of them.

A segment is called by the smallest id of its fragments. So it has the same id at all thresholds until it is
merged into another one, the ids say which fragment to look at, and fragments of any origin keep ids that
cannot meet. They are uint64 always, as fragments are: ids of large or foreign fragments do not fit into less,
nothing that reads a segmentation needs two cases, and zeros compress to nothing.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from incasem.blockwise import Block, BlockFunction, Grid, Job, default_block_shape
from incasem.durable import sync, write_durably
from incasem.errors import DataError, explain
from incasem.geometry import Coordinate, format_roi
from incasem.segmentation._tables import look_up
from incasem.segmentation.fragment_ids import read_ids
from incasem.volumes import Volume, create_volume, exists, open_volume

__all__ = ["LookUp", "Target", "create_segmentation", "relabel", "relabel_job", "start_relabelling"]

JOB = "relabel"
_ABOUT = "about.json"


class LookUp:
    """A table of fragments and their segments in a folder; picklable, read when it is used.

    It stays after the segmentation is written, for whoever wants to merge or split further.
    """

    def __init__(self, folder: Path) -> None:
        """Name the folder; there may be nothing yet."""
        self.folder = Path(folder)

    def _about(self) -> Mapping[str, Any]:
        try:
            about = json.loads((self.folder / _ABOUT).read_text())
        except (OSError, ValueError):
            return {}
        return about if isinstance(about, dict) else {}

    def belongs_to(self, identity: Mapping[str, object]) -> bool:
        """Return whether the table is there, whole, and what these settings and inputs give."""
        return bool(self._about().get("identity") == json.loads(json.dumps(dict(identity))))

    def write(
        self,
        fragments: NDArray[np.uint64],
        segments: NDArray[np.uint64],
        edges: int,
        identity: Mapping[str, object],
    ) -> None:
        """Store the table, durably; what identifies it is written last.

        Args:
            fragments: 0 and all ids, ascending.
            segments: of each.
            edges: pairs of touching fragments, for reports.
            identity: settings and inputs.

        Raises:
            DataError: it cannot be written.
        """
        try:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
            for name, array in (("fragments", fragments), ("segments", segments)):
                with (self.folder / f"{name}.npy").open("wb") as file:
                    np.save(file, array, allow_pickle=False)
                sync(self.folder / f"{name}.npy")
            about = {"edges": edges, "identity": dict(identity)}
            write_durably(self.folder / _ABOUT, json.dumps(about, indent=1).encode())
        except OSError as error:
            raise DataError(
                f"the look-up table {self.folder} cannot be written ({error.strerror}). Check its "
                "permissions and the free space, and run the same command again."
            ) from error

    def read(self) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """Return fragments and segments, mapped into memory, so that workers share them."""
        fragments, segments = (
            np.load(self.folder / f"{name}.npy", mmap_mode="r") for name in ("fragments", "segments")
        )
        return fragments, segments

    def counts(self) -> tuple[int, int, int]:
        """Return the numbers of fragments, of pairs of touching ones, and of segments."""
        fragments, segments = self.read()
        edges = int(self._about().get("edges", 0))
        return fragments.size - 1, edges, int(np.count_nonzero(np.unique(segments)))


def create_segmentation(path: str, fragments: Volume, chunk_shape: Sequence[int] = (128, 128, 128)) -> Volume:
    """Create the output of `relabel_job`, or open the one that an earlier run began.

    Args:
        path: container and dataset.
        fragments: gives size and place.
        chunk_shape: voxels.

    Raises:
        DataError: there is something else.
    """
    if exists(path) and "incasem" not in open_volume(path).attributes:
        raise DataError(
            f"the output {path} exists and was not made by incasem. Choose another output, or delete it."
        )
    return create_volume(
        path,
        shape=fragments.shape,
        dtype=np.uint64,
        voxel_size=fragments.voxel_size,
        offset_nm=fragments.offset_nm,
        chunk_shape=tuple(chunk_shape),
        compression="lz4",  # a fifth of the default's time, which would be most of the stage; 1/16 in size
        existing="resume",
        attributes={"incasem": {"begun_by": JOB}},
    )


@dataclass(frozen=True)
class Target:
    """A segmentation to be written.

    Attributes:
        table: segments of the fragments; it must be there when the writing starts.
        volume: as `create_segmentation` made it.
    """

    table: LookUp
    volume: Volume


def relabel_job(
    fragments: Volume,
    target: Target,
    identity: Mapping[str, object],
    block_shape: Sequence[int] | None = None,
) -> Job:
    """Return the job that writes a segmentation.

    Args:
        fragments: ids of the voxels.
        target: what is written.
        identity: what determines the segmentation.
        block_shape: voxels a block; None chooses.
    """
    output = target.volume
    block = block_shape or default_block_shape(output.write_shape, volume_shape=output.shape)
    return Job(
        name=JOB,
        grid=Grid(output.roi_voxels, Coordinate(block)),
        start_worker=partial(start_relabelling, fragments, [target]),
        identity=identity,
        state_dir=Path(output.path) / ".incasem",
    )


def start_relabelling(fragments: Volume, targets: Sequence[Target]) -> BlockFunction:
    """Return the function that writes the segments of a block.

    Args:
        fragments: read once for all targets.
        targets: get the segments.
    """
    tables = [(target.table.read(), target.volume) for target in targets]

    def relabel_block(block: Block) -> None:
        voxels = read_ids(fragments, block.write_roi)
        found = voxels if len(tables) == 1 else np.empty_like(voxels)
        for (known, segments), volume in tables:
            try:
                relabel(voxels, known, segments, out=found)
            except KeyError as error:
                raise DataError(
                    explain(
                        f"an id in {fragments.path} at {format_roi(block.write_roi)}",
                        error.args[0],
                        f"one of the {known.size - 1} fragments that were agglomerated",
                        "The fragments changed in between: delete the edge store and run the command again",
                    )
                ) from error
            volume.write_voxels(block.write_roi, found)

    return relabel_block


def relabel(
    ids_ZYX: NDArray[np.uint64],
    fragments: NDArray[np.uint64],
    segments: NDArray[np.uint64],
    *,
    out: NDArray[np.uint64] | None = None,
) -> NDArray[np.uint64]:
    """Return the segment of each voxel.

    Args:
        ids_ZYX: fragment of each voxel, any shape.
        fragments: 0 and all ids, ascending. If they are 0, 1, 2, …, the table is used directly, else by
            binary search, with a cache of the ids that were met last.
        segments: of each.
        out: array of the same shape for the result, in C order; it may be ``ids_ZYX`` itself, which is
            faster than new memory. None makes one.

    Raises:
        KeyError: an id that is not among the fragments.
    """
    ids = np.ascontiguousarray(ids_ZYX).reshape(-1)
    found = np.empty_like(ids) if out is None else out.reshape(-1)
    if int(fragments[-1]) == fragments.size - 1:
        if ids.size and int(ids.max()) >= segments.size:
            raise KeyError(int(ids.max()))
        look_up(np.asarray(segments), ids, found)
    else:
        from incasem.segmentation._search import search  # numba takes longer to load than most blocks

        search(ids, fragments, segments, found)
    return found.reshape(ids_ZYX.shape)
