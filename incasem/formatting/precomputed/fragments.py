"""The parts of meshes: for each node of each level of detail the surfaces in it, in one file.

A job a level; its blocks are the nodes. What they write is put together by `manifests`.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from incasem.blockwise import Block, BlockFunction, Grid, Job, JobReport, run_stage
from incasem.durable import write_durably
from incasem.formatting._folder import STATE, Folder
from incasem.formatting.precomputed.draco import encode
from incasem.formatting.precomputed.layout import MESHES, Layout, open_scale, read_scale
from incasem.formatting.precomputed.octree import Level, Octree, quantized
from incasem.formatting.precomputed.surfaces import CONTEXT, STEPS, surfaces
from incasem.geometry import Coordinate, Roi

ENTRY = np.dtype([("id", "<u8"), ("offset", "<u8"), ("size", "<u8")])


class Parts(Folder):
    """The parts of one level: a hidden folder of the meshes."""

    @property
    def state(self) -> Path:
        """Where attributes lie: in the folder itself."""
        return self.path


def parts_folder(layout: Layout, lod: int) -> Parts:
    """Return where the parts of a level lie until they are put together."""
    return Parts(layout.root / MESHES / STATE / f"lod_{lod}")


def write_fragments(
    layout: Layout, octree: Octree, num_workers: int, progress: bool
) -> list[tuple[str, JobReport]]:
    """Write the parts of all levels, continuing an interrupted run; return their folder and report of each.

    Raises:
        FailedBlocksError: blocks that could not be done, with the reason of each.
    """
    reports = []
    for level in octree.levels:
        job, output = prepare_level(layout, octree, level)
        reports.append((MESHES, run_stage(job, output, num_workers, progress)))
    return reports


def prepare_level(layout: Layout, octree: Octree, level: Level) -> tuple[Job, Parts]:
    """Return the job that writes the parts of one level."""
    output = parts_folder(layout, level.lod)
    job = Job(
        name=f"{MESHES} of scale {level.scale.key}",
        grid=Grid(level.cells, level.node),
        start_worker=partial(_start, layout.root, level, output.path),
        identity={
            "source": layout.source.fingerprint(),
            "scale": level.scale.index,
            "node": list(octree.node_nm),
        },
        state_dir=output.path / "job",
    )
    output.path.mkdir(parents=True, exist_ok=True)
    return job, output


def part_file(folder: Path, index: int) -> Path:
    """Return the file of a block: the number of its entries, the entries (`ENTRY`), the encoded meshes."""
    return folder / f"{index:08d}.part"


def read_entries(file: Path) -> NDArray[Any]:
    """Return the entries of a part, offsets counted from the begin of the file."""
    with file.open("rb") as stream:
        count = int.from_bytes(stream.read(8), "little")
        return np.frombuffer(stream.read(count * ENTRY.itemsize), ENTRY)


def read_fragment(file: Path, offset: int, size: int) -> bytes:
    """Return one encoded mesh of a part."""
    with file.open("rb") as stream:
        stream.seek(offset)
        return stream.read(size)


def _start(root: Path, level: Level, folder: Path) -> BlockFunction:
    return partial(_write_part, open_scale(root, level.scale.index), level, folder)


def _write_part(array: Any, level: Level, folder: Path, block: Block) -> None:
    begin, cells = block.write_roi.begin, block.write_roi.shape
    # Corners of the cells are one voxel more than there are cells, and context is looked at around them.
    corners = Roi(begin - Coordinate([CONTEXT] * 3), cells + Coordinate([1 + 2 * CONTEXT] * 3))
    encoded = list(_encoded(read_scale(array, corners), level))
    file = part_file(folder, block.index)
    if not encoded:
        file.unlink(missing_ok=True)
        return
    table = np.zeros(len(encoded), ENTRY)
    table["id"] = [label for label, _ in encoded]
    table["size"] = [len(mesh) for _, mesh in encoded]
    table["offset"] = 8 + table.nbytes + np.cumsum(table["size"]) - table["size"]

    def write(stream: IO[bytes]) -> None:
        stream.write(len(encoded).to_bytes(8, "little") + table.tobytes())
        for _, mesh in encoded:
            stream.write(mesh)

    write_durably(file, write)


def _encoded(labels_ZYX: NDArray[np.unsignedinteger], level: Level) -> Iterator[tuple[int, bytes]]:
    for label, steps, faces in surfaces(labels_ZYX):
        yield label, encode(quantized(steps, level.node, STEPS), faces)
