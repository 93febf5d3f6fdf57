"""A directory as the output of a stage: attributes of its own, in a hidden file that goes when it goes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from incasem.durable import write_durably
from incasem.errors import DataError, explain

STATE = ".incasem"


class Folder:
    """A directory with attributes, see `incasem.blockwise.Output`. Picklable."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def state(self) -> Path:
        """Where attributes and marks lie."""
        return self.path / STATE

    @property
    def attributes(self) -> Mapping[str, Any]:
        """Attributes as stored; none if there is no file."""
        try:
            return dict(json.loads((self.state / "attributes.json").read_text()))
        except FileNotFoundError:
            return {}
        except NotADirectoryError as error:
            raise DataError(
                explain("the output", self.path, "a directory", "A file has that name: choose another one")
            ) from error
        except ValueError as error:
            raise DataError(
                f"{self.state} is damaged; delete it and {self.path}, and export again."
            ) from error

    def set_attributes(self, **attributes: Any) -> None:
        """Merge into the stored attributes, atomically."""
        folder = self.state
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps({**self.attributes, **attributes}, indent=1)
        write_durably(folder / "attributes.json", text.encode())
