"""Download the published models, and import the records of their trainings. The same as `incasem "
"download`."""

from incasem.cli import run_script

if __name__ == "__main__":
    run_script("download")
