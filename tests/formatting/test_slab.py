import errno

import numpy as np
import pytest

from incasem.errors import DataError
from incasem.formatting._slab import Slab


@pytest.mark.parametrize("budget", [0, 10**9])
def test_rows_and_planes_agree(tmp_path, budget):
    array = np.random.default_rng(0).integers(0, 60000, (5, 7, 9)).astype(np.uint16)
    with Slab(array.shape, array.dtype, tmp_path, budget) as slab:
        assert slab.in_memory == (budget > 0)
        for z, plane in enumerate(array):
            slab.set_plane(z, plane)
        np.testing.assert_array_equal(slab.rows(2, 6), array[:, 2:6])
    with Slab(array.shape, array.dtype, tmp_path, budget) as slab:
        for y in range(0, 7, 3):
            slab.set_rows(y, array[:, y : y + 3])
        np.testing.assert_array_equal(slab.plane(3), array[3])
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    class Full:
        def seek(self, position):
            pass

        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self):
            pass

    monkeypatch.setattr("tempfile.TemporaryFile", lambda **kwargs: Full())
    with (
        Slab((2, 3, 4), np.dtype(np.uint8), tmp_path, 0) as slab,
        pytest.raises(DataError, match="No space left"),
    ):
        slab.set_plane(0, np.zeros((3, 4), np.uint8))


def test_memory_stays_bounded_above_the_budget(tmp_path):
    import tracemalloc

    shape = (64, 256, 256)
    with Slab(shape, np.dtype(np.uint8), tmp_path, 2**20) as slab:
        tracemalloc.start()
        for z in range(shape[0]):
            slab.set_plane(z, np.full(shape[1:], z, np.uint8))
        for y in range(0, shape[1], 16):
            assert (slab.rows(y, y + 16)[:, 0, 0] == np.arange(64)).all()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 2**20
