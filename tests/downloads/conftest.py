"""A local S3 server that holds a stand-in of the published buckets."""

import threading

import numpy as np
import pytest

from tests.downloads.s3_server import S3Server


@pytest.fixture
def s3(monkeypatch):
    """The server, empty; commands that are started find it by the environment."""
    with S3Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.url)
        yield server
        server.pause.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def published(s3):
    """Both buckets: today's with the models and cell_6, the first one with cell_3."""
    noise = np.random.default_rng(0)
    for name in ("1841_er_CF", "1847_mito_CF"):
        key = f"models/pretrained_checkpoints/model_checkpoint_{name}.pt"
        s3.put("asem-project", key, noise.bytes(3_000_000))
    cell = "datasets/cell_6/cell_6.zarr"
    s3.put("asem-project", "datasets/", b"")
    s3.put("asem-project", f"{cell}/.zgroup", b'{"zarr_format": 2}')
    for dataset in ("volumes/raw", "volumes/labels/er"):
        s3.put("asem-project", f"{cell}/{dataset}/.zarray", b"{}")
        for chunk in ("0.0.0", "0.0.1"):
            s3.put("asem-project", f"{cell}/{dataset}/{chunk}", noise.bytes(1000))
    s3.put("asem-project", f"{cell}/volumes/.zgroup", b'{"zarr_format": 2}')
    s3.put("asem-project", f"{cell}/volumes/labels/er/.empty", b"")
    s3.put("asem-project", "datasets/cell_6/read me (ü).txt", b"a name that must be quoted")
    s3.put("fibsem", "dataset/cell_3/cell_3.zarr/.zgroup", b"{}")
    return s3
