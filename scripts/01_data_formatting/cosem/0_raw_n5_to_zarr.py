"""Convert COSEM raw data to Zarr. The same as `incasem n5-to-zarr`."""

from incasem.cli import run_script

if __name__ == "__main__":
    run_script("n5-to-zarr")
