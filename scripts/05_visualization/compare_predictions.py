"""Show predictions side by side. The same as `incasem compare-predictions`."""

from incasem.cli import run_script

if __name__ == "__main__":
    run_script("compare-predictions")
