"""Snapshots: what the network saw and said, as Zarr, at the published places."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from incasem.geometry import Coordinate, Roi, to_world
from incasem.tasks.grey_values import normalise
from incasem.tasks.task import StoredArray, Task, Truth
from incasem.training.feed import Batch
from incasem.volumes import Volume, create_volume

CHUNK = (128, 128, 128)


def write_training_snapshot(
    path: Path, batch: Batch, logits_NCZYX: torch.Tensor, task: Task
) -> dict[str, NDArray[Any]]:
    """Write the first sample of a batch: raw, labels, masks, loss scale and probabilities (uint8).

    Labels are what the task makes of them: classes, or channels.

    Returns:
        The middle sections (Y, X) of ``raw``, and of the scored classes as ``labels`` and ``predictions``;
        where affinities are learnt, their target and prediction as ``labels_affinities`` and
        ``predictions_affinities``, (3, Y, X), see `Task.nearest_affinities`.
    """
    raw_ZYX = _unit_to_uint8(batch.raw[0, 0].numpy())
    probabilities_CZYX = task.probabilities(logits_NCZYX[0].cpu()).numpy()
    arrays: dict[str, NDArray[Any]] = {
        "labels": _for_storage(batch.labels[0].numpy()),
        "mask": batch.mask[0].numpy().astype(np.uint8),
        "metric_mask": batch.metric_mask[0].numpy().astype(np.uint8),
        "loss_scalings": batch.loss_scale[0].numpy(),
    }
    offset = Coordinate(batch.position[0])  # of the output block, absolute voxels
    context = (Coordinate(raw_ZYX.shape) - Coordinate(arrays["mask"].shape)) // 2
    _write(path / "raw", raw_ZYX, offset - context, batch.voxel_size[0])
    for name, array_ZYX in arrays.items():
        _write(path / name, array_ZYX, offset, batch.voxel_size[0])
    _write(
        path / "predictions", np.rint(probabilities_CZYX * 255).astype(np.uint8), offset, batch.voxel_size[0]
    )
    middle = arrays["mask"].shape[0] // 2
    predicted_ZYX = task.predicted(task.decode(logits_NCZYX[0])).classes_ZYX
    target = batch.labels[0].numpy()
    pictures = {
        "raw": raw_ZYX[raw_ZYX.shape[0] // 2],
        "labels": task.target_classes(target)[middle],
        "predictions": predicted_ZYX[middle],
    }
    for name, channels in (("labels", target), ("predictions", probabilities_CZYX)):
        affinities_CYX = task.nearest_affinities(channels[..., middle, :, :])
        if affinities_CYX is not None:
            pictures[f"{name}_affinities"] = affinities_CYX.astype(np.float32)
    return pictures


class ValidationSnapshot:
    """One validation dataset as Zarr, written block by block.

    Where objects are learnt, their ``ids`` and what a prediction stores besides the scored classes.
    """

    NAMES = ("predictions", "labels", "mask", "metric_mask")

    def __init__(self, path: Path, raw: Volume, roi_voxels: Roi, chunk_shape: Coordinate, task: Task) -> None:
        self._raw = raw
        arrays = [StoredArray(name, np.dtype(np.uint8)) for name in (*self.NAMES, "raw")]
        if task.label_kind == "instances":
            arrays += [StoredArray("ids", np.dtype(np.uint64)), *task.stored("uint8")]
        place = to_world(roi_voxels, raw.voxel_size)
        chunks = tuple(min(c, s) for c, s in zip(chunk_shape, roi_voxels.shape, strict=True))
        self._volumes = {
            array.name: create_volume(
                path / array.name,
                shape=(*array.leading_shape, *roi_voxels.shape),
                dtype=array.dtype,
                voxel_size=raw.voxel_size,
                offset_nm=tuple(place.offset),
                chunk_shape=(*array.leading_shape, *chunks),
                attributes=array.attributes,
                existing="resume",
            )
            for array in arrays
        }

    def write(
        self,
        roi_voxels: Roi,
        predicted_ZYX: NDArray[Any],
        stored: Mapping[str, NDArray[Any]],
        true: Truth,
    ) -> None:
        """Write one block; blocks are the chunks.

        Args:
            roi_voxels: of the block, absolute.
            predicted_ZYX: scored classes.
            stored: what `Task.decode` gives.
            true: what was annotated.
        """
        raw_ZYX = normalise(self._raw.read_voxels(roi_voxels))
        arrays = (predicted_ZYX, true.classes_ZYX, true.mask_ZYX, true.counted_ZYX)
        for name, array_ZYX in zip(self.NAMES, arrays, strict=True):
            self._volumes[name].write_voxels(roi_voxels, array_ZYX.astype(np.uint8))
        self._volumes["raw"].write_voxels(roi_voxels, _unit_to_uint8(raw_ZYX))
        if true.ids_ZYX is None:
            return
        for name, array in {"ids": true.ids_ZYX, **stored}.items():
            self._volumes[name].write_voxels(roi_voxels, array)


def _for_storage(labels: NDArray[Any]) -> NDArray[Any]:
    """Return classes as uint32, as published; channels as they are."""
    return labels.astype(np.uint32) if labels.dtype.kind == "i" else labels


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
