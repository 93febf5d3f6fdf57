"""Meshes put together: for each label a manifest that lists its parts, in few large files (`sharded`).

The parts of all labels lie in the order of the volume; they are sorted by label once, in memory (about 64
bytes a part), and then copied, a job whose blocks are the shards.
"""

import json
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from incasem.blockwise import Block, BlockFunction, Grid, Job, JobReport, is_finished, run_stage
from incasem.durable import write_durably
from incasem.formatting._folder import Folder
from incasem.formatting.precomputed.fragments import (
    part_file,
    parts_folder,
    read_entries,
    read_fragment,
    write_fragments,
)
from incasem.formatting.precomputed.layout import MESHES, Layout
from incasem.formatting.precomputed.octree import QUANTIZATION_BITS, Octree, z_order
from incasem.formatting.precomputed.sharded import Item, Sharding, write_shard
from incasem.geometry import Coordinate, Roi

_FRAGMENT = np.dtype(
    [
        ("id", "<u8"), ("z_order", "<u8"), ("position", "<u4", 3), ("part", "<u4"), ("offset", "<u8"),
        ("size", "<u8"), ("lod", "u1"),
    ]
)  # fmt: skip


def write_meshes(
    layout: Layout, octree: Octree, segments: int, num_workers: int, progress: bool
) -> list[tuple[str, JobReport]]:
    """Make the meshes of all labels, continuing an interrupted run; return name and report of each stage.

    Args:
        layout: of the folder; its scales are complete.
        octree: see `make_octree`.
        segments: how many labels there are.
        num_workers: worker processes.
        progress: whether to show a progress line.

    Raises:
        FailedBlocksError: blocks that could not be done, with the reason of each.
    """
    sharding = Sharding.for_keys(segments)
    job, output = prepare_meshes(layout, octree, sharding)
    reports = []
    if not is_finished(job, output):
        reports += write_fragments(layout, octree, num_workers, progress)
        _write_info(output.path, sharding)
        if not _table_file(output).exists():
            write_durably(_table_file(output), partial(np.save, arr=_table(layout, octree, sharding)))
    reports.append((MESHES, run_stage(job, output, num_workers, progress)))
    for level in octree.levels:
        shutil.rmtree(parts_folder(layout, level.lod).path, ignore_errors=True)
    _table_file(output).unlink(missing_ok=True)
    return reports


def prepare_meshes(layout: Layout, octree: Octree, sharding: Sharding) -> tuple[Job, Folder]:
    """Return the job that puts the parts together, a block for each shard."""
    output = Folder(layout.root / MESHES)
    folders = [parts_folder(layout, level.lod).path for level in octree.levels]
    job = Job(
        name=MESHES,
        grid=Grid(Roi((0, 0, 0), (sharding.shards, 1, 1)), Coordinate(1, 1, 1)),
        start_worker=partial(_start, output.path, folders, octree, sharding, _table_file(output)),
        identity={
            "source": layout.source.fingerprint(),
            "scales": [level.scale.index for level in octree.levels],
            "sharding": sharding.to_json(),
        },
        state_dir=output.state / "job",
    )
    return job, output


def _write_info(folder: Path, sharding: Sharding) -> None:
    info = {
        "@type": "neuroglancer_multilod_draco",
        "vertex_quantization_bits": QUANTIZATION_BITS,
        "transform": [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0],
        "lod_scale_multiplier": 1,
        "sharding": sharding.to_json(),
    }
    write_durably(folder / "info", json.dumps(info, indent=1).encode())


def _table_file(output: Folder) -> Path:
    return output.state / "fragments.npy"


def _table(layout: Layout, octree: Octree, sharding: Sharding) -> NDArray[Any]:
    """Return all fragments, by shard, minishard, label, level and place on the Z-curve."""
    tables = [np.zeros(0, _FRAGMENT)]
    for level in octree.levels:
        folder = parts_folder(layout, level.lod).path
        shape = Grid(level.cells, level.node).shape
        for file in sorted(folder.glob("*.part")):
            index = int(file.stem)
            entries = read_entries(file)
            table = np.zeros(len(entries), _FRAGMENT)
            for name in ("id", "offset", "size"):
                table[name] = entries[name]
            table["position"] = np.array(np.unravel_index(index, shape))[::-1]
            table["part"], table["lod"] = index, level.lod
            tables.append(table)
    table = np.concatenate(tables)
    table["z_order"] = z_order(table["position"])
    ids = table["id"]
    keys = (table["z_order"], table["lod"], ids, sharding.minishard_of(ids), sharding.shard_of(ids))
    return table[np.lexsort(keys)]


def _start(
    folder: Path, parts: list[Path], octree: Octree, sharding: Sharding, table_file: Path
) -> BlockFunction:
    table = np.load(table_file, mmap_mode="r")
    bounds = np.searchsorted(sharding.shard_of(table["id"]), np.arange(sharding.shards + 1, dtype=np.uint64))

    def write(block: Block) -> None:
        shard = int(block.write_roi.begin[0])
        mine = table[bounds[shard] : bounds[shard + 1]]
        _write_shard(folder / sharding.name(shard), parts, octree, sharding, mine)

    return write


def _write_shard(
    file: Path, parts: list[Path], octree: Octree, sharding: Sharding, mine: NDArray[Any]
) -> None:
    """Write the fragments of one shard, which are sorted by minishard and label."""
    if not len(mine):
        return
    starts = np.flatnonzero(np.diff(mine["id"], prepend=~mine["id"][:1]))
    with_ends = zip(starts, [*starts[1:], len(mine)], strict=True)
    items = (_item(mine[a:b], parts, octree) for a, b in with_ends)
    write_durably(file, partial(write_shard, sharding=sharding, items=items))


def _item(fragments: NDArray[Any], parts: list[Path], octree: Octree) -> Item:
    """Return the manifest of one label, and its parts."""
    return Item(int(fragments["id"][0]), manifest(fragments, octree), _copied(fragments, parts))


def _copied(fragments: NDArray[Any], parts: list[Path]) -> Iterator[bytes]:
    for fragment in fragments:
        file = part_file(parts[int(fragment["lod"])], int(fragment["part"]))
        yield read_fragment(file, int(fragment["offset"]), int(fragment["size"]))


def manifest(fragments: NDArray[Any], octree: Octree) -> bytes:
    """Return the manifest of one label.

    Args:
        fragments: of this label (`_FRAGMENT`), by level and place on the Z-curve.
        octree: where they lie.
    """
    levels = int(fragments["lod"].max()) + 1
    nodes: list[tuple[NDArray[Any], NDArray[Any]]] = []
    finer = np.zeros((0, 3), np.uint32)
    for lod in range(levels):
        mine = fragments[fragments["lod"] == lod]
        # A node has a parent on each coarser level; where nothing is left of the label there, an empty one.
        parents = np.unique(finer >> 1, axis=0)
        known = {tuple(position) for position in mine["position"].tolist()}
        absent = np.array([p for p in parents.tolist() if tuple(p) not in known], np.uint32).reshape(-1, 3)
        positions = np.concatenate([mine["position"], absent])
        sizes = np.concatenate([mine["size"], np.zeros(len(absent), np.uint64)])
        order = np.argsort(z_order(positions), kind="stable")
        finer = positions[order]
        nodes.append((finer, sizes[order]))
    pieces = [
        np.array([*octree.node_nm, *octree.grid_origin], "<f4"),
        np.array([levels], "<u4"),
        np.array(octree.detail_nm[:levels], "<f4"),
        np.array(octree.vertex_offsets[:levels], "<f4"),
        np.array([len(sizes) for _, sizes in nodes], "<u4"),
    ]
    for positions, sizes in nodes:
        pieces += [positions.T.astype("<u4"), sizes.astype("<u4")]
    return b"".join(piece.tobytes() for piece in pieces)
