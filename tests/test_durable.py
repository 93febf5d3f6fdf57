"""Files that appear whole or not at all."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from incasem.durable import write_durably


def test_writes_and_replaces(tmp_path):
    path = tmp_path / "a.json"
    write_durably(path, b"first")
    write_durably(path, lambda stream: stream.write(b"second"))
    assert path.read_bytes() == b"second"
    assert os.listdir(tmp_path) == ["a.json"]


def test_has_the_mode_that_any_new_file_has(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    write_durably(tmp_path / "ours", b"")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_modification_time(tmp_path):
    write_durably(tmp_path / "a", b"x", mtime_ns=1_000_000_000_000)
    assert (tmp_path / "a").stat().st_mtime_ns == 1_000_000_000_000


def test_a_writer_that_fails_half_way_changes_nothing(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"whole")

    def fail(stream):
        stream.write(b"ha")
        raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        write_durably(path, fail)
    assert path.read_bytes() == b"whole"
    assert os.listdir(tmp_path) == ["a"]


def test_a_full_disk_changes_nothing(tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_bytes(b"whole")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_durably(path, b"new")
    assert path.read_bytes() == b"whole"
    assert os.listdir(tmp_path) == ["a"]


def test_many_writers_of_one_file_leave_one_whole_content(tmp_path):
    path = tmp_path / "a"
    contents = [bytes([65 + i]) * 100_000 for i in range(8)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda content: write_durably(path, content), contents * 3))
    assert path.read_bytes() in contents
    assert os.listdir(tmp_path) == ["a"]
