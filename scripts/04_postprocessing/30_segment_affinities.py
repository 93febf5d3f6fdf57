"""Segment an affinity map. The same as `incasem segment`."""

from incasem.cli import run_script

if __name__ == "__main__":
    run_script("segment")
