import os
import subprocess
import sys
from pathlib import Path

import numba

from incasem.compiled import compiled


def test_without_a_writable_cache_it_compiles_anyway(monkeypatch):
    njit = numba.njit

    def refusing(*args, cache=False, **kwargs):
        if cache:

            def decorate(function):
                raise RuntimeError(f"cannot cache function {function.__name__!r}: no locator available")

            return decorate
        return njit(*args, **kwargs)

    monkeypatch.setattr(numba, "njit", refusing)

    @compiled
    def twice(x):
        return 2 * x

    assert twice(21) == 42


def test_a_second_process_does_not_compile_again(tmp_path):
    source = """
import numpy as np
from incasem.formatting import clahe
clahe.count_block(np.zeros((4, 4, 4), np.uint8), (0, 0, 0), clahe.Clahe())
print(sum(clahe._count.stats.cache_misses.values()))
"""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    misses = [
        subprocess.run(
            [sys.executable, "-c", source],
            env=environment,
            check=True,
            capture_output=True,
            text=True,
            cwd=Path(__file__).parents[2],
        ).stdout.strip()
        for _ in range(2)
    ]
    assert misses == ["1", "0"]
