"""gunpowder, imported without the warnings of the libraries that it brings along."""

import warnings

with warnings.catch_warnings():
    # funlib.persistence declares its metadata, and augment imports scipy, in ways that are deprecated.
    for message in ("Support for class-based `config`", "Please import `(map_coordinates|zoom)` from"):
        warnings.filterwarnings("ignore", message=message, category=DeprecationWarning)
    import gunpowder as gp

__all__ = ["gp"]
