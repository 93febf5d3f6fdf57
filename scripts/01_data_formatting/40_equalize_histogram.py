"""Equalise the histogram of a volume by CLAHE. The same as `incasem equalize`."""

from incasem.cli import run_script

if __name__ == "__main__":
    run_script("equalize")
