"""Make the exclusion zone around labelled objects. The same as `incasem metric-mask`."""

from incasem.cli import run_script

if __name__ == "__main__":
    run_script("metric-mask")
