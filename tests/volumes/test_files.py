import json
import threading

import pytest

from incasem.errors import DataError
from incasem.volumes.files import directory_lock, read_json, write_json


def test_a_failed_replacement_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(DataError, match="numbers, texts, lists or mappings"):
        write_json(path, {"a": object()})
    with pytest.raises(DataError, match="cannot be written"):
        write_json(tmp_path / "missing/a.json", {})
    assert read_json(str(path)) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize(
    ("content", "message"), [("{", "not valid JSON"), ("[1]", "must hold a JSON object")]
)
def test_damaged_json_is_named(tmp_path, content, message):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(DataError, match=rf"a\.json is damaged: .*{message}"):
        read_json(str(tmp_path / "a.json"))


def test_the_lock_makes_changes_one_after_another(tmp_path):
    path = tmp_path / "count.json"
    write_json(path, {"count": 0})

    def count():
        for _ in range(10):
            with directory_lock(tmp_path):
                write_json(path, {"count": json.loads(path.read_text())["count"] + 1})

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read_json(str(path)) == {"count": 40}
