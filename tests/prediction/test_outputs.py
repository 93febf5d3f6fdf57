from pathlib import Path

import numpy as np
import pytest
import zarr

from incasem.config import DataEntry
from incasem.errors import DataError
from incasem.geometry import Coordinate, Roi
from incasem.prediction import output_container, output_group
from incasem.prediction.outputs import OutputSet
from incasem.tasks.semantic import Semantic
from incasem.volumes import create_volume


def entry_of(file):
    return DataEntry("cell", Path("/data") / file, (5, 5, 5), None, None, "raw", file_as_given=file)


def test_ids_have_four_digits_as_published():
    assert output_group(1841, 1) == "volumes/predictions/train_1841/predict_0001"


@pytest.mark.parametrize(
    ("file", "container"),
    [
        ("cell_1/cell_1.zarr", "cell_1/cell_1.zarr"), ("cell.h5", "cell.zarr"),
        ("a/cell.v2.hdf5", "a/cell.v2.zarr"), ("cell.n5", "cell.zarr"),
        ("stack.2021", "stack.2021.zarr"), ("stack", "stack.zarr"),
    ],
)  # fmt: skip
def test_the_container_is_the_entrys_or_a_zarr_beside_it(file, container):
    assert output_container(entry_of(file), Path("/out")) == Path("/out") / container


@pytest.fixture
def outputs(tmp_path):
    roi = Roi((7, -5, 100), (70, 20, 65))
    return OutputSet(tmp_path / "cell.zarr" / output_group(1, 1), roi, (5.9, 4.0, 4.0), Semantic(3), "uint8")


def test_the_published_place_is_stored_and_read_by_others(outputs):
    outputs.check()
    outputs.open()
    stored = zarr.open(str(outputs.folder), mode="r")

    for name in ("segmentation", "prob_maps/class_1", "prob_maps/class_2"):
        array = stored[name]
        assert array.shape == (70, 20, 65)
        assert array.dtype == np.uint8
        assert list(array.attrs["resolution"]) == [5.9, 4.0, 4.0]
        np.testing.assert_allclose(array.attrs["offset"], [7 * 5.9, -20, 400])


def test_one_writer_owns_whole_chunks(outputs):
    assert outputs.write_shape == Coordinate(64, 20, 64)
    for volume in outputs.open().values():
        assert volume.write_shape == (64, 20, 64)


def test_a_torn_set_is_completed_only_before_the_work_began(outputs):
    outputs.open()["prob_maps/class_1"]
    before = sorted(path for path in outputs.folder.rglob("*"))
    outputs.check()
    assert sorted(path for path in outputs.folder.rglob("*")) == before, "a check writes nothing"

    for path in (outputs.folder / "prob_maps/class_1").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="lacks prob_maps/class_1"):
        outputs.check()


def test_two_classes_take_two_bytes_and_as_published_twelve_less_three():
    place = (Path("cell.zarr"), Roi((0, 0, 0), (2, 2, 2)), (5, 5, 5), Semantic(2))
    assert OutputSet(*place, "uint8").bytes_per_voxel == 2
    assert OutputSet(*place, "float32").bytes_per_voxel == 9


def test_many_classes_need_two_bytes(tmp_path):
    outputs = OutputSet(tmp_path / "cell.zarr", Roi((0, 0, 0), (2, 2, 2)), (5, 5, 5), Semantic(300), "uint8")
    assert outputs.arrays["segmentation"].dtype == np.uint16


@pytest.fixture
def sharded(tmp_path):
    """Outputs that go to a Zarr v3 container, by the shape of their region."""
    create_volume(
        tmp_path / "cell.zarr/raw", shape=(4, 4, 4), dtype=np.uint8, voxel_size=(5, 5, 5), zarr_format=3
    )

    def outputs(shape):
        folder = tmp_path / "cell.zarr" / output_group(1, 1)
        return OutputSet(folder, Roi((0, 0, 0), shape), (5, 5, 5), Semantic(2), "uint8")

    return outputs


@pytest.mark.parametrize(
    ("shape", "shard", "chunk"),
    [
        ((2000, 512, 511), (256, 256, 128), (64, 64, 64)), ((256, 255, 130), (128, 64, 64), (64, 64, 64)),
        ((64, 63, 1), (64, 63, 1), (64, 63, 1)),
    ],
)  # fmt: skip
def test_zarr_v3_gets_chunks_in_shards_which_one_writer_owns(sharded, shape, shard, chunk):
    outputs = sharded(shape)
    assert outputs.write_shape == Coordinate(shard)
    volume = outputs.open()["segmentation"]
    assert volume.write_shape == shard
    assert volume.chunk_shape == chunk
    outputs.check()


def test_all_arrays_of_a_voxel_are_counted(outputs):
    assert outputs.bytes_per_voxel == 3
