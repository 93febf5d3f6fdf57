"""Volumes larger than the memory can be trained on: what the feed keeps does not grow with the volume."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from incasem.geometry import Roi
from incasem.volumes import create_volume

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="limits and reads memory as Linux does"
)

SIDE = 448
CHUNK = 64
# Beside the interpreter and its libraries; 250 MiB are used, 210 for a volume of a fifth of this one. Threads
# and the allocator keep more now and then.
ALLOWED = 512 * 2**20  # bytes
LABELS = SIDE**3 * 8  # bytes in memory

SCRIPT = """
import json, resource, sys
from pathlib import Path
import numpy as np
from tests.training.cells import small_config
from incasem.config import DataEntry
from incasem.training import feed

side, allowed = int(sys.argv[2]), int(sys.argv[3])
feed.CACHE_BYTES = 2**26
# Raw data that are resampled once, so that compiled code and threads are there before the limit.
feed.warm_up({np.dtype(np.uint8)})
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
limit = int(status["VmData"].split()[0]) * 1024 + allowed
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
try:
    np.ones((side,) * 3, np.uint64)
    raise SystemExit("the volume fits, so nothing is shown")
except MemoryError:
    pass
entry = DataEntry("large", Path(sys.argv[1]), (5.0,) * 3, (0,) * 3, (side,) * 3, "raw", {"labels": 1}, "mask")
shown = {}
for name, setting in (("rejection", "training.sampling.foreground=none"),
                      ("foreground", "training.sampling.foreground=1")):
    with feed.SampleFeed(
        [entry], small_config(setting), (28,) * 3, (10,) * 3, seed=1, num_samples=40
    ) as samples:
        found = list(samples)
        index = samples._dataset._indices[0]
    shown[name] = [bool(sample.labels.any()) for sample in found]
    shown["foreground_voxels"] = index.foreground.total
    shown["places"] = len({sample.position for sample in found})
print(json.dumps(shown))
"""


@pytest.fixture
def large(tmp_path):
    """A volume with a ball of foreground in every eighth block; returns its folder and the voxels in it."""
    foreground = 0
    at = np.indices((CHUNK,) * 3) - CHUNK / 2
    ball = ((at**2).sum(0) < 20**2).astype(np.uint64) * 7_000_000_000
    volumes = {
        name: create_volume(
            tmp_path / "large.zarr" / name, shape=(SIDE,) * 3, dtype=dtype, voxel_size=(5, 5, 5),
            chunk_shape=(CHUNK,) * 3,
        )
        for name, dtype in (("raw", np.uint8), ("labels", np.uint64), ("mask", np.uint8))
    }  # fmt: skip
    for block in np.ndindex(*(SIDE // CHUNK,) * 3):
        place = Roi([CHUNK * index for index in block], (CHUNK,) * 3)
        filled = ball * (sum(block) % 8 == 0)
        volumes["labels"].write_voxels(place, filled)
        volumes["raw"].write_voxels(place, ((filled != 0) * 100 + 50).astype(np.uint8))
        volumes["mask"].write_voxels(place, np.ones((CHUNK,) * 3, np.uint8))
        foreground += np.count_nonzero(filled)
    return tmp_path / "large.zarr", foreground


def test_a_volume_that_does_not_fit_is_counted_and_sampled(large):
    folder, foreground = large
    assert LABELS > 1.3 * ALLOWED
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, folder, str(SIDE), str(ALLOWED)],
        capture_output=True, text=True, timeout=300, check=False,
        env=os.environ | {"PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-2000:]
    shown = json.loads(ended.stdout)
    assert shown["foreground_voxels"] == foreground
    assert sum(shown["foreground"]) > 30
    assert any(shown["rejection"])
    assert shown["places"] > 35
