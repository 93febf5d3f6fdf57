"""Convert stacks of images to Zarr. The same as `incasem convert`."""

from incasem.cli import run_script

if __name__ == "__main__":
    run_script("convert")
