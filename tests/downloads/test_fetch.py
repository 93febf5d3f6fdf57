"""Downloads are whole, resumed, checked, and never overwrite what somebody changed."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from incasem.downloads import PUBLISHED, Bucket, fetch, find_published
from incasem.downloads.checksums import matches, part_sizes
from incasem.errors import DataError
from tests.downloads.s3_server import etag_of

KEY = "models/pretrained_checkpoints/model_checkpoint_1841_er_CF.pt"
MIB = 1 << 20


def bucket(s3, name="asem-project"):
    return Bucket(name, s3.url)


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def expected(s3, prefix, name="asem-project"):
    return {
        key.removeprefix(prefix): content
        for key, (content, _) in s3.buckets[name].items()
        if key.startswith(prefix) and not key.endswith("/")
    }


def test_a_folder_arrives_as_it_is(published, tmp_path):
    report = fetch(bucket(published), "datasets/cell_6/", tmp_path / "cell_6", progress=False)
    wanted = expected(published, "datasets/cell_6/")
    assert contents(tmp_path / "cell_6") == wanted
    assert (report.fetched, report.already, report.unchecked) == (len(wanted), 0, 0)
    assert report.fetched_bytes == sum(map(len, wanted.values()))
    again = fetch(bucket(published), "datasets/cell_6/", tmp_path / "cell_6", progress=False)
    assert (again.fetched, again.already, again.fetched_bytes) == (0, len(wanted), 0)
    assert "were there" in again.summary()


def test_only_some_datasets_with_the_groups_above_them(published, tmp_path):
    fetch(bucket(published), "datasets/cell_6/", tmp_path, only=["volumes/labels/er"], progress=False)
    assert set(contents(tmp_path)) == {
        "cell_6.zarr/.zgroup", "cell_6.zarr/volumes/.zgroup",
        *(f"cell_6.zarr/volumes/labels/er/{name}" for name in (".zarray", "0.0.0", "0.0.1", ".empty")),
    }  # fmt: skip
    with pytest.raises(DataError, match=r"--only volumes/labels/mito.*cell_6.zarr/volumes/raw"):
        fetch(bucket(published), "datasets/cell_6/", tmp_path, only=["volumes/labels/mito"], progress=False)


def test_a_connection_that_breaks_is_taken_up_where_it_broke(published, tmp_path):
    published.break_at[KEY] = [1_000_000, 2_500_000]
    fetch(bucket(published), "models/", tmp_path, workers=1, progress=False)
    assert contents(tmp_path) == expected(published, "models/")
    ranges = published.got(KEY)
    assert ranges[0] == "bytes=0-"
    assert len(ranges) == 3
    starts = [int(asked.removeprefix("bytes=").rstrip("-")) for asked in ranges]
    assert starts == sorted(starts)
    assert starts[1] > 0


def test_a_connection_that_never_gets_on_is_an_error_and_what_came_is_kept(published, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["incasem.downloads.fetch"], "_ATTEMPTS", 2)
    published.break_at[KEY] = [1_500_000, *[0] * 5]
    with pytest.raises(DataError, match=r"1841_er_CF.pt breaks off at byte 1500000 of 3000000"):
        fetch(bucket(published), "models/", tmp_path, workers=1, progress=False)
    (part,) = (tmp_path / "pretrained_checkpoints").glob(".*1841*.part")
    assert part.stat().st_size == 1_500_000
    assert not (tmp_path / "pretrained_checkpoints/model_checkpoint_1841_er_CF.pt").exists()
    published.break_at.clear()
    published.requests.clear()
    fetch(bucket(published), "models/", tmp_path, progress=False)
    assert published.got(KEY) == ["bytes=1500000-"]
    assert contents(tmp_path) == expected(published, "models/")


def test_a_busy_server_is_asked_again(published, tmp_path):
    published.busy = 2
    fetch(bucket(published), "models/", tmp_path, workers=1, progress=False)
    assert contents(tmp_path) == expected(published, "models/")


def test_damage_on_the_way_is_repaired_once_and_then_refused(published, tmp_path, caplog):
    published.corrupt[KEY] = 1
    fetch(bucket(published), "models/", tmp_path / "a", progress=False)
    assert contents(tmp_path / "a") == expected(published, "models/")
    assert "wrong checksum; it is downloaded again" in caplog.text
    published.corrupt[KEY] = 2
    with pytest.raises(DataError, match="wrong checksum twice"):
        fetch(bucket(published), "models/", tmp_path / "b", workers=1, progress=False)
    assert not list((tmp_path / "b").rglob("*1841*"))


def test_a_damaged_part_of_an_earlier_download_is_found(published, tmp_path):
    etag = published.buckets["asem-project"][KEY][1]
    folder = tmp_path / "pretrained_checkpoints"
    folder.mkdir()
    (folder / f".model_checkpoint_1841_er_CF.pt.{etag}.part").write_bytes(b"not what was there" * 1000)
    fetch(bucket(published), "models/", tmp_path, progress=False)
    assert contents(tmp_path) == expected(published, "models/")


def test_files_that_somebody_changed_are_kept_unless_told_otherwise(published, tmp_path):
    fetch(bucket(published), "datasets/cell_6/", tmp_path, progress=False)
    mine, lost = tmp_path / "cell_6.zarr/.zgroup", tmp_path / "cell_6.zarr/volumes/raw/0.0.1"
    mine.write_bytes(b"{}")
    lost.unlink()
    with pytest.raises(DataError, match=r"1 files differ .* were kept: .*cell_6.zarr/.zgroup; .*--overwrite"):
        fetch(bucket(published), "datasets/cell_6/", tmp_path, progress=False)
    assert mine.read_bytes() == b"{}"
    assert lost.exists(), "everything else is complete"
    fetch(bucket(published), "datasets/cell_6/", tmp_path, overwrite=True, progress=False)
    assert contents(tmp_path) == expected(published, "datasets/cell_6/")


def test_an_object_that_is_replaced_meanwhile_is_not_mixed(published, tmp_path):
    server = bucket(published)
    (old,) = [o for o in server.objects("models/") if o.key == KEY]
    published.put("asem-project", KEY, b"new")
    with pytest.raises(DataError, match="was replaced while it was downloaded"), server.read(old, 10):
        pass


def test_no_room(published, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DataError, match=r"0\.0 GB free.*--only"):
        fetch(bucket(published), "models/", tmp_path / "x", progress=False)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("key", ["models/../../evil", "models//etc/passwd"])
def test_a_key_that_leads_out_of_the_folder_is_refused(s3, tmp_path, key):
    s3.put("asem-project", key, b"x")
    with pytest.raises(DataError, match="outside the folder"):
        fetch(bucket(s3), "models/", tmp_path, progress=False)


def test_the_first_bucket_that_holds_it_counts(published):
    def open_bucket(name):
        return bucket(published, name)

    found, prefix = find_published("cell_6", PUBLISHED, open_bucket)
    assert (found.name, prefix) == ("asem-project", "datasets/cell_6/")
    found, prefix = find_published("cell_3", PUBLISHED, open_bucket)
    assert (found.name, prefix) == ("fibsem", "dataset/cell_3/")
    with pytest.raises(DataError, match=r"cell_66 is not in .*models, cell_6, cell_3.*Did you mean 'cell_6'"):
        find_published("cell_66", PUBLISHED, open_bucket)


def test_nobody_answers(tmp_path, monkeypatch):
    server = Bucket("asem-project", "http://127.0.0.1:9")
    monkeypatch.setattr(server._session.adapters["http://"].max_retries, "total", 0)
    with pytest.raises(DataError, match=r"does not answer.*HTTPS_PROXY"):
        list(server.objects("models/"))


def test_etags_of_parts(tmp_path):
    content = os.urandom(3 * MIB + 5)
    path = tmp_path / "x"
    path.write_bytes(content)
    assert matches(path, etag_of(content)) is True
    assert matches(path, etag_of(content, 2 * MIB)) is True
    assert matches(path, etag_of(content, MIB)) is True
    assert matches(path, etag_of(b"other")) is False
    assert matches(path, etag_of(b"other" * MIB, 2 * MIB)) is None
    assert matches(path, "something-else") is None
    for size, parts in ((3 * MIB + 5, 2), (100 * MIB, 13), (10, 1)):
        sizes = list(part_sizes(size, parts))
        assert sizes
        assert all(-(-size // part) == parts for part in sizes)


def test_what_cannot_be_checked_is_said(s3, tmp_path):
    s3.put("b", "d/x", b"1234")
    s3.buckets["b"]["d/x"] = (b"1234", "0" * 32 + "-7")
    report = fetch(bucket(s3, "b"), "d/", tmp_path, progress=False)
    assert report.unchecked == 1
    assert "of 1 only the length could be checked" in report.summary()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_download_that_is_killed_goes_on_where_it_stood(published, tmp_path, how):
    """`incasem download` as a process of its own, ended in the middle of a file, and run again."""
    command = [sys.executable, "-m", "incasem", "download", "models", "--to", str(tmp_path), "--workers", "1"]
    published.pause_at = 2 * MIB
    published.pause.clear()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not any(part.stat().st_size == 2 * MIB for part in tmp_path.rglob(".*.part")):
        assert time.monotonic() < deadline, process.communicate()
        time.sleep(0.02)
    process.send_signal(how)
    if how == signal.SIGINT:
        published.pause.set()  # a thread waits for the network; the end of its portion ends it
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "Traceback" not in errors
    assert not list(tmp_path.rglob("model_checkpoint_1841_er_CF.pt"))
    published.pause.set()
    published.pause_at = None
    published.requests.clear()
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert published.got(KEY)[0] in (f"bytes={2 * MIB}-", None) or how == signal.SIGINT
    assert contents(tmp_path) == expected(published, "models/")
