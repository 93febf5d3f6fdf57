"""Predict with a series of checkpoints and compare them. The same as `incasem predict-multiple`."""

from incasem.cli import run_script

if __name__ == "__main__":
    run_script("predict-multiple")
