"""Mask the sample: what is neither resin nor beyond the image. The same as `incasem mask`."""

from incasem.cli import run_script

if __name__ == "__main__":
    run_script("mask")
