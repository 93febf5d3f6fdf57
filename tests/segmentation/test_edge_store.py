import os
import pickle
import shutil
import socket
import sqlite3
import subprocess
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from incasem.errors import ConfigError, DataError
from incasem.segmentation import edge_store as module
from incasem.segmentation._pairs import EdgeCounter, count_fragments
from incasem.segmentation.edge_store import open_edge_store
from incasem.segmentation.region_graph import summed_edges, summed_fragments
from tests.segmentation.maps import random_blobs, random_map


def tables(seed, shape=(6, 7, 8)):
    """What a block might have counted."""
    ids = random_blobs(shape, seed) * np.uint64(seed % 3 + 1)
    counter = EdgeCounter(histograms=True)
    inner = tuple(n - 1 for n in shape)
    values = random_map(3, inner, seed)
    for axis, offset in enumerate([(-1, 0, 0), (0, -1, 0), (0, 0, -1)]):
        counter.add(ids, (1, 1, 1), offset, values[axis], near=True)
    return counter.table(), count_fragments(ids)


def as_bytes(table):
    return {name: (column.dtype, column.tobytes()) for name, column in vars(table).items()}


def joined(parts):
    """Parts one after the other, as they came."""
    parts = list(parts)
    return np.concatenate([part.u if hasattr(part, "u") else part.ids for part in parts])


def find_postgres():
    found = shutil.which("initdb")
    places = [Path(found).resolve().parent] if found else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((place for place in places if (place / "postgres").exists()), None)


@pytest.fixture(scope="module")
def postgres(tmp_path_factory):
    """A PostgreSQL server of our own on loopback, with a password."""
    psycopg2 = pytest.importorskip("psycopg2")
    programs = find_postgres()
    if programs is None:
        pytest.skip("no PostgreSQL: install the package postgresql to test the edge store on it")
    folder = tmp_path_factory.mktemp("postgres", numbered=True)
    user = []
    if os.getuid() == 0:  # it refuses to run as root
        if (
            shutil.which("setpriv") is None
            or subprocess.run(["id", "postgres"], capture_output=True).returncode
        ):
            pytest.skip("PostgreSQL does not run as root, and there is no user `postgres` to run it as")
        user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        folder = Path(f"/tmp/incasem-postgres-{os.getpid()}")  # tmp_path's parents are closed to others
        folder.mkdir(mode=0o700)
        shutil.chown(folder, "postgres", "postgres")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    secret = folder / "secret"
    secret.write_text("open-sesame\n")
    if user:
        shutil.chown(secret, "postgres")
    data = folder / "data"
    subprocess.run(
        [*user, programs / "initdb", "-D", data, "-U", "keeper", "--pwfile", secret, "-A", "scram-sha-256"],
        check=True, capture_output=True, cwd="/",
    )  # fmt: skip
    options = ["-p", str(port), "-h", "127.0.0.1", "-k", "", "-c", "fsync=off"]
    server = subprocess.Popen(
        [*user, programs / "postgres", "-D", data, *options],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/",
    )  # fmt: skip
    try:
        url = f"postgresql://keeper@127.0.0.1:{port}/postgres"
        deadline = time.monotonic() + 120
        while True:  # the port is open before the server lets anybody in
            try:
                psycopg2.connect(url, password="open-sesame").close()
                break
            except psycopg2.OperationalError:
                assert server.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.1)
        yield url
    finally:
        server.terminate()
        server.wait(30)
        if user:
            shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", "postgres"])
def location(request, tmp_path, monkeypatch):
    if request.param == "sqlite":
        return tmp_path / "edges.sqlite"
    url = request.getfixturevalue("postgres")
    monkeypatch.setenv("PGPASSWORD", "open-sesame")
    return url


@pytest.fixture
def edge_store(location, tmp_path):
    edge_store = open_edge_store(location, str(tmp_path))
    edge_store.create()
    yield edge_store
    edge_store.database.disconnect()


def test_what_is_written_comes_back_in_order_and_summed(edge_store, monkeypatch):
    monkeypatch.setattr(module, "ROWS_IN_A_PART", 7)
    monkeypatch.setattr(module, "_WAITING_ROWS", 20)
    blocks = [tables(seed) for seed in range(6)]
    for block, (edges, nodes) in enumerate(blocks):
        edge_store.write_block("cut", block, edges, nodes)
    edge_store.finish("cut")
    parts = list(edge_store.edges())
    assert len(parts) > 2
    pairs = [pair for part in parts for pair in zip(part.u.tolist(), part.v.tolist(), strict=True)]
    assert pairs == sorted(set(pairs))
    assert as_bytes(summed_edges(parts)) == as_bytes(summed_edges(edges for edges, _ in blocks))
    nodes = list(edge_store.fragments())
    assert (np.diff(joined(nodes).astype(np.int64)) > 0).all()
    assert as_bytes(summed_fragments(nodes)) == as_bytes(summed_fragments(n for _, n in blocks))


def test_a_block_that_is_done_twice_counts_once(edge_store):
    first, second = tables(1), tables(2)
    edge_store.write_block("cut", 0, *second)
    edge_store.write_block("cut", 0, *first)
    edge_store.write_block("cut", 0, *first)
    edge_store.finish("cut")
    assert as_bytes(summed_edges(edge_store.edges())) == as_bytes(first[0])
    assert as_bytes(summed_fragments(edge_store.fragments())) == as_bytes(first[1])


def test_the_parts_of_another_cut_are_left_out(edge_store):
    first, second = tables(1), tables(2)
    edge_store.write_block("old", 0, *first)
    edge_store.write_block("new", 0, *second)
    with pytest.raises(DataError, match="is not complete"):
        list(edge_store.edges())
    edge_store.finish("new", job="x")
    assert as_bytes(summed_edges(edge_store.edges())) == as_bytes(second[0])
    assert edge_store.attributes == {"cut": "new", "job": "x"}
    edge_store.finish("old")
    assert list(edge_store.edges()) == []


def test_graphs_in_one_database_are_apart(edge_store, location):
    other = open_edge_store(location, "another volume")
    assert other.create() != edge_store.create()
    assert other.create() == other.create()
    other.write_block("cut", 0, *tables(1))
    other.finish("cut")
    edge_store.write_block("cut", 0, *tables(2))
    edge_store.finish("cut")
    assert as_bytes(summed_edges(edge_store.edges())) == as_bytes(tables(2)[0])
    edge_store.set_attributes(a=1)
    assert "a" not in other.attributes


def _write_blocks(pickled, blocks):
    edge_store = pickle.loads(pickled)
    for block in blocks:
        edge_store.write_block("cut", block, *tables(block))


def test_several_processes_write_at_the_same_time(edge_store):
    pickled = pickle.dumps(edge_store)
    context = get_context("spawn")
    workers = [
        context.Process(target=_write_blocks, args=(pickled, range(first, 12, 3))) for first in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    edge_store.finish("cut")
    wanted = summed_edges(tables(block)[0] for block in range(12))
    assert as_bytes(summed_edges(edge_store.edges())) == as_bytes(wanted)


def test_empty_tables(edge_store):
    edges, nodes = tables(1)
    edge_store.write_block("cut", 0, edges.rows(0, 0), nodes.rows(0, 0))
    edge_store.finish("cut")
    assert list(edge_store.edges()) == list(edge_store.fragments()) == []


def test_a_password_is_never_shown(postgres, monkeypatch):
    monkeypatch.delenv("PGPASSWORD", raising=False)
    wrong = postgres.replace("keeper@", "keeper:opensesamy@")
    edge_store = open_edge_store(wrong, "x")
    with pytest.raises(DataError, match="cannot be used") as info:
        edge_store.create()
    for text in (str(info.value), edge_store.path, repr(edge_store.database)):
        assert "opensesamy" not in text
    assert "keeper@127.0.0.1" in str(info.value)
    for password in ("open@sesamy", "open%20sesamy"):  # one that had to be quoted, and one that is
        torn = open_edge_store(postgres.replace("keeper@", f"keeper:{password}@"), "x")
        with pytest.raises(DataError, match="cannot be used") as info:
            torn.create()
        assert "sesamy" not in str(info.value)
    right = open_edge_store(postgres.replace("keeper@", "keeper:open-sesame@"), "y")
    assert right.create()
    right.database.disconnect()


def test_a_url_of_something_else_is_refused():
    with pytest.raises(ConfigError, match=r"mysql://me@host/db; allowed: a file, or postgresql"):
        open_edge_store("mysql://me:secret@host/db?password=secret", "x")


def test_a_missing_driver_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "psycopg2", None)
    with pytest.raises(ConfigError, match=r"extra `postgres`"):
        open_edge_store("postgresql://host/db", "x")


def test_a_file_that_is_none_of_ours_is_named(tmp_path):
    (tmp_path / "edges.sqlite").write_text("no database" * 1000)
    with pytest.raises(DataError, match=r"edges\.sqlite cannot be used: file is not a database"):
        open_edge_store(tmp_path / "edges.sqlite", "x").create()


def test_a_full_disk_is_named_and_leaves_what_was_there(tmp_path):
    edge_store = open_edge_store(tmp_path / "edges.sqlite", "x")
    edge_store.create()
    edge_store.write_block("cut", 0, *tables(0))
    pages = edge_store.database._connection().execute("PRAGMA page_count").fetchone()[0]
    edge_store.database._connection().execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(DataError, match="database or disk is full"):
        edge_store.write_block("cut", 1, *tables(1, (40, 40, 40)))
    edge_store.finish("cut")
    assert as_bytes(summed_edges(edge_store.edges())) == as_bytes(tables(0)[0])
    edge_store.database.disconnect()


def test_damaged_parts_are_not_believed(tmp_path):
    edge_store = open_edge_store(tmp_path / "edges.sqlite", "x")
    edge_store.create()
    edge_store.write_block("cut", 0, *tables(0))
    edge_store.finish("cut")
    edge_store.database.disconnect()
    with sqlite3.connect(tmp_path / "edges.sqlite") as connection:
        connection.execute("UPDATE incasem_parts SET data = substr(data, 1, length(data) - 1)")
    connection.close()
    for read in (edge_store.edges, edge_store.fragments):
        with pytest.raises(DataError, match=r"is damaged\. Delete it"):
            list(read())
    edge_store.database.disconnect()


def test_one_file_is_left(tmp_path):
    edge_store = open_edge_store(tmp_path / "deep/edges.sqlite", "x")
    edge_store.create()
    edge_store.write_block("cut", 0, *tables(0))
    edge_store.database.disconnect()
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["edges.sqlite"]
