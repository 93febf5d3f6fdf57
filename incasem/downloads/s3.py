"""A public S3 bucket, read without an account: its list of objects, and an object's bytes from an offset.

S3's REST interface for anonymous readers is two plain requests (ListObjectsV2 and GET with a Range), so
`requests` is enough: it brings proxies, certificates and retries. (Amazon's botocore cannot be installed
beside the versions in constraints.txt: it wants python-dateutil < 3.)
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

from incasem.errors import DataError, explain

_NAMESPACE = "{http://s3.amazonaws.com/doc/2006-03-01/}"
_RETRIED = (429, 500, 502, 503, 504)  # S3 says 503 "slow down" under load
_TIMEOUTS_S = (15.0, 60.0)  # to connect, and between two packets
PORTION_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class RemoteObject:
    """One object of a bucket: its key, size in bytes, and ETag without quotes."""

    key: str
    size: int
    etag: str


class Bucket:
    """A bucket on Amazon S3 or on another server that speaks S3; may be used by several threads."""

    def __init__(self, name: str, endpoint: str | None = None, connections: int = 8) -> None:
        """Name the bucket; nothing is asked of the server yet.

        Args:
            name: of the bucket, without `s3://`.
            endpoint: URL of another server; None: AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, else Amazon.
            connections: kept open at a time.
        """
        import requests
        from requests.adapters import HTTPAdapter
        from urllib3.util import Retry

        environment = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        self.name = name
        self._endpoint = (endpoint or environment or "").rstrip("/")
        self._base = f"{self._endpoint}/{name}" if self._endpoint else f"https://{name}.s3.amazonaws.com"
        retries = Retry(
            total=6, backoff_factor=0.5, status_forcelist=_RETRIED, allowed_methods=["GET"],
            raise_on_status=False,
        )  # fmt: skip
        self._session = requests.Session()
        for scheme in ("https://", "http://"):
            self._session.mount(scheme, HTTPAdapter(pool_maxsize=connections, max_retries=retries))
        # No account, whatever a .netrc may hold for this host.
        self._session.auth = lambda request: request

    @property
    def location(self) -> str:
        """The bucket as messages name it."""
        return f"s3://{self.name}" + (f" at {self._endpoint}" if self._endpoint else "")

    def objects(self, prefix: str) -> Iterator[RemoteObject]:
        """Yield the objects below a prefix, a thousand a request; folder markers are left out.

        Raises:
            DataError: the bucket cannot be listed.
        """
        for page in self._pages({"prefix": prefix}):
            for entry in page.iter(f"{_NAMESPACE}Contents"):
                key = _text(entry, "Key")
                if not key.endswith("/"):
                    yield RemoteObject(key, int(_text(entry, "Size")), _text(entry, "ETag").strip('"'))

    def folders(self, prefix: str) -> list[str]:
        """Return the names of the folders directly below a prefix (which ends in `/`).

        Raises:
            DataError: the bucket cannot be listed.
        """
        return [
            _text(entry, "Prefix").removeprefix(prefix).rstrip("/")
            for page in self._pages({"prefix": prefix, "delimiter": "/"})
            for entry in page.iter(f"{_NAMESPACE}CommonPrefixes")
        ]

    def holds(self, prefix: str) -> bool:
        """Return whether anything lies below a prefix; False, too, where there is no such bucket.

        Raises:
            DataError: the server cannot be reached.
        """
        with self._get("", {"list-type": "2", "prefix": prefix, "max-keys": "1"}) as response:
            if response.status_code in (403, 404):
                return False
            self._check(response, "list it")
            return _parsed(response.content).find(f"{_NAMESPACE}Contents") is not None

    @contextmanager
    def read(self, remote: RemoteObject, start: int) -> Iterator[Iterator[bytes]]:
        """Open an object, and give its bytes from ``start`` on in portions.

        Raises:
            DataError: the object cannot be read, or is another one by now (its ETag has changed).
        """
        headers = {"If-Match": f'"{remote.etag}"', "Range": f"bytes={start}-"}
        with self._get(quote(remote.key), {}, headers) as response:
            if response.status_code == 412:
                raise DataError(
                    f"{self.location}/{remote.key} was replaced while it was downloaded; allowed: one "
                    "version of it. Run the same command again."
                )
            self._check(response, f"read {remote.key}")
            # A server that ignores Range begins at the start; what it sends must not be appended.
            skip = start if response.status_code == 200 else 0
            yield _after(skip, response.raw.stream(PORTION_BYTES, decode_content=False))

    def _pages(self, query: dict[str, str]) -> Iterator[ElementTree.Element]:
        token: str | None = None
        while True:
            more = {} if token is None else {"continuation-token": token}
            with self._get("", {"list-type": "2"} | query | more) as response:
                self._check(response, "list it")
                page = _parsed(response.content)
            yield page
            if page.findtext(f"{_NAMESPACE}IsTruncated") != "true":
                return
            token = _text(page, "NextContinuationToken")

    def _get(self, path: str, query: dict[str, str], headers: dict[str, str] | None = None) -> Any:
        """Ask, and once more where the bucket's own region is if Amazon says that it is another one."""
        import requests

        for _ in range(2):
            try:
                response = self._session.get(
                    f"{self._base}/{path}", params=query, stream=True, timeout=_TIMEOUTS_S,
                    headers={"Accept-Encoding": "identity"} | (headers or {}),
                )  # fmt: skip
            except requests.RequestException as error:
                raise DataError(
                    f"{self.location} does not answer ({type(error).__name__}); allowed: a server that can "
                    "be reached. Check the network and HTTPS_PROXY; what was downloaded is kept, and the "
                    "same command goes on with it."
                ) from None
            region = response.headers.get("x-amz-bucket-region")
            if response.status_code not in (301, 400) or region is None or self._endpoint:
                break
            response.close()
            self._base = f"https://{self.name}.s3.{region}.amazonaws.com"
        return response

    def _check(self, response: Any, action: str) -> None:
        if response.status_code >= 300:
            raise DataError(
                explain(
                    f"the answer of {self.location}, asked to {action},",
                    f"{response.status_code} {response.reason}",
                    "what everybody may read",
                    "Check the name, and --bucket and --endpoint if given",
                )
            )


def _after(skip: int, portions: Iterator[bytes]) -> Iterator[bytes]:
    for portion in portions:
        kept = portion[skip:]
        skip -= len(portion) - len(kept)
        if kept:
            yield kept


def _parsed(content: bytes) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        raise DataError(
            f"the list of the bucket is no XML ({error}); allowed: S3's ListObjectsV2. A proxy or a login "
            "page may have answered instead: check the network."
        ) from None


def _text(element: ElementTree.Element, name: str) -> str:
    text = element.findtext(f"{_NAMESPACE}{name}")
    if text is None:
        raise DataError(
            f"the list of the bucket has an entry without {name}; allowed: S3's ListObjectsV2. "
            "Check --endpoint."
        )
    return text
