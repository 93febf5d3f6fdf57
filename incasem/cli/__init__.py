"""The command line: `incasem VERB …`, and the published scripts, which are the same verbs."""

from incasem.cli.verbs import main, neuroglancer, run_script

__all__ = ["main", "neuroglancer", "run_script"]
