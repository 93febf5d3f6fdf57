"""The tree of verbs."""

import re
import subprocess
import sys

import pytest

from incasem.cli import main
from incasem.cli.arguments import split_settings, split_with
from incasem.cli.verbs import VERBS
from incasem.errors import ConfigError, DataError


@pytest.mark.parametrize("verb", VERBS)
def test_help_has_a_line_and_a_default_for_each_option(verb, capsys):
    with pytest.raises(SystemExit) as exit_:
        main([verb, "-h"])
    assert exit_.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: incasem {verb}")
    options = re.split(r"\n  (?=-)", text.split("options:")[1])[1:]
    assert "--config FILE" in text
    for option in options[1:]:
        shown = " ".join(option.split())
        assert re.search(r"[a-z0-9`)] \((required|default: [^)\[]+.*)\)$", shown), shown


def test_help_lists_all_verbs(capsys):
    assert main(["-h"]) == 0
    text = capsys.readouterr().out
    assert all(verb in text for verb in VERBS)


def test_no_verb_shows_the_help_and_fails(capsys):
    assert main([]) != 0
    assert "usage" in capsys.readouterr().out


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("incasem ")


def test_help_is_quick():
    code = "import sys; from incasem.cli import main; main(['-h']); print(sorted(sys.modules))"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for heavy in ("'torch'", "'gunpowder'", "'sacred'", "'tensorstore'", "'numba'", "'matplotlib'"):
        assert heavy not in modules


def test_options_from_a_file(tmp_path, capsys):
    (tmp_path / "options.yaml").write_text("filename: nowhere.zarr\ndataset: volumes/x\n")
    assert main(["equalize", "--config", str(tmp_path / "options.yaml")]) != 0
    assert "nowhere.zarr" in capsys.readouterr().err


def test_split_with():
    assert split_with(["--name", "x", "with", "a.yaml", "b=c"]) == (["--name", "x"], ["a.yaml", "b=c"])
    assert split_with(["--name", "x"]) == (["--name", "x"], [])


def test_defaults_stand_in_the_help_as_one_would_type_them(capsys):
    with pytest.raises(SystemExit):
        main(["convert", "-h"])
    text = " ".join(capsys.readouterr().out.split())
    for shown in ("(default: volumes/raw)", "(default: 128 128 128)", r"(default: .*_(\d+).*\.tif$)"):
        assert shown in text


def test_settings_are_one_file_and_assignments(tmp_path):
    file, overrides = split_settings(["a.yaml", "b=c", "d.e=[1,2]"])
    assert str(file) == "a.yaml"
    assert overrides == ["b=c", "d.e=[1,2]"]
    (tmp_path / "settings").touch()
    assert split_settings(["b=c", str(tmp_path / "settings")]) == (tmp_path / "settings", ["b=c"])
    with pytest.raises(ConfigError, match="one YAML file"):
        split_settings(["a.yaml", "b.yaml"])
    with pytest.raises(ConfigError, match=r"'training\.data' after `with` is neither a file nor a setting"):
        split_settings(["training.data"])


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["equalize", "-f", "a.zarr", "--clip_limt=0.1"], "Did you mean '--clip_limit'"),
        (["train", "config_training.yaml"], "after the word `with`"),
        (["train", "training.iterations=3"], "after the word `with`"),
    ],
)
def test_words_that_are_not_understood_get_a_hint(words, hint, capsys):
    assert main(words) == ConfigError.exit_code
    assert hint in capsys.readouterr().err


def test_a_file_that_cannot_be_used_ends_in_one_line(capsys, monkeypatch):
    def fail(program, arguments):
        raise PermissionError(13, "Permission denied", "/data/cell.zarr")

    monkeypatch.setattr("incasem.cli.formatting.equalize", fail)
    assert main(["equalize"]) == DataError.exit_code
    assert "error: /data/cell.zarr: Permission denied" in capsys.readouterr().err


def test_a_defect_of_ours_is_not_hidden(monkeypatch):
    def fail(program, arguments):
        raise OSError("what file?")

    monkeypatch.setattr("incasem.cli.formatting.equalize", fail)
    with pytest.raises(OSError, match="what file"):
        main(["equalize"])


def test_a_reader_who_has_had_enough_sees_no_traceback():
    """`incasem VERB | head`: the pipe is closed before we write."""
    script = "import os, sys; from incasem.cli import verbs; from incasem.cli.arguments import tell\n" + (
        "import types; sys.modules['chatty'] = types.ModuleType('chatty')\n"
        "def chat(program, arguments):\n    for _ in range(100000): tell('line')\n"
        "sys.modules['chatty'].chat = chat\n"
        "verbs.VERBS['chat'] = verbs.Verb('chat', 'chatty', '', 'chat')\n"
        "sys.exit(verbs.main(['chat']))"
    )
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 141
