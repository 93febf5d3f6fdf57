"""Periodic validation: whole ROIs, block by block, in the memory of one block."""

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from incasem.blockwise import Grid
from incasem.config import DataEntry, TrainingConfig
from incasem.geometry import Coordinate, Roi
from incasem.networks import ValidNetwork
from incasem.prediction import AlignedTiling, Predictor, tiling_for
from incasem.tasks.chosen import task_of
from incasem.tasks.grey_values import normalise
from incasem.tasks.region_scores import RegionScores
from incasem.tasks.task import Task, Truth
from incasem.training.directories import RunDirectories
from incasem.training.snapshots import ValidationSnapshot
from incasem.training.sources import EntrySource, open_entry

BLOCK_VOXELS = 160  # edge of a block unless validation.block_size_voxels says otherwise


@dataclass(frozen=True)
class Section:
    """One section (Y, X) of a validation region: grey values in [0, 1], classes, and what is not scored.

    Where affinities are learnt, also the objects of the labels, and the affinities as
    `Task.nearest_affinities` gives them of what a prediction would store, uint8 (3, Y, X).
    """

    z: int
    raw_YX: NDArray[np.float32]
    labels_YX: NDArray[np.uint8]
    prediction_YX: NDArray[np.uint8]
    excluded_YX: NDArray[np.bool_]
    ids_YX: NDArray[np.uint64] | None = None
    affinities_CYX: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class Validation:
    """The result on one dataset, and the middle section of its region."""

    nickname: str
    loss: float
    region: RegionScores
    section: Section | None
    """None where it is no longer kept."""

    @cached_property
    def scores(self) -> list[dict[str, float]]:
        """Of class 0, 1, …: see `RegionScores.by_class`."""
        return self.region.by_class()

    def scalars(self) -> dict[str, float]:
        """Return loss and scores as TensorBoard and the sidecar name them."""
        values = {"loss_0": self.loss}
        for index, score in enumerate(self.scores):
            values |= {f"{name}_class_{index}": value for name, value in score.items()}
        return values

    def published_metrics(self, dataset: int) -> dict[str, float]:
        """Return loss and scores under the published names, and F1 under its own too."""
        values = {f"loss_val_ds_{dataset}_type_0": self.loss}
        for index, score in enumerate(self.scores):
            suffix = f"class_{index}_validation_ds_{dataset}"
            values[f"dice_{suffix}"] = score["f1"]
            values |= {f"{name}_{suffix}": value for name, value in score.items()}
        return values

    def line(self) -> str:
        """Return one line for the terminal."""
        names = {"f1": "F1", "jaccard": "Jaccard", "average_precision": "AP"}
        classes = (
            f"class {index}: "
            + ", ".join(f"{names[n]} {score[n]:.3f}" for n in names if math.isfinite(score[n]))
            for index, score in enumerate(self.scores)
            if index > 0
        )
        return f"{self.nickname}: validation loss {self.loss:.4f}, " + "; ".join(classes)


class Validator:
    """Scores the network on the validation entries.

    The loss is the training loss with the class balance of the whole ROI; it does not depend on blocks.
    """

    def __init__(
        self,
        entries: Sequence[DataEntry],
        config: TrainingConfig,
        device: torch.device,
        directories: RunDirectories,
    ) -> None:
        self._config = config
        self._device = device
        self._directories = directories
        self._task = task_of(config)
        self._datasets = [
            open_entry(entry, index, labels=self._task.label_kind) for index, entry in enumerate(entries)
        ]
        self._runs = 0
        # What the memory took the last time: planning it anew would take longer than a small region.
        self._tile_shape: Sequence[int] | None = None
        self._stopped = threading.Event()

    def run(self, network: ValidNetwork, iteration: int) -> list[Validation]:
        """Return one result a dataset; every ``validation.snapshot.every``-th run is kept as Zarr."""
        precision = self._config.validation.precision
        tile_shape = self._tile_shape
        if network.depends_on_tile:  # it is best judged on tiles as large as those of the training
            tile_shape = self._config.validation.output_size_voxels
        predictor = Predictor(
            network,
            device=self._device,
            precision=precision,
            task=self._task,
            tiling=None if tile_shape is None else tiling_for(network, tile_shape),
        )
        every = self._config.validation.snapshot.every
        snapshot = bool(every) and self._runs % every == 0
        self._runs += 1
        results = [self._one(dataset, predictor, iteration, snapshot) for dataset in self._datasets]
        if isinstance(predictor.tiling, AlignedTiling):
            self._tile_shape = predictor.tiling.tile_shape
        return results

    def stop(self) -> None:
        """End a `run` in another thread with an InterruptedError, after the block that it is at."""
        self._stopped.set()

    def _one(self, dataset: EntrySource, predictor: Predictor, iteration: int, snapshot: bool) -> Validation:
        task = self._task
        scores, loss = RegionScores(task.num_classes), task.region_loss()
        middle = _MiddleSection(dataset.roi, task)
        kept = self._snapshot(dataset, iteration) if snapshot else None
        for block in Grid(dataset.roi, self._block_shape()).blocks():
            if self._stopped.is_set():
                raise InterruptedError("the training ended, and its validation with it")
            roi = block.write_roi
            logits_CZYX = predictor.logits(dataset.raw, roi)
            true = task.truth(dataset.truth, roi)
            stored = task.decode(logits_CZYX)  # as a prediction would
            predicted = task.predicted(stored)
            scores.add(predicted.classes_ZYX, predicted.probabilities, true.classes_ZYX, true.counted_ZYX)
            loss.add(logits_CZYX, true.target, true.learnt)
            middle.add(roi, dataset.raw.read_voxels(roi), predicted.classes_ZYX, stored, true)
            if kept is not None:
                kept.write(roi, predicted.classes_ZYX, stored, true)
        return Validation(dataset.entry.nickname, loss.value(), scores, middle.section)

    def _block_shape(self) -> Coordinate:
        asked = self._config.validation.block_size_voxels
        return Coordinate(asked if asked is not None else (BLOCK_VOXELS,) * 3)

    def _snapshot(self, dataset: EntrySource, iteration: int) -> ValidationSnapshot:
        folder = self._directories.snapshots / "validation" / dataset.entry.nickname
        path = folder / f"{iteration}.zarr"
        return ValidationSnapshot(path, dataset.raw, dataset.roi, self._block_shape(), self._task)


class _MiddleSection:
    """Collects the middle section of a ROI from the blocks that cross it."""

    def __init__(self, roi_voxels: Roi, task: Task) -> None:
        self._roi, self._task = roi_voxels, task
        self._z = roi_voxels.begin[0] + roi_voxels.shape[0] // 2
        self._arrays: dict[str, NDArray[Any]] = {}

    @property
    def section(self) -> Section:
        """What was collected."""
        return Section(z=self._z, **self._arrays)

    def add(
        self,
        roi: Roi,
        raw_ZYX: NDArray[Any],
        predicted_ZYX: NDArray[Any],
        stored: Mapping[str, NDArray[Any]],
        true: Truth,
    ) -> None:
        if not roi.begin[0] <= self._z < roi.end[0]:
            return
        z = self._z - roi.begin[0]
        main_ZYX = list(stored.values())[-1]
        parts = {
            "raw_YX": ((normalise(raw_ZYX[z]) + 1) / 2).astype(np.float32),
            "labels_YX": true.classes_ZYX[z].astype(np.uint8),
            "prediction_YX": predicted_ZYX[z].astype(np.uint8),
            "excluded_YX": ~true.counted_ZYX[z],
            "ids_YX": None if true.ids_ZYX is None else true.ids_ZYX[z],
            "affinities_CYX": self._task.nearest_affinities(main_ZYX[..., z, :, :]),
        }
        place = (..., *(roi - self._roi.offset).to_slices()[1:])
        for name, part in parts.items():
            if part is None:
                continue
            if name not in self._arrays:
                self._arrays[name] = np.zeros((*part.shape[:-2], *self._roi.shape[1:]), part.dtype)
            self._arrays[name][place] = part
