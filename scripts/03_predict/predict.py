"""Segment whole volumes with a trained network. The same as `incasem predict`."""

from incasem.cli import run_script

if __name__ == "__main__":
    run_script("predict")
