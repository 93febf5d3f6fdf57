"""What a training run shows while it runs: the run store's metrics and TensorBoard."""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from incasem.config import TrainingConfig
from incasem.metrics import PrecisionRecallAccumulator
from incasem.training.directories import RunDirectories

LogScalar = Callable[[str, float, int], None]

_EVERY_LEVEL = 3
"""TensorBoard takes at most 127 thresholds: every third of our 256 makes 86, from 0 to 1."""

#: The settings that TensorBoard compares trainings by: the same for all, since it shows those of the first.
COMPARED_SETTINGS = (
    "task.type", "training.iterations", "training.batch_size", "training.accumulate", "training.precision",
    "training.optimizer.type", "training.optimizer.lr", "training.optimizer.weight_decay",
    "training.optimizer.schedule",
    "training.gradient_clip", "training.ema_decay", "training.swa_start",
    "training.weight_standardization", "training.start_from", "training.sampling.foreground",
    "training.reject.min_masked", "training.input_size_voxels", "loss.type", "loss.weight",
    "loss.cross_entropy_weight", "loss.bce_weight", "loss.dice_weight", "model.num_fmaps",
    "model.fmap_inc_factor", "model.downsample_factors", "data.num_classes", "data.voxel_size", "seed",
)  # fmt: skip
_TEXTS = ("training.start_from",)  # where they are set; a column of the dashboard has one type


class Monitor:
    """Writes scalars to the run store and to TensorBoard, and slices to TensorBoard.

    Non-finite values are left out: the run store's JSON cannot hold them.

    Args:
        directories: the run's folders.
        log_scalar: ``log_scalar(name, value, step)`` of the run store.
        nicknames: the validation datasets, in the order of ``ds_0``, ``ds_1``, …
    """

    def __init__(self, directories: RunDirectories, log_scalar: LogScalar, nicknames: Sequence[str]) -> None:
        self._log_scalar = log_scalar
        self._training = _summary_writer(directories.tensorboard / "training")
        self._validation = [
            _summary_writer(directories.tensorboard / "validation" / nickname) for nickname in nicknames
        ]

    def training_step(self, iteration: int, scalars: Mapping[str, float]) -> None:
        """Write one training step to TensorBoard (``loss_0``, ``learning_rate``, …)."""
        for name, value in scalars.items():
            if math.isfinite(value):
                self._training.add_scalar(name, value, iteration)

    def record(self, iteration: int, metrics: Mapping[str, float]) -> None:
        """Write metrics under their published names to the run store."""
        for name, value in metrics.items():
            if math.isfinite(value):
                self._log_scalar(name, float(value), iteration)

    def validation(
        self,
        dataset: int,
        iteration: int,
        scalars: Mapping[str, float],
        precision_recall: PrecisionRecallAccumulator,
    ) -> None:
        """Write the scores and the precision–recall curves of one validation dataset to TensorBoard."""
        for name, value in scalars.items():
            if math.isfinite(value):
                self._validation[dataset].add_scalar(name, value, iteration)
        _add_curves(self._validation[dataset], iteration, precision_recall)
        self._validation[dataset].flush()

    def outcome(self, config: TrainingConfig, iteration: int, scores: Mapping[str, float]) -> None:
        """Write the settings that matter and the scores of the best checkpoint for TensorBoard's HPARAMS.

        They stand among the training's own events: `SummaryWriter.add_hparams` would add a run of another
        name to the dashboard for each training.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from torch.utils.tensorboard.summary import hparams

            metrics = {f"best/{name}": value for name, value in scores.items() if math.isfinite(value)}
            for summary in hparams(compared_settings(config), metrics):
                self._training.file_writer.add_summary(summary, iteration)
        for name, value in metrics.items():
            self._training.add_scalar(name, value, iteration)

    def training_slices(self, iteration: int, slices: Mapping[str, NDArray[Any]]) -> None:
        """Write pictures (uint8 or float in [0, 1]; YX, or YXC with three colours) of a training sample."""
        _add_images(self._training, iteration, slices)

    def validation_slices(self, dataset: int, iteration: int, slices: Mapping[str, NDArray[Any]]) -> None:
        """Write pictures of a validation dataset; see `training_slices`."""
        _add_images(self._validation[dataset], iteration, slices)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for writer in (self._training, *self._validation):
            writer.close()


def class_picture(classes_YX: NDArray[Any], num_classes: int) -> NDArray[np.float32]:
    """Return class indices (YX) as grey values in [0, 1]."""
    return (classes_YX / max(num_classes - 1, 1)).astype(np.float32)


def compared_settings(config: TrainingConfig) -> dict[str, float | str]:
    """Return `COMPARED_SETTINGS`; numbers that are not set are 0, lists are text."""
    values = config.to_dict()
    return {name: _comparable(name, _look_up(values, name)) for name in COMPARED_SETTINGS}


def _look_up(values: Any, name: str) -> Any:
    for part in name.split("."):
        values = values[part]
    return values


def _comparable(name: str, value: Any) -> float | str:
    if value is None:
        return "none" if name in _TEXTS else 0.0
    return float(value) if isinstance(value, bool | int | float) else str(value)


def _add_curves(writer: Any, iteration: int, precision_recall: PrecisionRecallAccumulator) -> None:
    for class_id in range(precision_recall.num_classes):
        counts = precision_recall.counts(class_id)
        found, wrong, right_left, missed = (
            levels[::_EVERY_LEVEL]
            for levels in (
                counts.true_positives, counts.false_positives, counts.true_negatives, counts.false_negatives,
            )
        )  # fmt: skip
        support = int(found[0])
        if support == 0:
            continue
        precision, recall = found / np.maximum(found + wrong, 1), found / support
        writer.add_pr_curve_raw(
            f"precision_recall_class_{class_id}", found, wrong, right_left, missed, precision, recall,
            iteration, num_thresholds=len(found),
        )  # fmt: skip


def _add_images(writer: Any, iteration: int, slices: Mapping[str, NDArray[Any]]) -> None:
    for name, picture in slices.items():
        writer.add_image(name, picture, iteration, dataformats="HW" if picture.ndim == 2 else "HWC")
    writer.flush()


def _summary_writer(folder: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # protobuf and tensorboard warn about their own code
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(folder))
