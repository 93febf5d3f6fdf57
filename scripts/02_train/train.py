"""Train, fine-tune or continue a training. The same as `incasem train`."""

from incasem.cli import run_script

if __name__ == "__main__":
    run_script("train")
