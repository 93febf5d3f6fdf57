"""The published database comes into either store without mongorestore; torn archives leave nothing behind."""

import gzip
import math
import subprocess
import sys
from datetime import UTC, datetime

import bson
import pytest

from incasem.errors import TrackingError
from incasem.tracking import import_archive, run_experiment
from incasem.tracking.crc64 import crc64
from tests.tracking import dump

pytestmark = pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")


@pytest.fixture
def published(tmp_path):
    """An archive with runs 1841 and 2000, its collections mixed, and a collection that is not ours."""
    documents = [*dump.published_run(1841), ("omniboard.settings", {"_id": 1})]
    documents += dump.published_run(
        2000, name="np", artifact=bytes(range(256)) * 2500, values=(0.1, math.nan, 0.3)
    )
    path = tmp_path / "fiborganelle_trainings"
    # The runs before their files: order is nothing that may be relied on.
    path.write_bytes(dump.archive(documents[::-1]))
    return path


def test_checksums_are_those_of_mongodump():
    assert dump.crc64(b"123456789") == 0x995DC9BBDF1939FA, "the check value of CRC-64/XZ"
    content = bytes(range(256)) * 5
    assert crc64(content) == dump.crc64(content)
    assert crc64(content[700:], crc64(content[:700])) == crc64(content)
    assert crc64(b"") == 0


def test_all_of_a_run_arrives(store, published):
    report = import_archive(published, store)
    assert (report.copied, report.there) == ((1841, 2000), ())
    assert [run.run_id for run in store.list_runs()] == [1841, 2000]
    info = store.info(1841)
    assert (info.name, info.kind, info.status, info.host, info.commit) == (
        "er",
        "train",
        "COMPLETED",
        "gpu1",
        "c0ffee",
    )
    assert info.result == "val loss: inf"
    assert info.started == datetime(2021, 5, 4, 12, 30, 15, 250_000, tzinfo=UTC)
    assert info.options == {"--name": "er"}
    assert store.config(1841) == {
        "training": {"iterations": 90000},
        "data": {"voxel_size": [4, 4, 4]},
        "seed": 7,
    }
    metric = store.metrics(1841)["dice_class_1_validation_ds_0"]
    assert (metric.steps, metric.values) == ((0, 1000, 2000), (0.5, 0.7, 0.6))
    assert metric.times[1] == datetime(2021, 5, 4, 14, 30, 15, 250_000, tzinfo=UTC)
    assert store.artifact(1841, "train.json") == b'{"cell_1": {}}'
    assert store.artifact(2000, "train.json") == bytes(range(256)) * 2500, "three chunks, in order"
    finite = [v for v in store.metrics(2000)["dice_class_1_validation_ds_0"].values if math.isfinite(v)]
    assert finite == [0.1, 0.3]


def test_again_nothing_is_left_to_do_and_ids_go_on(store, published):
    import_archive(published, store)
    assert import_archive(published, store).there == (1841, 2000)
    outcome = run_experiment(name="t", kind="train", config={}, store=store, main=lambda run: None)
    assert outcome.run_id == 2001


def test_only_some_runs(store, published):
    assert import_archive(published, store, run_ids=[2000]).copied == (2000,)
    with pytest.raises(TrackingError, match=r"run 5 of .*allowed: 1841, 2000"):
        import_archive(published, store, run_ids=[5])


def test_own_runs_are_never_replaced(store, published, tmp_path):
    mine = run_experiment(
        name="mine", kind="train", config={"seed": 1}, store=store, main=lambda run: 1
    ).run_id
    other = tmp_path / "other"
    other.write_bytes(dump.archive(dump.published_run(mine) + dump.published_run(1841)))
    with pytest.raises(TrackingError, match=rf"has other runs with the numbers {mine};"):
        import_archive(other, store)
    assert [run.name for run in store.list_runs()] == ["mine"], "nothing was copied"


def test_gzipped(store, published):
    published.write_bytes(gzip.compress(published.read_bytes()))
    assert import_archive(published, store).copied == (1841, 2000)


@pytest.mark.parametrize("zipped", [False, True])
def test_an_archive_torn_anywhere_is_refused_and_leaves_nothing(tmp_path, zipped):
    from incasem.tracking import TRAININGS, DirectoryStore

    store = DirectoryStore(tmp_path / "runs", TRAININGS)
    whole = dump.archive(dump.published_run(1))
    content = gzip.compress(whole, mtime=0) if zipped else whole
    path = tmp_path / "torn"
    for length in range(0, len(content), 7 if zipped else 61):
        path.write_bytes(content[:length])
        with pytest.raises(TrackingError, match=r"torn (breaks off at byte|begins with)"):
            import_archive(path, store)
    assert store.list_runs() == []
    assert not (tmp_path / "runs").exists()


def test_a_wrong_byte_is_found(tmp_path):
    from incasem.tracking import TRAININGS, DirectoryStore

    store = DirectoryStore(tmp_path / "runs", TRAININGS)
    whole = dump.archive(dump.published_run(1))
    position = whole.index(b"val loss: inf")
    path = tmp_path / "damaged"
    path.write_bytes(whole[:position] + b"V" + whole[position + 1 :])
    with pytest.raises(TrackingError, match=r"the checksum of public_fiborganelle\.runs does not fit"):
        import_archive(path, store)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x00" * 100, "begins with 00 00 00 00; allowed: an archive of mongodump"),
        (dump.MAGIC + bson.encode({"version": "0.2"}), "archive format '0.2'"),
        (dump.MAGIC + b"\x03\x00\x00\x00", "a document of 3 bytes"),
        (dump.MAGIC + b"\xff\xff\xff\x7f", "a document of 2147483647 bytes"),
        (dump.archive([("metrics", {"run_id": 1})]), r"its collections are public_fiborganelle\.metrics"),
    ],
)
def test_what_is_no_dump_of_runs(tmp_path, content, message):
    from incasem.tracking import TRAININGS, DirectoryStore

    (tmp_path / "x").write_bytes(content)
    with pytest.raises(TrackingError, match=message):
        import_archive(tmp_path / "x", DirectoryStore(tmp_path / "runs", TRAININGS))


def test_memory_does_not_grow_with_the_archive(tmp_path):
    """An archive of 300 MB of metrics, in a process whose memory is measured."""
    path = tmp_path / "big"
    documents = dump.published_run(1)
    path.write_bytes(_large_archive(documents, runs=150, doubles=200_000))
    code = (
        "import resource, sys, pathlib; from incasem.tracking import DirectoryStore, import_archive\n"
        "import incasem.tracking.mongodump as m, bson, numba, numpy\n"
        "m.crc64(b'x')\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "with m.open_archive(pathlib.Path(sys.argv[1])) as a:\n"
        "    from incasem.tracking import importing\n"
        "    from contextlib import closing\n"
        "with closing(importing._sorted(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]) / 'd', None)): "
        "pass\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path), str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 60_000, "kB; the archive has 300,000"


def _large_archive(documents, runs, doubles):
    """Like `dump.archive`, its checksums by the fast function that another test compares with the slow "
    "one."""
    blob = bson.encode({"run_id": 1, "name": "x", "values": bytes(8 * doubles)})
    runs_content = b"".join(bson.encode(document) for name, document in documents if name == "runs")
    out = [dump.MAGIC, bson.encode({"version": "0.1"})]
    out += [bson.encode({"db": "d", "collection": name}) for name in ("runs", "metrics")] + [dump.TERMINATOR]
    for name, content in (("runs", runs_content), ("metrics", blob * runs)):
        signed = crc64(content)
        signed -= 2**64 if signed >= 2**63 else 0
        out += [dump._header("d", name, False, 0), content, dump.TERMINATOR]
        out += [dump._header("d", name, True, signed), dump.TERMINATOR]
    return b"".join(out)
