"""Snapshots: what the network saw and said, as Zarr, at the published places."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from incasem.geometry import Coordinate, Roi, to_world
from incasem.tasks import semantic
from incasem.training.feed import Batch
from incasem.volumes import Volume, create_volume

CHUNK = (128, 128, 128)


def write_training_snapshot(path: Path, batch: Batch, logits_NCZYX: torch.Tensor) -> dict[str, NDArray[Any]]:
    """Write the first sample of a batch: raw, labels, masks, loss scale and class probabilities (uint8).

    Returns:
        The middle sections (Y, X) of ``raw``, ``labels`` and ``predictions`` for pictures.
    """
    raw_ZYX = _unit_to_uint8(batch.raw[0, 0].numpy())
    probabilities_CZYX = torch.softmax(logits_NCZYX[0].cpu(), dim=0).numpy()
    arrays: dict[str, NDArray[Any]] = {
        "labels": batch.labels[0].numpy().astype(np.uint32),
        "mask": batch.mask[0].numpy().astype(np.uint8),
        "metric_mask": batch.metric_mask[0].numpy().astype(np.uint8),
        "loss_scalings": batch.loss_scale[0].numpy(),
    }
    offset = Coordinate(batch.position[0])  # of the output block, absolute voxels
    context = (Coordinate(raw_ZYX.shape) - Coordinate(arrays["labels"].shape)) // 2
    _write(path / "raw", raw_ZYX, offset - context, batch.voxel_size[0])
    for name, array_ZYX in arrays.items():
        _write(path / name, array_ZYX, offset, batch.voxel_size[0])
    _write(
        path / "predictions", np.rint(probabilities_CZYX * 255).astype(np.uint8), offset, batch.voxel_size[0]
    )
    middle = arrays["labels"].shape[0] // 2
    return {
        "raw": raw_ZYX[raw_ZYX.shape[0] // 2],
        "labels": arrays["labels"][middle],
        "predictions": probabilities_CZYX[:, middle].argmax(axis=0).astype(np.uint8),
    }


class ValidationSnapshot:
    """One validation dataset as Zarr, written block by block."""

    NAMES = ("predictions", "labels", "mask", "metric_mask")

    def __init__(self, path: Path, raw: Volume, roi_voxels: Roi, chunk_shape: Coordinate) -> None:
        self._raw = raw
        world = to_world(roi_voxels, raw.voxel_size)
        self._volumes = {
            name: create_volume(
                path / name,
                shape=tuple(roi_voxels.shape),
                dtype=np.uint8,
                voxel_size=raw.voxel_size,
                offset_nm=tuple(world.offset),
                chunk_shape=tuple(min(c, s) for c, s in zip(chunk_shape, roi_voxels.shape, strict=True)),
                existing="resume",
            )
            for name in (*self.NAMES, "raw")
        }

    def write(
        self,
        roi_voxels: Roi,
        predicted_ZYX: NDArray[np.uint8],
        classes_ZYX: NDArray[np.uint8],
        mask_ZYX: NDArray[np.bool_],
        metric_mask_ZYX: NDArray[np.bool_],
    ) -> None:
        """Write one block; blocks are the chunks."""
        raw_ZYX = semantic.normalise(self._raw.read_voxels(roi_voxels))
        arrays = (predicted_ZYX, classes_ZYX, mask_ZYX, metric_mask_ZYX)
        for name, array_ZYX in zip(self.NAMES, arrays, strict=True):
            self._volumes[name].write_voxels(roi_voxels, array_ZYX.astype(np.uint8))
        self._volumes["raw"].write_voxels(roi_voxels, _unit_to_uint8(raw_ZYX))


def _unit_to_uint8(raw_ZYX: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Return grey values in [-1, 1], as the network gets them, as uint8."""
    return np.rint(np.clip((raw_ZYX + 1) * 127.5, 0, 255)).astype(np.uint8)


def _write(
    path: Path, array: NDArray[Any], offset: Coordinate, voxel_size: tuple[float, float, float]
) -> None:
    spatial = array.shape[-3:]
    place = to_world(Roi(offset, spatial), voxel_size)
    volume = create_volume(
        path,
        shape=array.shape,
        dtype=array.dtype,
        voxel_size=voxel_size,
        offset_nm=tuple(place.offset),
        axes=("z", "y", "x") if array.ndim == 3 else ("c", "z", "y", "x"),
        chunk_shape=(*array.shape[:-3], *(min(c, s) for c, s in zip(CHUNK, spatial, strict=True))),
        existing="resume",
    )
    volume.write_voxels(volume.roi_voxels, array)
