"""CLAHE, Zarr to Zarr, against a plain vectorised version of the same definition in memory.

``python -m benchmarks.clahe --size 512`` measures one command with two workers, its start-up included, on a
cube of that side. The plain version gets a smaller cube, in memory and without reading or writing a file; its
rate does not depend on the size.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.plain_clahe import plain_clahe
from benchmarks.table import Row, as_markdown

_COMMAND = """
import sys
from pathlib import Path
from incasem.formatting import EqualizeOptions, equalize_histogram
if __name__ == "__main__":
    equalize_histogram(EqualizeOptions(Path(sys.argv[1])), num_workers=int(sys.argv[2]), progress=False)
"""


def main(size: int = 512, plain_size: int = 192, workers: int = 2) -> list[Row]:
    """Measure both and check that they agree.

    Args:
        size: side of the cube for our version, voxels.
        plain_size: side of the cube for the plain version; it is a corner of the other one.
        workers: worker processes of our version.
    """
    volume = tissue(size)
    with tempfile.TemporaryDirectory() as directory:
        seconds, cpu_seconds, equalized = _ours(volume, Path(directory), workers)
    corner = volume[:plain_size, :plain_size, :plain_size]
    began, cpu_began = time.perf_counter(), time.process_time()
    plain = plain_clahe(corner)
    plain_seconds, plain_cpu = time.perf_counter() - began, time.process_time() - cpu_began
    # Only tiles that lie in the corner wholly are the same in both.
    inner = slice(0, max(0, (plain_size + 64) // 128 * 128 - 128))
    difference = equalized[inner, inner, inner].astype(int) - plain[inner, inner, inner]
    assert np.abs(difference, out=difference).max(initial=0) <= 1, "the two versions disagree"
    return [
        Row(
            f"CLAHE {size}³ uint8, Zarr to Zarr, {workers} workers, whole command",
            volume.size / 1e6 / seconds,
            "Mvoxel/s",
            corner.size / 1e6 / plain_seconds,
            "plain numpy in memory",
        ),
        Row(
            f"CLAHE {size}³ uint8, the same by CPU time",
            volume.size / 1e6 / cpu_seconds,
            "Mvoxel/CPU-s",
            corner.size / 1e6 / plain_cpu,
            "plain numpy in memory",
        ),
    ]


def tissue(size: int) -> NDArray[np.uint8]:
    """A cube of grey values with noise that does not compress and contrast that changes by place."""
    rng = np.random.default_rng(0)
    coarse = np.kron(rng.normal(120, 25, (-(-size // 32),) * 3), np.ones((32, 32, 32)))[:size, :size, :size]
    out = np.empty((size,) * 3, np.uint8)
    for z in range(size):
        out[z] = np.clip(coarse[z] + rng.normal(0, 18, (size, size)), 0, 255)
    return out


def _ours(volume: NDArray[np.uint8], directory: Path, workers: int) -> tuple[float, float, NDArray[np.uint8]]:
    from incasem.volumes import create_volume, open_volume

    file = directory / "cell.zarr"
    for name, array in (("small.zarr", volume[:16, :16, :16]), ("cell.zarr", volume)):
        raw = create_volume(
            directory / name / "volumes/raw", shape=array.shape, dtype=array.dtype, voxel_size=(5, 5, 5)
        )
        raw.write_voxels(raw.roi_voxels, np.ascontiguousarray(array))
    # The first run on a machine compiles; the second is what every later one costs.
    _run(directory / "small.zarr", workers)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    _run(file, workers)
    seconds = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    result = open_volume(file / "volumes/raw_equalized_0.02")
    return seconds, cpu, result.read_voxels(result.roi_voxels)


def _run(file: Path, workers: int) -> None:
    subprocess.run([sys.executable, "-c", _COMMAND, str(file), str(workers)], check=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=512, help="side of our cube, voxels (default 512)")
    parser.add_argument(
        "--plain_size", type=int, default=192, help="side of the plain version's (default 192)"
    )
    parser.add_argument("--workers", type=int, default=2, help="worker processes (default 2)")
    options = parser.parse_args()
    print(as_markdown(main(options.size, options.plain_size, options.workers)))
