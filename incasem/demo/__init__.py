"""The demo: the main job on a generated cell, by the commands that a user would type."""

from incasem.demo.job import run_demo

__all__ = ["run_demo"]
