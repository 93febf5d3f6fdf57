import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from incasem.blockwise import run_in_process
from incasem.cli import main
from incasem.errors import ConfigError, DataError
from incasem.formatting import ThresholdOptions, apply_threshold, threshold
from incasem.tasks.stored import unwritten_border
from incasem.volumes import create_volume, open_volume

MAP = "volumes/predictions/train_0001/predict_0001/prob_maps/class_1"


def store(tmp_path, array, dataset=MAP, offset=(2, 0, 4), voxel_size=(5, 5, 5), chunks=(8, 8, 8)):
    volume = create_volume(
        tmp_path / "cell.zarr" / dataset, shape=array.shape, dtype=array.dtype, voxel_size=voxel_size,
        offset_nm=tuple(o * v for o, v in zip(offset, voxel_size, strict=True)), chunk_shape=chunks,
    )  # fmt: skip
    volume.write_voxels(volume.roi_voxels, array)
    return array


def options(tmp_path, t=0.5, **kwargs):
    return ThresholdOptions(
        tmp_path / "cell.zarr", MAP, "volumes/er", t, **{"chunk_shape": (8, 8, 8), **kwargs}
    )


@settings(max_examples=12)
@given(data=st.data())
def test_any_blocks_give_the_whole_volumes_segmentation(tmp_path_factory, data):
    tmp_path = tmp_path_factory.mktemp("threshold")
    rng = np.random.default_rng(data.draw(st.integers(0, 9)))
    shape = data.draw(st.tuples(*[st.integers(1, 20)] * 3))
    dtype = data.draw(st.sampled_from([np.uint8, np.float32]))
    probabilities = rng.integers(0, 256, shape) if dtype == np.uint8 else rng.random(shape)
    store(tmp_path, probabilities.astype(dtype))
    mask = store(tmp_path, rng.integers(0, 3, (9, 9, 9)).astype(np.uint8), "volumes/mask", offset=(1, 0, 4))
    t = data.draw(st.floats(0, 1))
    job, output = threshold.prepare_threshold(
        options(tmp_path, t, mask_file=tmp_path / "cell.zarr"),
        tuple(8 * data.draw(st.integers(1, 3)) for _ in range(3)),
    )
    run_in_process(job)
    inside = np.zeros((22, 22, 26), bool)
    inside[1:10, 0:9, 4:13] = mask != 0
    values = probabilities.astype(dtype) / 255 if dtype == np.uint8 else probabilities.astype(dtype)
    reached = values >= (t if dtype == np.uint8 else np.float32(t))
    wanted = np.where(reached & inside[2 : 2 + shape[0], : shape[1], 4 : 4 + shape[2]], 255, 0)
    assert output.dtype == np.uint32
    assert output.offset_nm == (10, 0, 20)
    np.testing.assert_array_equal(output.read_voxels(output.roi_voxels), wanted)


def test_the_published_flags(tmp_path, capsys):
    probabilities = store(tmp_path, np.random.default_rng(0).random((9, 9, 9)).astype(np.float32))
    words = [
        "--prediction_filename",
        str(tmp_path / "cell.zarr"),
        "-d",
        MAP,
        "-o",
        "volumes/er",
        "-t",
        "0.7",
        "-n",
        "1",
    ]
    assert main(["threshold", *words]) == 0
    output = open_volume(tmp_path / "cell.zarr/volumes/er")
    np.testing.assert_array_equal(
        output.read_voxels(output.roi_voxels), np.where(probabilities >= np.float32(0.7), 255, 0)
    )
    # Made of a published prediction: what was never written is not scored later.
    assert unwritten_border(output) == 47
    assert main(["threshold", *words]) == 0
    assert "already complete" in capsys.readouterr().out
    assert main(["threshold", *words[:-3], "0.6", "-n", "1"]) == DataError.exit_code
    assert "threshold: was 0.7, is now 0.6" in capsys.readouterr().err


@pytest.mark.parametrize("t", [-0.1, 1.1, 50, float("nan")])
def test_a_threshold_is_a_probability(tmp_path, t):
    store(tmp_path, np.zeros((4, 4, 4), np.float32))
    with pytest.raises(ConfigError, match="allowed: 0 to 1"):
        apply_threshold(options(tmp_path, t), num_workers=1)
    assert not (tmp_path / "cell.zarr/volumes/er").exists()


def test_segmentations_and_masks_elsewhere_are_refused(tmp_path):
    store(tmp_path, np.zeros((4, 4, 4), np.float32))
    cell = tmp_path / "cell.zarr"
    store(tmp_path, np.zeros((4, 4, 4), np.uint8), "volumes/segmentation")
    with pytest.raises(DataError, match="no probability map"):
        apply_threshold(ThresholdOptions(cell, "volumes/segmentation", "volumes/er", 0.5), num_workers=1)
    store(tmp_path, np.ones((4, 4, 4), np.uint8), "volumes/mask", offset=(90, 0, 0))
    with pytest.raises(DataError, match="allowed: an overlap"):
        apply_threshold(options(tmp_path, mask_file=cell), num_workers=1)
    store(tmp_path, np.ones((4, 4, 4), np.uint8), "volumes/coarse", voxel_size=(10, 10, 10))
    with pytest.raises(DataError, match="voxel size"):
        apply_threshold(options(tmp_path, mask_file=cell, mask_dataset="volumes/coarse"), num_workers=1)
    with pytest.raises(DataError, match="volumes/nowhere"):
        apply_threshold(options(tmp_path, mask_file=cell, mask_dataset="volumes/nowhere"), num_workers=1)
    assert not (cell / "volumes/er").exists()
