"""Make a segmentation of probabilities. The same as `incasem threshold`."""

from incasem.cli import run_script

if __name__ == "__main__":
    run_script("threshold")
