import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from incasem.blockwise import run_in_process
from incasem.cli import main
from incasem.errors import ConfigError, DataError
from incasem.formatting import components
from incasem.formatting.components import ComponentOptions, prepare_components, write_components
from incasem.volumes import create_volume, open_volume


def make_membranes(tmp_path, shape, seed=0, dtype=np.uint8):
    smooth = ndimage.gaussian_filter(np.random.default_rng(seed).random(shape), (0, 1.2, 1.2))
    membranes = (smooth > np.quantile(smooth, 0.6)).astype(dtype) * dtype(7)
    volume = create_volume(
        tmp_path / "cell.zarr/membranes", shape=shape, dtype=dtype, voxel_size=(50, 4, 4),
        offset_nm=(100, 8, 0), chunk_shape=(4, 8, 8),
    )  # fmt: skip
    volume.write_voxels(volume.roi_voxels, membranes)
    return membranes


def options(tmp_path, **kwargs):
    return ComponentOptions(tmp_path / "cell.zarr", "membranes", "ids", **kwargs)


def plain(mask, structure, min_size):
    """Number by scipy, without small ones."""
    labels, count = ndimage.label(mask, structure)
    keep = np.bincount(labels.ravel(), minlength=count + 1) >= min_size
    keep[0] = False
    return (np.cumsum(keep) * keep)[labels]


def read(path):
    volume = open_volume(path)
    return volume.read_voxels(volume.roi_voxels)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_blocks_give_the_whole_volumes_numbers(tmp_path_factory, data):
    tmp_path = tmp_path_factory.mktemp("components")
    shape = data.draw(st.tuples(st.integers(1, 9), *[st.integers(1, 24)] * 2))
    membranes = make_membranes(tmp_path, shape, data.draw(st.integers(0, 99)))
    per_section, invert = data.draw(st.booleans()), data.draw(st.booleans())
    connectivity = data.draw(st.sampled_from([None, 4, 8] if per_section else [None, 6, 18, 26]))
    min_size = data.draw(st.integers(0, 20))
    chunks = data.draw(st.tuples(*[st.integers(2, 9)] * 3))
    how = options(
        tmp_path, invert=invert, per_section=per_section, connectivity=connectivity, min_size=min_size,
        chunk_shape=chunks,
    )  # fmt: skip
    stage = prepare_components(how, chunks)
    table = stage.find(0)
    run_in_process(stage.write_job(table, components.numbers(table, min_size)))
    reach = {None: 1, 6: 1, 18: 2, 26: 3, 4: 1, 8: 2}[connectivity]
    structure = ndimage.generate_binary_structure(3, reach)
    if per_section:
        structure[[0, 2]] = False
    expected = plain((membranes == 0) if invert else (membranes != 0), structure, min_size)
    np.testing.assert_array_equal(read(tmp_path / "cell.zarr/ids"), expected)


def test_cells_between_membranes_by_workers(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(components, "_FEW_BLOCKS", 0)
    membranes = make_membranes(tmp_path, (6, 40, 32))
    words = ["components", "-f", str(tmp_path / "cell.zarr"), "-d", "membranes", "-o", "labels/ids"]
    words += ["--out_filename", str(tmp_path / "ids.zarr"), "--invert", "--per_section", "--min_size", "5"]
    words += ["-c", "4", "16", "16", "-n", "2"]
    assert main(words) == 0
    ids = open_volume(tmp_path / "ids.zarr/labels/ids")
    structure = np.zeros((3, 3, 3), bool)
    structure[1] = ndimage.generate_binary_structure(2, 1)
    expected = plain(membranes == 0, structure, 5)
    np.testing.assert_array_equal(read(ids.path), expected)
    assert (ids.dtype, ids.voxel_size, ids.offset_nm) == (np.uint64, (50, 4, 4), (100, 8, 0))
    assert f"{expected.max()} objects" in capsys.readouterr().out
    assert not (tmp_path / "ids.zarr/labels/ids/.incasem").exists()
    sections = [np.unique(section[section > 0]) for section in read(ids.path)]
    assert np.unique(np.concatenate(sections)).size == sum(map(len, sections)), "each id in one section"
    assert main(words) == 0, "again, which does nothing"
    assert f"{expected.max()} objects" in capsys.readouterr().out
    assert main([*words, "--connectivity", "8"]) == DataError.exit_code
    assert "connectivity: was 4, is now 8" in capsys.readouterr().err


def test_nothing_is_labelled(tmp_path):
    volume = create_volume(
        tmp_path / "cell.zarr/membranes", shape=(2, 5, 5), dtype=bool, voxel_size=(1, 1, 1)
    )
    assert write_components(options(tmp_path), num_workers=1, progress=False)[1] == 0
    assert not read(tmp_path / "cell.zarr/ids").any()
    other = ComponentOptions(tmp_path / "cell.zarr", "membranes", "others", invert=True, per_section=True)
    assert write_components(other, num_workers=1, progress=False)[1] == 2, "each section is one object"
    assert volume.shape == (2, 5, 5)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"connectivity": 8},
            ConfigError,
            r"connectivity is 8; allowed: 6, 18, 26 \(without --per_section\)",
        ),
        ({"connectivity": 6, "per_section": True}, ConfigError, r"allowed: 4, 8 \(with --per_section\)"),
        ({"min_size": -1}, ConfigError, "min_size is -1"),
        ({"dataset": "nothing"}, DataError, "nothing"),
        ({"out_dataset": "membranes"}, ConfigError, "another one than the input"),
        ({"out_file": "ids.h5"}, DataError, "NAME.zarr or NAME.n5"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(tmp_path, change, error, message):
    make_membranes(tmp_path, (2, 8, 8))
    how = {"file": tmp_path / "cell.zarr", "dataset": "membranes", "out_dataset": "ids"} | change
    if "out_file" in how:
        how["out_file"] = tmp_path / how["out_file"]
    with pytest.raises(error, match=message):
        write_components(ComponentOptions(**how), num_workers=1, progress=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cell.zarr"]
    assert not (tmp_path / "cell.zarr/ids").exists()


def test_grey_values_are_refused(tmp_path):
    make_membranes(tmp_path, (2, 8, 8), dtype=np.float32)
    with pytest.raises(DataError, match="float32; allowed: integers"):
        write_components(options(tmp_path), num_workers=1, progress=False)
