"""The optional dependencies of this room."""

import importlib
from types import ModuleType

from incasem.errors import ConfigError

EXTRA = "neurons"


def import_neurons(name: str) -> ModuleType:
    """Return a module that comes with the extra: ``waterz``, ``mwatershed``, ``edt``.

    Raises:
        ConfigError: it is not installed; the message names the extra.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"{name} cannot be imported ({error}); it comes with the extra `{EXTRA}`. "
            f"Run, in the checkout: pip install -c constraints.txt -e '.[{EXTRA}]'"
        ) from error
