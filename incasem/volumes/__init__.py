"""Volumes: n-d arrays with a place in the world, in Zarr, N5, HDF5 and image stacks."""
