"""What the demo refuses before it begins."""

import pytest

from incasem.demo.job import run_demo
from incasem.demo.settings import DEFAULT_ITERATIONS, DEFAULT_SIZE
from incasem.errors import ConfigError


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": (3, 3, 3)}, r"--size is 3 3 3; allowed: 32 32 96"),
        ({"iterations": -3}, "--iterations is -3"),
        ({"iterations": 0}, "--iterations is 0"),
        ({"seed": -1}, "--seed is -1"),
    ],
)
def test_values_out_of_range_make_nothing(tmp_path, change, message):
    settings = {"seed": 1, "iterations": DEFAULT_ITERATIONS, "size": DEFAULT_SIZE} | change
    with pytest.raises(ConfigError, match=message):
        run_demo(tmp_path / "demo", tell=print, **settings)
    assert not (tmp_path / "demo").exists()
