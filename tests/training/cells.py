"""Small volumes with labels, as data entries, and settings for small samples."""

from pathlib import Path

import numpy as np

from incasem.config import DataEntry, load_training_config
from incasem.volumes import create_volume

VOXEL = (5.0, 5.0, 5.0)


def store(path: Path, array, begin=(0, 0, 0), voxel_size=VOXEL, chunk=16):
    """Write an array whose first voxel is ``begin`` of the absolute grid."""
    volume = create_volume(
        path,
        shape=array.shape,
        dtype=array.dtype,
        voxel_size=voxel_size,
        offset_nm=tuple(b * v for b, v in zip(begin, voxel_size, strict=True)),
        chunk_shape=(chunk,) * 3,
    )
    volume.write_voxels(volume.roi_voxels, array)
    return volume


def cell(
    folder: Path,
    *,
    nickname="cell",
    shape=(48, 48, 48),
    begin=(0, 0, 0),
    roi=((8, 8, 8), (32, 32, 32)),
    raw=None,
    labels=None,
    mask=None,
    metric_masks=(),
    seed=0,
):
    """Store raw data, labels {name: (array, class)} and masks over the whole volume; return the entry."""
    container = folder / f"{nickname}.zarr"
    if raw is None:
        raw = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    store(container / "volumes/raw", raw, begin)
    if labels is None:
        labels = {"labels/blob": (ball(raw.shape), 1)}
    for name, (array, _) in labels.items():
        store(container / "volumes" / name, array, begin)
    if mask is not None:
        store(container / "volumes/mask", mask, begin)
    for index, array in enumerate(metric_masks):
        store(container / f"volumes/metric_masks/{index}", array, begin)
    return DataEntry(
        nickname=nickname,
        file=container,
        voxel_size=VOXEL,
        offset=roi[0],
        shape=roi[1],
        raw="volumes/raw",
        labels={f"volumes/{name}": number for name, (_, number) in labels.items()},
        mask=None if mask is None else "volumes/mask",
        metric_masks=tuple(f"volumes/metric_masks/{index}" for index in range(len(metric_masks))),
    )


def ball(shape, radius=None, dtype=np.uint32):
    """A ball in the middle of a box, as labels."""
    centre = [(size - 1) / 2 for size in shape]
    z, y, x = np.indices(shape)
    radius = radius if radius is not None else min(shape) / 4
    inside = (z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2 < radius**2
    return (inside * 7).astype(dtype)


def small_config(*overrides):
    """Settings for samples of 28³ → 10³, without workers unless said otherwise."""
    return load_training_config(
        None,
        (
            "model.num_fmaps=2", "model.downsample_factors=[[2,2,2]]",
            "training.input_size_voxels=[28,28,28]", "training.output_size_voxels=[10,10,10]",
            "training.precache.num_workers=0", *overrides,
        ),
    )  # fmt: skip


UNCHANGED = (
    "training.augmentation.elastic=null",
    "training.augmentation.simple=null",
    "training.augmentation.intensity=null",
)
