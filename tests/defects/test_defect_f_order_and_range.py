"""F: sections in the order of their names (10 before 2), 16 bits wrapped into 8, black 16-bit CLAHE."""

import numpy as np
import pytest
import tifffile

from incasem.cli import main
from incasem.errors import DataError
from incasem.tasks.grey_values import normalise
from tests.defects.conftest import read, store


def test_sections_lie_in_the_order_of_their_numbers(tmp_path):
    (tmp_path / "stack").mkdir()
    for number in range(1, 13):
        tifffile.imwrite(tmp_path / f"stack/img_{number}.tif", np.full((4, 4), number, np.uint8))
    assert main(["convert", "-i", str(tmp_path / "stack"), "-f", str(tmp_path / "cell.zarr")]) == 0
    assert read(tmp_path / "cell.zarr/volumes/raw")[:, 0, 0].tolist() == list(range(1, 13))


def test_16_bits_are_not_wrapped_into_8(tmp_path, capsys):
    (tmp_path / "stack").mkdir()
    tifffile.imwrite(tmp_path / "stack/img_0.tif", np.full((4, 4), 256 + 7, np.uint16))
    words = ["convert", "-i", str(tmp_path / "stack"), "-f", str(tmp_path / "cell.zarr")]
    assert main(words) == DataError.exit_code
    assert "uint16" in capsys.readouterr().err
    assert main([*words, "--dtype", "uint16"]) == 0
    assert (read(tmp_path / "cell.zarr/volumes/raw") == 263).all()


def test_16_bits_keep_their_range_through_clahe(tmp_path):
    raw = np.random.default_rng(0).integers(0, 65536, (24, 24, 24)).astype(np.uint16)
    store(tmp_path / "cell.zarr/volumes/raw", raw)
    assert main(["equalize", "-f", str(tmp_path / "cell.zarr"), "-n", "1"]) == 0
    equalized = read(tmp_path / "cell.zarr/volumes/raw_equalized_0.02")
    assert equalized.dtype == np.uint16
    assert normalise(equalized).max() == pytest.approx(1, abs=0.01)
    assert normalise(equalized).mean() == pytest.approx(0, abs=0.1)
