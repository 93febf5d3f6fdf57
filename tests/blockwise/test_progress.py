import io
import sys

import pytest

from incasem.blockwise.job import format_seconds
from incasem.blockwise.progress import ProgressLine


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_gets_one_changing_line(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with ProgressLine("equalize", 10, 2, 1e6) as line:
        for done in range(3, 11):
            line.update(done, failed=1)
    text = terminal.getvalue()
    assert text.count("\n") == 1
    last = text.split("\r")[-1]
    assert last.startswith("equalize: 100%")
    assert "10/10 blocks" in last
    assert "Mvoxel/s, 1 failed" in last


def test_a_file_gets_plain_lines(monkeypatch, capsys):
    monkeypatch.setattr("incasem.blockwise.progress._PLAIN_EVERY_S", 0.0)
    with ProgressLine("equalize", 4, 0, 2e6) as line:
        line.update(1, failed=0)
        line.update(4, failed=0)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "\r" not in captured.err
    assert [text.split(",")[0] for text in captured.err.splitlines()] == [
        "equalize: 25% 1/4 blocks",
        "equalize: 100% 4/4 blocks",
        "equalize: 100% 4/4 blocks",
    ]
    assert "left" in captured.err.splitlines()[0]


def test_a_short_job_prints_its_end_only(capsys):
    with ProgressLine("equalize", 4, 0, 2e6) as line:
        line.update(1, failed=0)
        line.update(4, failed=0)
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_silence_on_demand(capsys):
    with ProgressLine("equalize", 4, 0, 2e6, show=False) as line:
        line.update(4, failed=0)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (59.94, "59.9 s"), (125, "2 min 05 s"), (7800, "2 h 10 min")]
)
def test_durations_read_well(seconds, text):
    assert format_seconds(seconds) == text
