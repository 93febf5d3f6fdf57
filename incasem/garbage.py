"""How often Python looks for garbage that refers to itself.

Its default, after 700 new objects, is one for programs that hold few. Loading torch and gunpowder makes half
a million: a fifth of a command's start goes into looking through them again and again, and finding nothing.
"""

import gc

__all__ = ["collect_rarely"]

_NEW_OBJECTS = 10_000  # a few MB


def collect_rarely() -> None:
    """Make this process look for garbage after every 10,000 new objects only; for entry points."""
    gc.set_threshold(_NEW_OBJECTS, *gc.get_threshold()[1:])
