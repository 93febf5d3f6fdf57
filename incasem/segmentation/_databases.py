"""The two databases that an edge store can lie in, and what differs between them.

SQLite: write-ahead log, so that several processes write one after the other without errors; each commit is
flushed to the disk. It needs a file system with locks and shared memory: a local disk. PostgreSQL: through
psycopg2. Its password is taken from the URL, ``PGPASSWORD`` or ``~/.pgpass``, and never shown.
"""

import importlib
import os
import re
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import unquote, urlsplit

from incasem.errors import ConfigError, DataError, explain

__all__ = ["Database", "Run", "database_at"]

EXTRA = "postgres"
_PATIENCE_S = 600.0  # how long a worker waits for the others' transactions
_SCHEMES = ("postgresql", "postgres")

Run: TypeAlias = Callable[..., list[Any]]
"""Executes a statement (with ``?`` for its values) and returns the rows that it gives."""


@dataclass(frozen=True)
class Dialect:
    """What differs between databases."""

    placeholder: str
    tables: tuple[str, ...]


def _tables(blob: str) -> tuple[str, ...]:
    return (
        "CREATE TABLE IF NOT EXISTS incasem_meta (volume TEXT NOT NULL, name TEXT NOT NULL, "
        "value TEXT NOT NULL, PRIMARY KEY (volume, name))",
        "CREATE TABLE IF NOT EXISTS incasem_parts (volume TEXT NOT NULL, cut TEXT NOT NULL, "
        "block BIGINT NOT NULL, kind TEXT NOT NULL, part INTEGER NOT NULL, first_id BIGINT NOT NULL, "
        f"row_count INTEGER NOT NULL, data {blob} NOT NULL, PRIMARY KEY (volume, cut, block, kind, part))",
    )


_SQLITE = Dialect("?", _tables("BLOB"))
_POSTGRES = Dialect("%s", _tables("BYTEA"))


@dataclass(frozen=True)
class Database:
    """Where a database is; it is connected to when it is first used, in each process and thread.

    Attributes:
        name: for messages; without a password.
        location: path or URL.
    """

    name: str
    location: str = field(repr=False)

    @property
    def is_file(self) -> bool:
        """Whether it is a file of SQLite."""
        return not _scheme(self.location)

    @property
    def dialect(self) -> Dialect:
        """How it is spoken to."""
        return _SQLITE if self.is_file else _POSTGRES

    @contextmanager
    def transaction(self) -> Iterator[Run]:
        """Yield what runs statements, all of them in one transaction; durable when it ends.

        Raises:
            DataError: it cannot be reached, read or written, or the disk is full.
        """
        errors: tuple[type[Exception], ...] = (sqlite3.Error, OSError)
        if not self.is_file:
            errors = (_psycopg2().Error, OSError)
        try:
            connection = self._connection()
            try:
                with closing(connection.cursor()) as cursor:
                    if self.is_file:
                        cursor.execute("BEGIN IMMEDIATE")
                    yield lambda statement, values=(): _execute(cursor, self.dialect, statement, values)
                connection.commit()
            except BaseException:
                _connections().pop(self.location, None)
                connection.close()
                raise
        except errors as error:
            raise DataError(
                f"the edge store {self.name} cannot be used: {self._without_secrets(error)}. Check the path "
                "or URL, its permissions, and the free space; a file must lie on a local disk."
            ) from error

    def _without_secrets(self, error: Exception) -> str:
        """Return what an error says; a driver may repeat parts of a URL that it does not understand."""
        text = str(error).strip()
        password = "" if self.is_file else urlsplit(self.location).password or ""
        for secret in filter(None, (unquote(password), password, *password.split("@"))):
            text = text.replace(secret, "…")
        return text

    def _connection(self) -> Any:
        known = _connections()
        held = known.get(self.location)
        if held is not None and held.file != self._file():  # deleted, or another one in its place
            self.disconnect()
            held = None
        if held is None:
            connection = self._connect_to_file() if self.is_file else _psycopg2().connect(self.location)
            held = known[self.location] = _Held(connection, self._file())
        return held.connection

    def _file(self) -> tuple[int, int] | None:
        if not self.is_file or not os.path.exists(self.location):
            return None
        status = os.stat(self.location)
        return status.st_dev, status.st_ino

    def _connect_to_file(self) -> sqlite3.Connection:
        Path(self.location).parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self.location, timeout=_PATIENCE_S, isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        return connection

    def disconnect(self) -> None:
        """Close this thread's connection; the last one to a file leaves nothing beside it."""
        held = _connections().pop(self.location, None)
        if held is not None:
            held.connection.close()


@dataclass(frozen=True)
class _Held:
    """A connection, and which file it is to."""

    connection: Any
    file: tuple[int, int] | None


class _Local(threading.local):
    """The connections of this thread, by location; a forked process makes its own."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.connections: dict[str, _Held] = {}


_local = _Local()


def _connections() -> dict[str, _Held]:
    if _local.process != os.getpid():
        _local.process, _local.connections = os.getpid(), {}
    return _local.connections


def _execute(cursor: Any, dialect: Dialect, statement: str, values: Sequence[Any]) -> list[Any]:
    cursor.execute(statement.replace("?", dialect.placeholder), tuple(values))
    return list(cursor.fetchall()) if cursor.description else []


def _scheme(location: str) -> str:
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", location)
    return match[1].lower() if match else ""


def database_at(location: str | Path) -> Database:
    """Return the database at a path or URL.

    Raises:
        ConfigError: a URL of something else than PostgreSQL, or its driver is not installed.
    """
    text = os.fspath(location)
    scheme = _scheme(text)
    if not scheme:
        path = os.path.abspath(os.path.expanduser(text))
        return Database(path, path)
    if scheme not in _SCHEMES:
        raise ConfigError(
            explain("the edge store", _without_password(text), "a file, or postgresql://…", "Correct it")
        )
    _psycopg2()
    return Database(_without_password(text), text)


def _without_password(url: str) -> str:
    """Return a URL for messages: user, host, port and database, and nothing that could be a secret."""
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")
    user = place[0].partition(":")[0]
    return f"{parts.scheme}://{f'{user}@' if user else ''}{place[2]}{parts.path}"


def _psycopg2() -> Any:
    try:
        return importlib.import_module("psycopg2")
    except ImportError as error:
        raise ConfigError(
            f"psycopg2, which speaks to PostgreSQL, cannot be imported ({error}); it comes with the extra "
            f"`{EXTRA}`. Run, in the checkout: pip install -c constraints.txt -e '.[{EXTRA}]'"
        ) from error
