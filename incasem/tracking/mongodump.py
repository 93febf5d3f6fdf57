"""Reader of the archives that `mongodump --archive` writes, without MongoDB's tools.

The format is MongoDB's own (mongodb/mongo-tools, common/archive/spec.md, version 0.1): a magic number, a
header, a document for each collection, a terminator; then segments, each a header that names a collection,
documents of it and a terminator, those of several collections mixed as they were dumped. A header with EOF
closes a collection and holds the CRC-64 of all its documents. All documents are BSON; nothing in them is
executed.
"""

import gzip
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from incasem.errors import TrackingError
from incasem.tracking.crc64 import crc64

_MAGIC = 0x8199E26D.to_bytes(4, "little")
_GZIP_MAGIC = b"\x1f\x8b"
_TERMINATOR = -1  # as the size of a document
_FORMAT_VERSION = "0.1"
# A document of 16 MiB, and what MongoDB allows itself beyond.
_SMALLEST, _LARGEST = 5, 16 * 2**20 + 16 * 2**10


class Archive:
    """An open archive; its documents can be read once."""

    def __init__(self, stream: IO[bytes], name: str) -> None:
        """Read what stands before the documents.

        Args:
            stream: open for reading bytes, at its start.
            name: for messages.

        Raises:
            TrackingError: this is no archive, or a damaged one.
        """
        self._stream, self._name, self._position = stream, name, 0
        self._ahead = b""  # a byte read to see whether there is one
        magic = self._bytes(4, "the magic number")
        if magic != _MAGIC:
            raise TrackingError(
                f"{name} begins with {magic.hex(' ')}; allowed: an archive of mongodump (--archive, gzipped "
                f"or not), which begins with {_MAGIC.hex(' ')}. Check the path."
            )
        header = self._decoded(self._document("the header"), "the header")
        if header.get("version") != _FORMAT_VERSION:
            raise TrackingError(
                f"{name} has the archive format {header.get('version')!r}; allowed: {_FORMAT_VERSION}. "
                "Restore it with MongoDB's own mongorestore."
            )
        self.collections: list[tuple[str, str]] = []
        while (document := self._document("the list of collections")) is not None:
            entry = self._decoded(document, "the list of collections")
            self.collections.append((str(entry.get("db")), str(entry.get("collection"))))

    def documents(self) -> Iterator[tuple[str, str, bytes]]:
        """Yield database, collection and BSON of each document; one document is in memory at a time.

        Raises:
            TrackingError: the archive breaks off or is damaged; at the latest after the last document.
        """
        checksums: dict[tuple[str, str], int] = {}
        closed: set[tuple[str, str]] = set()
        while not self._at_end():
            header = self._decoded(self._document("a header"), "a header")
            space = (str(header.get("db")), str(header.get("collection")))
            if space in closed:
                raise self._damaged(f"{'.'.join(space)} goes on after its end")
            checksum = checksums.get(space, 0)
            while (document := self._document(".".join(space))) is not None:
                checksum = crc64(document, checksum)
                yield *space, document
            checksums[space] = checksum
            if header.get("EOF"):
                if int(header.get("CRC", 0)) % 2**64 != checksum:
                    raise self._damaged(f"the checksum of {'.'.join(space)} does not fit")
                closed.add(space)
        unfinished = sorted(".".join(space) for space in (set(checksums) | set(self.collections)) - closed)
        if unfinished:
            raise self._torn(f"after which {', '.join(unfinished)} should go on")

    def _at_end(self) -> bool:
        self._ahead = self._read(1, "a header")
        return not self._ahead

    def _document(self, what: str) -> bytes | None:
        """Return the next document, or None for a terminator."""
        size_bytes = self._bytes(4, what)
        (size,) = struct.unpack("<i", size_bytes)
        if size == _TERMINATOR:
            return None
        if not _SMALLEST <= size <= _LARGEST:
            raise self._damaged(f"{what} has a document of {size} bytes")
        document = size_bytes + self._bytes(size - 4, what)
        if document[-1] != 0:
            raise self._damaged(f"{what} has a document without its end")
        return document

    def _decoded(self, document: bytes | None, what: str) -> dict[str, Any]:
        import bson
        from bson.errors import InvalidBSON

        if document is None:
            raise self._damaged(f"{what} is missing")
        try:
            decoded: dict[str, Any] = bson.decode(document)
        except InvalidBSON:
            raise self._damaged(f"{what} is no BSON") from None
        return decoded

    def _bytes(self, count: int, what: str) -> bytes:
        content = self._ahead + self._read(count - len(self._ahead), what)
        self._ahead = b""
        if len(content) < count:
            raise self._torn(f"within {what}")
        return content

    def _read(self, count: int, what: str) -> bytes:
        try:
            content = self._stream.read(count)
        except EOFError:
            raise self._torn(f"within {what}") from None
        except (OSError, zlib.error) as error:  # gzip's own errors are of both kinds
            raise self._damaged(f"it cannot be read ({error})") from None
        self._position += len(content)
        return content

    def _torn(self, where: str) -> TrackingError:
        return TrackingError(
            f"{self._name} breaks off at byte {self._position}, {where}; allowed: a whole archive. Nothing "
            "was imported. Download or copy it again (`incasem download models` goes on where a download "
            "stood)."
        )

    def _damaged(self, what: str) -> TrackingError:
        return TrackingError(
            f"{self._name} is damaged near byte {self._position}: {what}; allowed: an archive as mongodump "
            "wrote it. Nothing was imported. Download or copy it again."
        )


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """Open an archive, gzipped or not.

    Raises:
        TrackingError: there is none, or it is damaged.
    """
    try:
        stream: Any = path.open("rb")
    except OSError as error:
        raise TrackingError(
            f"the archive {path} cannot be opened ({error.strerror}); allowed: a file that mongodump "
            "--archive wrote. Check the path; `incasem download models` fetches the published one."
        ) from None
    with stream:
        zipped = stream.read(2) == _GZIP_MAGIC
        stream.seek(0)
        if zipped:
            with gzip.open(stream) as unzipped:
                yield Archive(unzipped, str(path))  # type: ignore[arg-type]
        else:
            yield Archive(stream, str(path))
