"""Arrays as other programs write them, and volumes of every format."""

from pathlib import Path

import numpy as np
import pytest

from incasem.volumes import create_volume

# Name of the format: container's suffix and further arguments of create_volume.
FORMATS = {
    "zarr2": (".zarr", {}),
    "zarr3": (".zarr", {"zarr_format": 3}),
    "sharded": (".zarr", {"zarr_format": 3, "sharded": True}),
    "n5": (".n5", {}),
    "hdf5": (".h5", {}),
}


def make_volume(directory, format_name, data, chunk_shape=(4, 4, 4), dataset="volumes/raw", **arguments):
    """A volume of a format holding ``data``, written at once, and open for writing."""
    suffix, extra = FORMATS[format_name]
    extra = dict(extra)
    if extra.pop("sharded", False):
        arguments["shard_shape"] = tuple(2 * c for c in chunk_shape)
    arguments = {"voxel_size": (5, 5, 5), "shape": data.shape, "dtype": data.dtype} | arguments
    path = Path(directory) / f"cell{suffix}" / dataset
    volume = create_volume(path, chunk_shape=chunk_shape, **extra, **arguments)
    volume.write_voxels(volume.roi_voxels, data)
    return volume


@pytest.fixture(name="make_volume", scope="session")
def _make_volume():
    return make_volume


@pytest.fixture(params=FORMATS, scope="session")
def format_name(request):
    return request.param


@pytest.fixture
def rng():
    return np.random.default_rng(1)


@pytest.fixture
def grey_ZYX(rng):
    return rng.integers(0, 255, (9, 10, 11), dtype=np.uint8)


@pytest.fixture
def zarr_array():
    """A function that writes a Zarr v2 array with zarr-python, of either major version."""
    zarr = pytest.importorskip("zarr")

    def write(path, data, attributes=None, **arguments):
        if zarr.__version__.startswith("3"):
            arguments["zarr_format"] = 2
        array = zarr.create(
            store=str(path), shape=data.shape, dtype=data.dtype, fill_value=0, overwrite=True, **arguments
        )
        array[...] = data
        array.attrs.update(attributes or {})
        return path

    return write
