"""The tree of verbs."""

import subprocess
import sys

import pytest

from incasem.cli import main
from incasem.cli.arguments import split_settings, split_with
from incasem.cli.verbs import VERBS
from incasem.errors import ConfigError


@pytest.mark.parametrize("verb", VERBS)
def test_help_has_a_line_and_a_default_for_each_option(verb, capsys):
    with pytest.raises(SystemExit) as exit_:
        main([verb, "-h"])
    assert exit_.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: incasem {verb}")
    options = text.split("options:")[1]
    assert "--config FILE" in options
    if verb in ("convert", "equalize", "mask", "metric-mask"):
        assert "(default: " in options


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


def test_settings_are_one_file_and_assignments():
    file, overrides = split_settings(["a.yaml", "b=c", "d.e=[1,2]"])
    assert str(file) == "a.yaml"
    assert overrides == ["b=c", "d.e=[1,2]"]
    with pytest.raises(ConfigError, match="one YAML file"):
        split_settings(["a.yaml", "b.yaml"])
