"""Export datasets as TIFF stacks. The same as `incasem export`."""

from incasem.cli import run_script

if __name__ == "__main__":
    run_script("export")
