"""What a training run shows while it runs: the run store's metrics and TensorBoard."""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from incasem.training.directories import RunDirectories

LogScalar = Callable[[str, float, int], None]


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

    def validation(self, dataset: int, iteration: int, scalars: Mapping[str, float]) -> None:
        """Write the scores of one validation dataset to TensorBoard."""
        for name, value in scalars.items():
            if math.isfinite(value):
                self._validation[dataset].add_scalar(name, value, iteration)
        self._validation[dataset].flush()

    def training_slices(self, iteration: int, slices: Mapping[str, NDArray[Any]]) -> None:
        """Write 2D pictures (uint8 or float in [0, 1], YX) of a training sample."""
        _add_images(self._training, iteration, slices)

    def validation_slices(self, dataset: int, iteration: int, slices: Mapping[str, NDArray[Any]]) -> None:
        """Write 2D pictures (uint8 or float in [0, 1], YX) of a validation dataset."""
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


def _add_images(writer: Any, iteration: int, slices: Mapping[str, NDArray[Any]]) -> None:
    for name, picture_YX in slices.items():
        writer.add_image(name, picture_YX, iteration, dataformats="HW")
    writer.flush()


def _summary_writer(folder: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # protobuf and tensorboard warn about their own code
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(folder))
