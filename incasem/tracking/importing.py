"""Import the runs of a MongoDB dump into a run store.

An archive mixes its collections, so the documents of one run may lie anywhere in it. They are sorted in a
temporary database on disk first; nothing reaches the run store before the archive was read to its end and its
checksums fit.
"""

import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import IO, Any

from incasem.errors import TrackingError, explain
from incasem.tracking.mongodump import Archive, open_archive
from incasem.tracking.records import Opener, RunRecord
from incasem.tracking.stores import RunStore, id_ranges
from incasem.tracking.transfer import TransferReport, copy_records

# By which field the documents of each collection are found again.
_KEYS = {"runs": "_id", "metrics": "run_id", "fs.files": "_id", "fs.chunks": "files_id"}
_SPOOLED_BYTES = 16 << 20


def import_archive(
    path: Path, target: RunStore, *, database: str | None = None, run_ids: Iterable[int] = ()
) -> TransferReport:
    """Copy the runs of a `mongodump --archive` file into a store, with their numbers.

    Args:
        path: the archive, gzipped or not. Temporary space of its unpacked size is needed (TMPDIR).
        target: a directory store or a MongoDB.
        database: of the dump; None: the only one with runs.
        run_ids: which runs; none: all.

    Returns:
        which runs were copied, and which were there.

    Raises:
        TrackingError: the archive is no archive, torn or damaged, has no such runs, or the target has other
        runs with
            their numbers. Nothing is written then.
    """
    with (
        tempfile.TemporaryDirectory(prefix="incasem-import-") as folder,
        closing(_sorted(path, Path(folder) / "documents.sqlite", database)) as documents,
    ):
        staged = _Staged(documents, str(path))
        return copy_records(staged.choose(run_ids), staged.record, target)


def _sorted(path: Path, place: Path, database: str | None) -> sqlite3.Connection:
    """Return a database of the archive's documents, found by collection and key."""
    documents = sqlite3.connect(place)
    # It is thrown away after a crash, so it need not survive one.
    documents.execute("PRAGMA synchronous = OFF")
    documents.execute("PRAGMA journal_mode = OFF")
    documents.execute("CREATE TABLE documents (collection TEXT, key TEXT, number INTEGER, bson BLOB)")
    with open_archive(path) as archive:
        wanted = _database(archive, str(path), database)
        documents.executemany("INSERT INTO documents VALUES (?, ?, ?, ?)", _rows(archive, wanted))
    documents.execute("CREATE INDEX place ON documents (collection, key, number)")
    return documents


def _database(archive: Archive, name: str, asked: str | None) -> str:
    """Return the database of the archive that holds runs."""
    with_runs = sorted({db for db, collection in archive.collections if collection == "runs"})
    if asked is not None and asked in with_runs:
        return asked
    if asked is not None or not with_runs:
        held = ", ".join(with_runs) or "none; its collections are " + (
            ", ".join(".".join(space) for space in archive.collections) or "none"
        )
        raise TrackingError(
            explain(
                f"the database to import from {name}", asked or "not named",
                f"one with the collection runs: {held}", "Correct --database, or the path",
            )
        )  # fmt: skip
    if len(with_runs) > 1:
        raise TrackingError(
            explain("--database", "not given", f"one of {', '.join(with_runs)}", "Choose one")
        )
    return with_runs[0]


def _rows(archive: Archive, wanted: str) -> Iterator[tuple[str, str, int, bytes]]:
    from bson.errors import InvalidBSON
    from bson.raw_bson import RawBSONDocument

    for database, collection, content in archive.documents():
        if database != wanted or collection not in _KEYS:
            continue
        try:
            document = RawBSONDocument(content)
            yield collection, str(document.get(_KEYS[collection])), int(document.get("n", 0)), content
        except (InvalidBSON, TypeError, ValueError) as error:
            raise TrackingError(
                f"a document of {database}.{collection} cannot be read ({error}); allowed: BSON as Sacred "
                "wrote it. Nothing was imported. Download or copy the archive again."
            ) from None


class _Staged:
    """The sorted documents of an archive, as records."""

    def __init__(self, documents: sqlite3.Connection, name: str) -> None:
        self._documents, self._name = documents, name

    def choose(self, asked: Iterable[int]) -> list[int]:
        """Return the numbers of the runs to import, in order; all that are numbers if none is asked for."""
        keys = self._documents.execute("SELECT key FROM documents WHERE collection = 'runs'")
        held = sorted(int(key) for (key,) in keys if key.isdecimal())
        wanted = sorted(set(asked)) or held
        missing = sorted(set(wanted) - set(held))
        if missing:
            raise TrackingError(
                explain(
                    f"run {id_ranges(missing)} of {self._name}", "not there",
                    id_ranges(held) if held else "the archive has no runs", "Correct --runs",
                )
            )  # fmt: skip
        return wanted

    def record(self, run_id: int) -> RunRecord:
        """Return the record of a run; its metrics and files are read when they are asked for."""
        entry = next(self._decoded("runs", str(run_id)))
        experiment = entry.get("experiment") or {}
        artifacts = {
            str(artifact["name"]): self._file(artifact["file_id"])
            for artifact in entry.get("artifacts") or []
            if self._has_file(artifact["file_id"])
        }
        sources = {
            str(name): self._file(file_id)
            for name, file_id in experiment.get("sources") or []
            if self._has_file(file_id)
        }

        def metrics() -> Iterator[tuple[str, dict[str, list[Any]]]]:
            for metric in self._decoded("metrics", str(run_id)):
                yield metric["name"], {key: metric[key] for key in ("steps", "values", "timestamps")}

        names = tuple(metric["name"] for metric in self._decoded("metrics", str(run_id)))
        return RunRecord(run_id, entry, metrics, names, artifacts, sources)

    def _decoded(self, collection: str, key: str) -> Iterator[dict[str, Any]]:
        import bson

        rows = self._documents.execute(
            "SELECT bson FROM documents WHERE collection = ? AND key = ? ORDER BY number", (collection, key)
        )
        for (content,) in rows:
            yield bson.decode(content)

    def _has_file(self, file_id: Any) -> bool:
        return next(self._decoded("fs.files", str(file_id)), None) is not None

    def _file(self, file_id: Any) -> Opener:
        def read() -> IO[bytes]:
            content = tempfile.SpooledTemporaryFile(max_size=_SPOOLED_BYTES)  # noqa: SIM115 - the caller closes it
            for chunk in self._decoded("fs.chunks", str(file_id)):
                content.write(chunk["data"])
            size = int(next(self._decoded("fs.files", str(file_id)))["length"])
            if content.tell() != size:
                content.close()
                raise TrackingError(
                    f"a file of {self._name} has {content.tell()} of {size} bytes; allowed: all of them. "
                    "Download or copy the archive again."
                )
            content.seek(0)
            return content

        return read
