"""HDF5 files with vol0, vol1, …: what other programs read, and what a kill leaves."""

import h5py
import numpy as np
import pytest

from incasem.cli import main
from incasem.errors import ConfigError, DataError, FailedBlocksError
from incasem.formatting import hdf5_file
from incasem.formatting.hdf5_file import Hdf5Options, export_h5
from incasem.volumes import create_volume, open_volume

RNG = np.random.default_rng(0)
VOXEL = (30, 6, 6)


def store(folder, name, array, **attributes):
    volume = create_volume(
        folder / "cell.zarr" / name, shape=array.shape, dtype=array.dtype, voxel_size=VOXEL,
        offset_nm=(60, 12, -6), chunk_shape=(32, 32, 32), attributes=attributes,
    )  # fmt: skip
    volume.write_voxels(volume.roi_voxels, array)
    return array


def run(folder, *names, **options):
    datasets = [(folder / "cell.zarr", name) for name in names]
    return list(export_h5(Hdf5Options(datasets, folder / "result.h5", **options), progress=False))


def test_affinities_as_pytorch_connectomics_stores_them(tmp_path, capsys):
    offsets = [[-1, 0, 0], [0, -1, 0], [0, 0, -1]]
    affinities = store(
        tmp_path, "affinities", RNG.integers(0, 256, (3, 70, 30, 41)).astype(np.uint8), offsets=offsets
    )
    soft = store(tmp_path, "soft", RNG.random((3, 5, 6, 7)).astype(np.float32))
    segments = store(tmp_path, "segments", RNG.integers(0, 2**60, (9, 9, 9)).astype(np.uint64))
    command = ["export-h5", "-f", f"{tmp_path}/cell.zarr", "-d", "affinities", "soft", "segments"]
    assert main([*command, "-o", f"{tmp_path}/result.h5"]) == 0
    assert f"{tmp_path}/result.h5/vol2" in capsys.readouterr().out
    with h5py.File(tmp_path / "result.h5") as file:
        assert sorted(file) == ["vol0", "vol1", "vol2"]
        assert file["vol0"].dtype == file["vol1"].dtype == np.uint8
        assert file["vol0"].chunks == (3, 64, 30, 41)
        assert (file["vol0"][()] == affinities).all()
        assert (file["vol1"][()] == np.rint(soft * 255)).all()
        assert (file["vol2"][()] == segments).all()
        assert file["vol0"].attrs["offsets"].tolist() == offsets
    again = open_volume(tmp_path / "result.h5/vol0")
    assert (again.voxel_size, again.offset_nm) == (VOXEL, (60, 12, -6))
    assert [p.name for p in tmp_path.iterdir()].count("result.h5") == 1
    assert not list(tmp_path.glob(".result*"))


def test_names_and_floats_as_they_are(tmp_path):
    soft = store(tmp_path, "soft", RNG.normal(size=(5, 6, 7)).astype(np.float32))
    run(tmp_path, "soft", names=["results/main"], keep_values=True)
    with h5py.File(tmp_path / "result.h5") as file:
        assert (file["results/main"][()] == soft).all()


@pytest.mark.parametrize("value", [np.nan, 1.5, -0.1])
def test_floats_that_are_no_probabilities(tmp_path, value):
    soft = np.zeros((4, 4, 4), np.float32)
    soft[1, 2, 3] = value
    store(tmp_path, "soft", soft)
    with pytest.raises(FailedBlocksError, match="lossless"):
        run(tmp_path, "soft")
    assert not (tmp_path / "result.h5").exists()


def test_a_kill_in_the_midst_goes_on(tmp_path, monkeypatch):
    grey = store(tmp_path, "grey", RNG.integers(0, 256, (64, 64, 400)).astype(np.uint8))
    more = store(tmp_path, "more", RNG.integers(0, 256, (9, 9, 9)).astype(np.uint8))
    real = hdf5_file.run_stage

    def killed_after_the_first(job, part, num_workers, progress):
        report = real(job, part, num_workers=num_workers, progress=progress)
        raise KeyboardInterrupt(report)

    with monkeypatch.context() as patch:
        patch.setattr(hdf5_file, "run_stage", killed_after_the_first)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, "grey", "more")
    assert not (tmp_path / "result.h5").exists()
    (_, first), (_, second) = run(tmp_path, "grey", "more")
    assert (first.already_complete, second.already_complete) == (True, False)
    with h5py.File(tmp_path / "result.h5") as file:
        assert (file["vol0"][()] == grey).all()
        assert (file["vol1"][()] == more).all()


def test_other_datasets_begin_anew(tmp_path, monkeypatch):
    store(tmp_path, "grey", np.ones((4, 4, 4), np.uint8))
    other = store(tmp_path, "other", np.full((5, 5, 5), 7, np.uint8))

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(hdf5_file, "run_stage", killed)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, "grey")
    run(tmp_path, "other")
    with h5py.File(tmp_path / "result.h5") as file:
        assert (file["vol0"][()] == other).all()


def test_bad_requests(tmp_path):
    store(tmp_path, "grey", np.ones((4, 4, 4), np.uint8))
    for names in (["a", "b"], [""], ["../a"]):
        with pytest.raises(ConfigError, match="out_datasets"):
            run(tmp_path, "grey", names=names)
    with pytest.raises(ConfigError, match="out_datasets"):
        run(tmp_path, "grey", "grey", names=["a", "a"])
    with pytest.raises(ConfigError, match=r"NAME\.h5"):
        list(
            export_h5(
                Hdf5Options([(tmp_path / "cell.zarr", "grey")], tmp_path / "result.zip"), progress=False
            )
        )
    with pytest.raises(DataError, match="grey"):
        run(tmp_path, "gray")
    (tmp_path / "result.h5").write_bytes(b"mine")
    with pytest.raises(DataError, match="exists"):
        run(tmp_path, "grey")
    assert (tmp_path / "result.h5").read_bytes() == b"mine"
    command = ["export-h5", "-f", "a.zarr", "-f", "b.zarr", "-d", "x", "-o", f"{tmp_path}/new.h5"]
    assert main(command) == ConfigError.exit_code


def test_two_commands_on_one_file(tmp_path):
    store(tmp_path, "grey", np.ones((4, 4, 4), np.uint8))
    first = export_h5(Hdf5Options([(tmp_path / "cell.zarr", "grey")], tmp_path / "result.h5"), progress=False)
    next(first)
    with pytest.raises(DataError, match="another job works"):
        run(tmp_path, "grey")
    assert list(first) == []
    assert (tmp_path / "result.h5").exists()
