"""Volumes: n-d arrays with a place in the world, in Zarr, N5, HDF5 and image stacks."""

from incasem.volumes.opening import create_volume, open_image_stack, open_volume
from incasem.volumes.paths import exists, list_datasets, split_path
from incasem.volumes.spatial import check_same_voxel_size, check_spatial, placed_like
from incasem.volumes.volume import Volume

__all__ = [
    "Volume",
    "check_same_voxel_size",
    "check_spatial",
    "create_volume",
    "exists",
    "list_datasets",
    "open_image_stack",
    "open_volume",
    "placed_like",
    "split_path",
]
