"""Score a prediction against labels. The same as `incasem evaluate`."""

from incasem.cli import run_script

if __name__ == "__main__":
    run_script("evaluate")
