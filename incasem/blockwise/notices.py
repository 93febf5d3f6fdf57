"""Warnings of the workers, brought to the user's terminal.

A worker's log goes to a file that nobody reads as long as all is well. What it warns of (a tile that had to
be made smaller, a fall-back to slower arithmetic) is also written here, one file of JSON lines a worker, and
logged again by the master.
"""

import json
import logging
import os
from pathlib import Path

__all__ = ["NoticeReader", "NoticeWriter"]


class NoticeWriter(logging.Handler):
    """Writes each different warning of incasem's own loggers once; for a worker's root logger."""

    def __init__(self, folder: Path) -> None:
        super().__init__(logging.WARNING)
        self._path = folder / f"notices.{os.getpid()}.jsonl"
        self._seen: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Append the record."""
        text = record.getMessage()
        # What a block raised is reported at the end, with its cause.
        if not record.name.startswith("incasem") or record.exc_info is not None or text in self._seen:
            return
        self._seen.add(text)
        try:
            with self._path.open("a") as file:
                file.write(json.dumps([record.name, record.levelno, text]) + "\n")
        except OSError:  # a full disk: the block that needs it will say so
            self.handleError(record)


class NoticeReader:
    """Logs, in the master, what the workers have written since the last time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[Path, int] = {}

    def pass_on(self) -> None:
        """Log the new warnings, under the names of their own loggers."""
        for path in self._folder.glob("notices.*.jsonl"):
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                text = file.read()
            whole = text[: text.rfind(b"\n") + 1]
            self._read[path] = self._read.get(path, 0) + len(whole)
            for line in whole.splitlines():
                name, level, message = json.loads(line)
                logging.getLogger(name).log(level, "%s", message)

    def forget(self) -> None:
        """Remove what an earlier run has left."""
        for path in self._folder.glob("notices.*.jsonl"):
            path.unlink()
