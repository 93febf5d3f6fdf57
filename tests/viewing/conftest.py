"""A small cell with everything in it that one may want to see."""

import numpy as np
import pytest
from scipy import ndimage

from incasem.phantom import make_phantom
from incasem.volumes import create_volume

VOXEL = (5, 5, 5)
OFFSET = (40, 50, 60)
"""Of the cell; voxels."""
PREDICTED = np.s_[16:48, 8:56, 20:76]
"""The part of the cell that predictions cover."""
PREDICTIONS = "volumes/predictions/train_0001"


def write(path, data, offset=OFFSET, voxel_size=VOXEL, **arguments):
    """A volume whose first voxel is ``offset`` on the absolute grid."""
    volume = create_volume(
        path, shape=data.shape, dtype=data.dtype, voxel_size=voxel_size, chunk_shape=(32, 32, 32),
        offset_nm=[o * v for o, v in zip(offset, voxel_size, strict=True)], **arguments,
    )  # fmt: skip
    volume.write_voxels(volume.roi_voxels, np.ascontiguousarray(data))
    return volume


@pytest.fixture(scope="session")
def phantom():
    return make_phantom((64, 72, 96), seed=3)


@pytest.fixture(scope="session")
def cell(tmp_path_factory, phantom):
    path = tmp_path_factory.mktemp("view") / "cell.zarr"
    mito = phantom.labels["mito"] > 0
    write(path / "volumes/raw", phantom.raw_ZYX)
    write(path / "volumes/labels/mito", phantom.labels["mito"])
    write(path / "volumes/labels/er", phantom.labels["er"])
    write(path / "volumes/mask", np.full(mito.shape, 255, np.uint8))
    zone = ndimage.binary_dilation(mito, iterations=2) & ~ndimage.binary_erosion(mito, iterations=2)
    write(path / "volumes/metric_masks/mito", np.where(zone, 0, 255).astype(np.uint8))
    soft = ndimage.gaussian_filter(mito.astype(np.float32), 1)[PREDICTED]
    offset = [o + s.start for o, s in zip(OFFSET, PREDICTED, strict=True)]
    for number, stored in ((1, np.rint(soft * 255).astype(np.uint8)), (2, soft)):
        group = path / f"{PREDICTIONS}/predict_{number:04d}"
        write(group / "prob_maps/class_1", stored, offset)
        write(group / "segmentation", (soft > 0.5).astype(np.uint32), offset)
    for iteration in (1000, 2000):
        group = path / f"{PREDICTIONS}/predict_0003/iteration_{iteration:06d}"
        write(group / "prob_maps/class_1", np.rint(soft * 255).astype(np.uint8), offset)
    return str(path)
