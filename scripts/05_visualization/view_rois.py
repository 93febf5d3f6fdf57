"""Show the regions of data configurations over the raw data. The same as `incasem view-rois`."""

from incasem.cli import run_script

if __name__ == "__main__":
    run_script("view-rois")
