"""A generated cell on the disk: what is in it, where it lies, and that it appears whole."""

import subprocess
import sys

import numpy as np
import pytest

from incasem.errors import ConfigError, DataError
from incasem.formatting import generate
from incasem.formatting.generate import GenerateOptions, generate_volumes
from incasem.phantom import make_neurites, make_phantom
from incasem.volumes import open_volume

SHAPE = (24, 30, 36)
VOXEL_NM = (10.0, 8.0, 8.0)


def test_the_container_holds_the_phantom(tmp_path):
    names = generate_volumes(GenerateOptions(tmp_path / "new" / "cell.zarr", SHAPE, VOXEL_NM, seed=3))
    cell = make_phantom(SHAPE, 3, VOXEL_NM)
    assert names == ["volumes/raw", *(f"volumes/labels/{name}" for name in ("mito", "er", "ne", "np"))]
    for name in names:
        volume = open_volume(tmp_path / "new" / "cell.zarr" / name)
        expected = cell.raw_ZYX if name == "volumes/raw" else cell.labels[name.rsplit("/", 1)[1]]
        assert volume.voxel_size == VOXEL_NM
        assert volume.dtype == expected.dtype
        np.testing.assert_array_equal(volume.read(volume.roi), expected)


def test_neurites(tmp_path):
    names = generate_volumes(GenerateOptions(tmp_path / "n.zarr", SHAPE, VOXEL_NM, seed=3, kind="neurites"))
    assert names == ["volumes/raw", "volumes/labels/neuron_ids", "volumes/labels/membrane"]
    made = make_neurites(SHAPE, 3, VOXEL_NM)
    raw, ids, drawn = (open_volume(tmp_path / "n.zarr" / name) for name in names)
    assert raw.voxel_size == ids.voxel_size == VOXEL_NM
    np.testing.assert_array_equal(raw.read(raw.roi), made.raw_ZYX)
    np.testing.assert_array_equal(ids.read(ids.roi), made.labels["neuron_ids"])
    membranes = drawn.read(drawn.roi)
    assert drawn.voxel_size == VOXEL_NM
    assert 0.1 < membranes.mean() < 0.6
    for section, labels in zip(membranes, made.labels["neuron_ids"], strict=True):
        for axis in (0, 1):
            apart = np.diff(labels, axis=axis) != 0
            for part in (slice(1, None), slice(None, -1)):
                assert section[(part, slice(None)) if axis == 0 else (slice(None), part)][apart].all()
        largest = np.bincount(labels.ravel()).argmax()
        assert not section[labels == largest].all(), "inside nothing is drawn"


def test_what_exists_is_left_alone(tmp_path):
    (tmp_path / "cell.zarr").mkdir()
    with pytest.raises(DataError, match="Choose another name"):
        generate_volumes(GenerateOptions(tmp_path / "cell.zarr", SHAPE, VOXEL_NM))
    assert not any((tmp_path / "cell.zarr").iterdir())


def test_the_name_of_a_container(tmp_path):
    with pytest.raises(DataError, match="ends in"):
        generate_volumes(GenerateOptions(tmp_path / "cell", SHAPE, VOXEL_NM))


def test_an_impossible_cell_leaves_nothing(tmp_path):
    with pytest.raises(ConfigError, match="voxel size"):
        generate_volumes(GenerateOptions(tmp_path / "cell.zarr", SHAPE, (0, 10, 10)))
    assert not any(tmp_path.iterdir())


def test_an_interruption_leaves_nothing(tmp_path, monkeypatch):
    real = generate.create_volume

    def stop(path, **options):
        if path.name == "er":
            raise KeyboardInterrupt
        return real(path, **options)

    monkeypatch.setattr(generate, "create_volume", stop)
    with pytest.raises(KeyboardInterrupt):
        generate_volumes(GenerateOptions(tmp_path / "cell.zarr", SHAPE, VOXEL_NM))
    assert not any(tmp_path.iterdir())


def test_the_command_of_neurites(tmp_path):
    words = ["phantom", "-f", str(tmp_path / "n.zarr"), "--kind", "neurites", "--shape", "8", "32", "32"]
    done = subprocess.run(
        [sys.executable, "-m", "incasem", *words, "--resolution", "40", "5", "5"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ids = open_volume(tmp_path / "n.zarr/volumes/labels/neuron_ids")
    assert ids.voxel_size == (40, 5, 5)
    assert ids.read(ids.roi).min() == 1


def test_the_command(tmp_path):
    words = ["phantom", "-f", str(tmp_path / "cell.zarr"), "--shape", "16", "16", "16", "--seed", "2"]
    done = subprocess.run(
        [sys.executable, "-m", "incasem", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "cell.zarr/volumes/labels/er") in done.stdout
    assert open_volume(tmp_path / "cell.zarr/volumes/raw").voxel_size == (10, 10, 10)
    again = subprocess.run(
        [sys.executable, "-m", "incasem", *words], capture_output=True, text=True, check=False
    )
    assert again.returncode != 0
    assert "Choose another name" in again.stderr
    assert "Traceback" not in again.stderr
