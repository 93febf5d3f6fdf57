"""Affinities to segments, Zarr to Zarr in blocks with workers, against one pass of waterz in memory.

Both make fragments, the region graph and the segments of one threshold of the same affinities (of generated
neurites, `incasem.phantom.affinities`). CPU time is that of all processes, start-up of the workers, reading
and writing included; waterz gets its affinities as it wants them, in memory as float32, for nothing. Peak
memory is that of the largest process, and for the workers the sum of all that lived at a time.

Then the inner loops alone: relabelling against numpy's `take`, and the contingency table of two segmentations
(what Rand and VOI are made of) against `numpy.unique` of pairs.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.table import Row, as_markdown

_EDGE = 128  # of blocks in which the phantom is generated, and of chunks
LOW, HIGH, THRESHOLD = 0.05, 0.995, 0.4
_GIB = 1 << 30

_WATERZ = """
import json, os, resource, sys
import numpy as np
from incasem.volumes import open_volume
volume = open_volume(sys.argv[1])
low, high, threshold = map(float, sys.argv[2:5])
steps = volume.read_voxels(volume.roi_voxels)
affinities = np.empty(steps.shape, np.float32)
for channel, values in zip(affinities, steps):
    np.multiply(values, np.float32(1 / 255), out=channel)
del steps
import waterz
sys.stdout.flush()
kept, null = os.dup(1), os.open(os.devnull, os.O_WRONLY)
os.dup2(null, 1)
before = resource.getrusage(resource.RUSAGE_SELF)
for segments in waterz.agglomerate(
    affinities, [threshold], aff_threshold_low=low, aff_threshold_high=high,
    scoring_function="OneMinus<MeanAffinity<RegionGraphType, ScoreValue>>",
):
    pass
after = resource.getrusage(resource.RUSAGE_SELF)
os.dup2(kept, 1)
np.save(sys.argv[5], segments)
cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
print(json.dumps({"cpu": cpu, "peak": after.ru_maxrss * 1024}))
"""


def main(size: int = 512, workers: int = 2, jitter: int = 0) -> list[Row]:
    """Run both ways and the inner loops.

    Args:
        size: edge of the volume; voxels.
        workers: worker processes.
        jitter: largest random change of each affinity on its own, in steps of 1/255. Even a small one makes
            many small fragments of a map that is smooth otherwise.
    """
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        _write_phantom(folder / "a.zarr/affinities", size, jitter)
        # Compiled code is kept on disk: what a machine pays once, is paid before.
        _ours(_small(folder), workers)
        ours = _ours(folder, workers)
        waterz = _plain_waterz(folder)
        rows = [
            Row(
                f"affinities ± {jitter}/255 to segments, {size}³, {workers} workers, CPU of all processes",
                ours["cpu"], "s", waterz["cpu"], "waterz, mean, in memory", less_is_better=True,
            ),
            Row("… wall time", ours["wall"], "s"),
            Row(
                "… memory of the largest process", ours["peak"] / _GIB, "GiB", waterz["peak"] / _GIB,
                "waterz", less_is_better=True,
            ),
            Row("… memory of all processes at a time", ours["together"] / _GIB, "GiB"),
            *(Row(f"… {name}, wall time", seconds, "s") for name, seconds in ours["seconds"].items()),
            Row("… fragments", ours["fragments"], ""),
            Row("… pairs of fragments", ours["edges"], ""),
            Row("… VOI between the two", _voi(folder), "bits"),
        ]  # fmt: skip
        return rows + _loops(folder)


def _small(folder: Path) -> Path:
    _write_phantom(folder / "small/a.zarr/affinities", _EDGE, 1)
    return folder / "small"


def _write_phantom(path: Path, size: int, jitter: int) -> None:
    from incasem.geometry import Roi
    from incasem.phantom.affinities import AffinityPhantom
    from incasem.volumes import create_volume

    volume = create_volume(
        path, shape=(3, size, size, size), dtype=np.uint8, voxel_size=(8, 8, 8), chunk_shape=(_EDGE,) * 3,
        attributes={"offsets": [[-1, 0, 0], [0, -1, 0], [0, 0, -1]]},
    )  # fmt: skip
    phantom = AffinityPhantom()
    for place in np.ndindex(*(-(-size // _EDGE),) * 3):
        begin = [p * _EDGE for p in place]
        shape = [min(_EDGE, size - b) for b in begin]
        values, _ = phantom.block(begin, shape)
        if jitter:
            random = np.random.default_rng(place)
            moved = values + random.integers(-jitter, jitter + 1, values.shape, np.int16)
            values = np.clip(moved, 0, 255).astype(np.uint8)
        for axis, first in enumerate(begin):
            if first == 0:  # waterz looks at these edges, which leave the volume, no more than we do
                np.moveaxis(values[axis], axis, 0)[0] = 0
        volume.write_voxels(Roi(begin, shape), values)


_COMMAND = """
import json, resource, sys
from pathlib import Path
from incasem.segmentation.fragment_settings import FragmentSettings
from incasem.segmentation.segment import SegmentOptions, segment
file, low, high, threshold, workers = sys.argv[1:6]
options = SegmentOptions(
    Path(file), "affinities", fragments=FragmentSettings(low=float(low), high=float(high)),
    thresholds=[float(threshold)],
)
report = segment(options, num_workers=int(workers), progress=False)
print(json.dumps({
    "seconds": report.seconds, "fragments": report.fragments, "edges": report.edges,
    "segmentation": str(report.segmentations[0].path),
}))
"""


def _run(code: str, *words: object) -> tuple[dict[str, Any], dict[str, float]]:
    """Run Python code; return the JSON that it prints last, and what it and its children took."""
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, words)], stdout=subprocess.PIPE, stderr=errors
        )
        watch = _MemoryWatch(process.pid)
        output, _ = process.communicate()
        watch.stop()
        if process.returncode:
            errors.seek(0)
            raise RuntimeError(errors.read().decode())
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    used = {
        "cpu": cpu,
        "wall": time.perf_counter() - began,
        "peak": watch.largest,
        "together": watch.together,
    }
    return json.loads(output.splitlines()[-1]), used


class _MemoryWatch:
    """Looks at the memory (resident set) of a process and all its descendants, ten times a second."""

    def __init__(self, process: int) -> None:
        self.largest = self.together = 0
        self._process, self._stopped = process, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stopped.wait(0.1):
            sizes = [_resident(p) for p in _with_descendants(self._process)]
            self.largest = max(self.largest, *sizes)
            self.together = max(self.together, sum(sizes))

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()


def _with_descendants(process: int) -> list[int]:
    parents = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError):
            continue
    found = [process]
    for parent in found:
        found += [child for child, its in parents.items() if its == parent]
    return found


def _resident(process: int) -> int:
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _ours(folder: Path, workers: int) -> dict[str, Any]:
    report, used = _run(_COMMAND, folder / "a.zarr", LOW, HIGH, THRESHOLD, workers)
    return report | used


def _plain_waterz(folder: Path) -> dict[str, Any]:
    report, used = _run(_WATERZ, folder / "a.zarr/affinities", LOW, HIGH, THRESHOLD, folder / "waterz.npy")
    return used | report


def _voi(folder: Path) -> float:
    from incasem.metrics.partition import PartitionAccumulator
    from incasem.volumes import open_volume

    ours = open_volume(folder / f"a.zarr/segmentation/mean_{THRESHOLD:g}")
    theirs = np.load(folder / "waterz.npy", mmap_mode="r")
    accumulator = PartitionAccumulator(None)
    accumulator.add(ours.read_voxels(ours.roi_voxels), theirs)
    return accumulator.scores().voi


def _loops(folder: Path) -> list[Row]:
    """Return the rows of the inner loops, on a part of the volume."""
    from incasem.geometry import Roi
    from incasem.metrics.partition import PartitionAccumulator
    from incasem.segmentation.relabel import LookUp, relabel
    from incasem.volumes import open_volume

    name = f"mean_{THRESHOLD:g}"
    volume = open_volume(folder / "a.zarr/fragments")
    roi = Roi(volume.roi_voxels.begin, [min(256, int(s)) for s in volume.shape])
    ids = volume.read_voxels(roi)
    fragments, segments = (np.array(a) for a in LookUp(folder / "a.zarr/lookup" / name).read())
    sparse = fragments * np.uint64(5_000_000_029)
    sparse_ids, out = sparse[ids], np.empty_like(ids)
    signed = ids.astype(np.int64)
    plain = ids.size / _seconds(lambda: np.take(segments, signed, out=out, mode="clip")) / 1e6
    rows = [
        Row(
            f"relabel, {'×'.join(map(str, ids.shape))}, consecutive ids",
            ids.size / _seconds(lambda: relabel(ids, fragments, segments, out=out)) / 1e6,
            "Mvoxel/s a core", plain, "numpy.take of int64, consecutive ids",
        ),
        Row(
            "… ids with gaps, up to 2⁴⁴ and beyond",
            ids.size / _seconds(lambda: relabel(sparse_ids, sparse, segments, out=out)) / 1e6,
            "Mvoxel/s a core", plain, "numpy.take of int64, consecutive ids",
        ),
    ]  # fmt: skip
    found = relabel(ids, fragments, segments)

    def pairs() -> None:
        np.unique(np.stack([found.ravel(), ids.ravel()]), axis=1, return_counts=True)

    part = slice(0, 32)  # numpy sorts: more would take minutes
    found, ids = np.ascontiguousarray(found[part]), np.ascontiguousarray(ids[part])
    rows.append(
        Row(
            f"contingency table, {'×'.join(map(str, ids.shape))}",
            ids.size / _seconds(lambda: PartitionAccumulator(None).add(found, ids)) / 1e6,
            "Mvoxel/s a core", ids.size / _seconds(pairs, 1) / 1e6, "numpy.unique of pairs",
        )
    )  # fmt: skip
    return rows


def _seconds(run: Callable[[], object], repeats: int = 5) -> float:
    """Return the least CPU time of a call."""
    run()
    times = []
    for _ in range(repeats):
        began = time.process_time()
        run()
        times.append(time.process_time() - began)
    return min(times)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=512, help="edge of the volume, voxels (default 512)")
    parser.add_argument("--workers", type=int, default=2, help="worker processes (default 2)")
    parser.add_argument(
        "--jitter", type=int, default=0, help="random change of affinities, steps (default 0)"
    )
    options = parser.parse_args()
    print(as_markdown(main(options.size, options.workers, options.jitter)))
