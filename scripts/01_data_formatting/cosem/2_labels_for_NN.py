"""Make organelle labels of COSEM annotations. The same as `incasem cosem-labels`."""

from incasem.cli import run_script

if __name__ == "__main__":
    run_script("cosem-labels")
