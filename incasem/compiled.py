"""Compile inner loops to machine code, once per machine rather than once per process."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import numba

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Return ``function`` compiled by numba: without the interpreter lock, its machine code kept on disk.

    numba keeps the code beside the module, else in the user's cache directory (or where ``NUMBA_CACHE_DIR``
    says). Where none of them can be written (read-only install, no home) each process compiles for itself.
    """
    try:
        return numba.njit(cache=True, nogil=True)(function)
    except RuntimeError as error:
        if "cannot cache function" not in str(error):
            raise
        return numba.njit(nogil=True)(function)
