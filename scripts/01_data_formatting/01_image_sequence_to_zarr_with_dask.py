"""Convert a stack of images to Zarr, under a later published name. The same as `incasem convert`; no dask."""

from incasem.cli import run_script

if __name__ == "__main__":
    run_script("convert")
