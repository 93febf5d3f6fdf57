import numpy as np
import pytest

from incasem.errors import DataError
from incasem.tasks.stored import kind_of, require_finished, unwritten_border
from incasem.volumes import create_volume

PREDICTION = "cell.zarr/volumes/predictions/train_0001/predict_0002"


def make(path, dtype="uint8", **attributes):
    return create_volume(
        path, shape=(4, 4, 4), dtype=dtype, voxel_size=(5, 5, 5), chunk_shape=(4, 4, 4), attributes=attributes
    )


@pytest.mark.parametrize(
    ("name", "dtype", "kind"),
    [
        ("prob_maps/class_1", "uint8", "probabilities"),
        ("prob_maps/class_1", "float32", "probabilities"),
        ("segmentation", "uint8", "labels"),
        ("segmentation", "uint32", "labels"),
        ("er", "uint32", "labels"),
    ],
)
def test_kinds(tmp_path, name, dtype, kind):
    assert kind_of(make(tmp_path / PREDICTION / name, dtype)) == kind


def test_published_predictions_lack_their_border(tmp_path):
    segmentation = make(tmp_path / PREDICTION / "segmentation", "uint32")
    assert unwritten_border(segmentation) == 47
    assert unwritten_border(make(tmp_path / PREDICTION / "prob_maps/class_1", "float32")) == 47
    assert unwritten_border(make(tmp_path / "cell.zarr/volumes/other", "float32")) == 0


@pytest.mark.parametrize(
    ("identity", "border"),
    [
        ({"tiling": "aligned"}, 0),
        ({"tiling": "published", "input_size_voxels": [204] * 3, "output_size_voxels": [110] * 3}, 47),
    ],
)
def test_ours_lack_it_only_with_the_published_tiling(tmp_path, identity, border):
    mark = {"job": "predict", "identity": identity, "region": {}}
    segmentation = make(tmp_path / PREDICTION / "segmentation", incasem=mark)
    assert unwritten_border(segmentation) == border
    assert unwritten_border(make(tmp_path / PREDICTION / "prob_maps/class_1")) == border
    assert unwritten_border(make(tmp_path / PREDICTION / "prob_maps/class_2/s0")) == border


def test_unfinished_predictions_are_refused(tmp_path):
    segmentation = make(tmp_path / PREDICTION / "segmentation")
    probabilities = make(tmp_path / PREDICTION / "prob_maps/class_1")
    require_finished(probabilities)
    (tmp_path / PREDICTION / "segmentation/.incasem/marks").mkdir(parents=True)
    for volume in (segmentation, probabilities):
        with pytest.raises(DataError, match="not finished"):
            require_finished(volume)
    with pytest.raises(DataError, match="not finished"):
        require_finished(make(tmp_path / "cell.zarr/begun", incasem={"begun_by": "equalize"}))
    assert np.dtype(segmentation.dtype) == np.uint8
