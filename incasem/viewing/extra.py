"""The optional dependency of this room."""

import importlib
from types import ModuleType

from incasem.errors import ConfigError

EXTRA = "viewers"


def import_neuroglancer() -> ModuleType:
    """Return the module ``neuroglancer``.

    Raises:
        ConfigError: it is not installed; the message names the extra.
    """
    try:
        return importlib.import_module("neuroglancer")
    except ImportError as error:
        raise ConfigError(
            f"neuroglancer cannot be imported ({error}); it comes with the extra `{EXTRA}`. "
            f"Run, in the checkout: pip install -c constraints.txt -e '.[{EXTRA}]'"
        ) from error
