"""Folders in neuroglancer's precomputed format, as `incasem export-precomputed` makes them, and their server.

neuroglancer reads these folders itself, with meshes and properties of the segments; it needs a server that
lets other pages read (CORS) and hands out parts of files (`Range`), which Python's own one does not.
"""

import json
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any

from incasem.errors import DataError
from incasem.geometry import Coordinate, Roi
from incasem.viewing.pyramid import Factor

ADDRESS = "127.0.0.1"
"""The only one that is bound: whoever reaches the server sees the data."""
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")
_TYPE = "neuroglancer_multiscale_volume"


def is_precomputed(path: str) -> bool:
    """Tell whether a local folder holds a precomputed volume."""
    try:
        return _read_info(Path(path)).get("@type") == _TYPE
    except DataError:
        return False


@dataclass(frozen=True)
class PrecomputedVolume:
    """A precomputed volume, as far as a scene needs to know it; see `Pyramid` for the attributes.

    Attributes:
        path: the folder.
        url: where it is served.
        scales: of its `info`, the finest first.
        kind: ``segmentation`` or ``image``.
        dtype: of the voxels, by name.
    """

    path: str
    url: str
    scales: tuple[dict[str, Any], ...]
    kind: str
    dtype: str
    num_channels: int | None = None

    @property
    def levels(self) -> Sequence[Any]:
        """The scales."""
        return self.scales

    @property
    def voxel_size(self) -> tuple[float, float, float]:
        """Of the finest scale; nm, z, y, x."""
        x, y, z = (float(v) for v in self.scales[0]["resolution"])
        return (z, y, x)

    @property
    def roi_voxels(self) -> Roi:
        """Where it lies, on the finest scale's absolute grid."""
        first = self.scales[0]
        return Roi(first.get("voxel_offset", (0, 0, 0))[::-1], first["size"][::-1])

    @property
    def coarsest(self) -> Factor:
        """Voxels of the finest scale to one of the coarsest."""
        x, y, z = (
            max(1, round(a / b))
            for a, b in zip(self.scales[-1]["resolution"], self.scales[0]["resolution"], strict=True)
        )
        return (z, y, x)

    def shape_at(self, factor: Factor) -> Factor:
        """Return the voxels at a factor, a last partial voxel counted."""
        z, y, x = (-(-int(n) // f) for n, f in zip(self.roi_voxels.shape, Coordinate(factor), strict=True))
        return (z, y, x)


@contextmanager
def served_precomputed(paths: Sequence[str]) -> Iterator[list[PrecomputedVolume]]:
    """Serve precomputed folders on this machine while the context lasts.

    Raises:
        DataError: a folder is no precomputed volume.
    """
    with ExitStack() as stack:
        volumes = []
        for path in paths:
            info = _read_info(Path(path))
            url = stack.enter_context(serving(Path(path)))
            try:
                volumes.append(
                    PrecomputedVolume(
                        path, url, tuple(info["scales"]), str(info["type"]), str(info["data_type"])
                    )
                )
            except (KeyError, TypeError) as error:
                raise DataError(
                    f"{path}/info is no precomputed volume ({error} is missing). Export it again."
                ) from error
        yield volumes


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serve the files of a folder on 127.0.0.1 while the context lasts; yields the address."""
    server = ThreadingHTTPServer((ADDRESS, 0), partial(_Files, directory=str(folder)))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://{ADDRESS}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Files(SimpleHTTPRequestHandler):
    """Files and parts of files, to be read by any page in the browser; no lists of folders."""

    protocol_version = "HTTP/1.1"

    def end_headers(self) -> None:
        self.send_header("Access-Control-Allow-Origin", "*")
        self.send_header("Access-Control-Allow-Headers", "range")
        self.send_header("Access-Control-Expose-Headers", "content-range, content-length")
        super().end_headers()

    def do_OPTIONS(self) -> None:
        """Answer what a page asks before it asks for a part of a file."""
        self.send_response(HTTPStatus.NO_CONTENT)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def list_directory(self, path: Any) -> None:
        """Refuse."""
        self.send_error(HTTPStatus.NOT_FOUND)

    def send_head(self) -> Any:
        """Return the open file at the begin of what is to be sent, headers sent; None after an error."""
        wanted = _RANGE.fullmatch(self.headers.get("Range", ""))
        path = Path(self.translate_path(self.path))
        if wanted is None or not path.is_file():
            return super().send_head()
        size = path.stat().st_size
        first = int(wanted[1])
        last = min(int(wanted[2]) if wanted[2] else size - 1, size - 1)
        if first > last:
            self.send_error(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
            return None
        stream = path.open("rb")
        stream.seek(first)
        self.send_response(HTTPStatus.PARTIAL_CONTENT)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        self.send_header("Content-Length", str(last + 1 - first))
        self.end_headers()
        return _Part(stream, last + 1 - first)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing: a viewer asks for thousands of files."""


class _Part:
    """The next bytes of an open file."""

    def __init__(self, stream: IO[bytes], size: int) -> None:
        self._stream, self._left = stream, size

    def read(self, size: int = -1) -> bytes:
        """Return up to ``size`` bytes; none at the end of the part."""
        piece = self._stream.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(piece)
        return piece

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


def _read_info(path: Path) -> dict[str, Any]:
    try:
        found = json.loads((path / "info").read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no precomputed volume: {error}. Check the path.") from error
    return found if isinstance(found, dict) else {}
