"""Give a dataset coarser levels. The same as `incasem pyramid`."""

from incasem.cli import run_script

if __name__ == "__main__":
    run_script("pyramid")
