"""A small S3 server for tests: ListObjectsV2 in short pages, GET with Range and If-Match, faults on demand.

It refuses signed requests, since public buckets must be read without an account.
"""

import hashlib
import re
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

PAGE = 3


def etag_of(content: bytes, part_bytes: int | None = None) -> str:
    """The ETag that S3 gives an object stored in one piece, or in parts."""
    if part_bytes is None:
        return hashlib.md5(content).hexdigest()
    parts = [content[i : i + part_bytes] for i in range(0, len(content), part_bytes)]
    digests = b"".join(hashlib.md5(part).digest() for part in parts)
    return f"{hashlib.md5(digests).hexdigest()}-{len(parts)}"


class S3Server(ThreadingHTTPServer):
    """Buckets in memory.

    Faults: `break_at[key]`: bytes at which the next connections are cut; `corrupt[key]`: number of answers
    with a wrong byte; `busy`: number of 503s to come; `pause_at`: byte at which answers wait for `pause`.
    """

    daemon_threads = True

    def __init__(self) -> None:
        self.buckets: dict[str, dict[str, tuple[bytes, str]]] = {}
        self.break_at: dict[str, list[int]] = {}
        self.corrupt: Counter[str] = Counter()
        self.busy = 0
        self.pause = threading.Event()
        self.pause.set()
        self.pause_at: int | None = None
        self.requests: list[tuple[str, str | None]] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def put(self, bucket: str, key: str, content: bytes, part_bytes: int | None = None) -> None:
        self.buckets.setdefault(bucket, {})[key] = (content, etag_of(content, part_bytes))

    def got(self, key: str) -> list[str | None]:
        """The Range headers of the requests for a key."""
        return [asked for path, asked in self.requests if path.endswith(f"/{key}")]


class _Handler(BaseHTTPRequestHandler):
    server: S3Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *_) -> None:
        pass

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        self.server.requests.append((unquote(url.path), self.headers.get("Range")))
        if "Authorization" in self.headers:
            self._answer(400, b"signed")
            return
        if self.server.busy > 0:
            self.server.busy -= 1
            self._answer(503, b"SlowDown")
            return
        bucket, _, key = unquote(url.path).strip("/").partition("/")
        if bucket not in self.server.buckets:
            self._answer(404, b"NoSuchBucket")
        elif key:
            self._object(bucket, key)
        else:
            self._list(self.server.buckets[bucket], {k: v[0] for k, v in parse_qs(url.query).items()})

    def _answer(self, code: int, body: bytes, **headers: str) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _list(self, objects, query) -> None:
        assert query["list-type"] == "2"
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
        keys = sorted(key for key in objects if key.startswith(prefix))
        entries = []
        for key in keys:
            inside, found, _ = key.removeprefix(prefix).partition(delimiter or "\0")
            entries.append(("folder", prefix + inside + delimiter) if found else ("object", key))
        entries = list(dict.fromkeys(entries))
        start = int(query.get("continuation-token", 0))
        page = entries[start : start + min(PAGE, int(query.get("max-keys", PAGE)))]
        more = start + len(page) < len(entries)
        body = '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        body += f"<IsTruncated>{'true' if more else 'false'}</IsTruncated>"
        if more:
            body += f"<NextContinuationToken>{start + len(page)}</NextContinuationToken>"
        for kind, key in page:
            if kind == "folder":
                body += f"<CommonPrefixes><Prefix>{escape(key)}</Prefix></CommonPrefixes>"
            else:
                content, etag = objects[key]
                body += f"<Contents><Key>{escape(key)}</Key><Size>{len(content)}</Size>"
                body += f"<ETag>&quot;{etag}&quot;</ETag></Contents>"
        self._answer(200, f"{body}</ListBucketResult>".encode(), Content_Type="application/xml")

    def _object(self, bucket: str, key: str) -> None:
        objects = self.server.buckets[bucket]
        if key not in objects:
            self._answer(404, b"NoSuchKey")
            return
        content, etag = objects[key]
        if self.headers.get("If-Match", f'"{etag}"') != f'"{etag}"':
            self._answer(412, b"PreconditionFailed")
            return
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(asked[1]) if asked else 0
        if asked and start >= len(content):
            self._answer(416, b"InvalidRange")
            return
        if self.server.corrupt[key] > 0:
            self.server.corrupt[key] -= 1
            content = content[:-1] + bytes([content[-1] ^ 1])
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("ETag", f'"{etag}"')
        self.end_headers()
        breaks = self.server.break_at.get(key, [])
        end = breaks.pop(0) if breaks else None
        if self.server.pause_at is not None and start < self.server.pause_at:
            self.wfile.write(content[start : self.server.pause_at])
            self.wfile.flush()
            self.server.pause.wait(60)
            start = self.server.pause_at
        self.wfile.write(content[start:end])
        if end is not None:
            self.close_connection = True
