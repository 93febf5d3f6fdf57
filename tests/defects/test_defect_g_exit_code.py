"""G: blocks failed, the script printed "Done", exited with 0 and left zeros, or no image at all."""

import re

import numpy as np

from incasem.cli import main
from incasem.errors import FailedBlocksError
from tests.defects.conftest import read, store


def test_a_failed_block_is_a_failed_command_and_can_be_mended(tmp_path, capsys):
    labels = np.random.default_rng(0).integers(0, 256, (32, 32, 32)).astype(np.uint8)
    store(tmp_path / "cell.zarr/labels/er", labels)
    chunk = tmp_path / "cell.zarr/labels/er/1/0/1"
    whole = chunk.read_bytes()
    chunk.write_bytes(whole[: len(whole) // 2])
    words = ["metric-mask", "-f", str(tmp_path / "cell.zarr"), "-d", "labels/er", "-o", "zone", "-n", "1"]
    words += ["-c", "16", "16", "16"]
    assert main(words) == FailedBlocksError.exit_code
    told = capsys.readouterr()
    assert re.search(r"[1-9] of \d+ blocks? failed", told.err)
    assert "labels/er" in told.err
    assert "done" not in told.out.lower()
    chunk.write_bytes(whole)
    assert main(words) == 0
    assert set(np.unique(read(tmp_path / "cell.zarr/zone"))) == {0, 255}


def test_probabilities_become_images(tmp_path):
    probabilities = np.linspace(0, 1, 3 * 8 * 8, dtype=np.float32).reshape(3, 8, 8)
    store(tmp_path / "cell.zarr/prob", probabilities, chunk=8)
    words = [
        "export",
        "-f",
        str(tmp_path / "cell.zarr"),
        "-d",
        "prob",
        "-o",
        str(tmp_path / "out"),
        "-n",
        "1",
    ]
    assert main(words) == 0
    assert len(list((tmp_path / "out").rglob("section_*.tif"))) == 3
