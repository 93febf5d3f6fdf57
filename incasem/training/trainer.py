"""The training loop: sample, step, and now and then a checkpoint, a validation, a snapshot."""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from numpy.typing import NDArray
from tqdm import tqdm

from incasem.config import TrainingConfig
from incasem.evaluation.object_pictures import paint_affinities, paint_objects
from incasem.evaluation.report_pictures import grey
from incasem.networks import (
    ValidNetwork,
    plain_state,
    remove_old_checkpoints,
    save_checkpoint,
    write_sidecar,
)
from incasem.tasks.chosen import task_of
from incasem.training.asynchronous import Validations
from incasem.training.directories import RunDirectories
from incasem.training.feed import Batch
from incasem.training.history import History
from incasem.training.monitor import Monitor, class_picture
from incasem.training.optimization import WeightAverage
from incasem.training.snapshots import write_training_snapshot
from incasem.training.step import Stepper
from incasem.training.validation import Section, Validation

logger = logging.getLogger(__name__)


@dataclass
class Trainer:
    """One training run; of several processes, the one that leads.

    Args:
        config: all settings of the run.
        stepper: holds the network and trains it in place.
        batches: yields the `training.accumulate` batches of each iteration from ``start`` on.
        validations: of the validation datasets; None without any.
        monitor: where metrics go.
        directories: where files go.
        sidecar: what each checkpoint's sidecar says besides iteration and scores.
        result: what is validated, saved and predicted with: the plain network of the trained weights, or of
            their average.
        average: of the weights, whose network ``result`` then is.
        start: the first iteration; larger than 0 where a run is continued.
        tell: prints a line to the terminal.
    """

    config: TrainingConfig
    stepper: Stepper
    batches: Iterator[Batch]
    validations: Validations | None
    monitor: Monitor
    directories: RunDirectories
    sidecar: dict[str, Any]
    result: ValidNetwork
    average: WeightAverage | None = None
    start: int = 0
    tell: Callable[[str], None] = lambda line: None
    history: History = field(default_factory=History)

    def __post_init__(self) -> None:
        self._task = task_of(self.config)

    def run(self) -> History:
        """Train from iteration ``start`` up to and including ``training.iterations``, as published."""
        settings, clock = self.config.training, self.history.clock
        with self._progress() as progress:
            for iteration in range(self.start, settings.iterations + 1):
                waited = time.perf_counter()
                with clock("waiting for samples"):
                    batches = list(islice(self.batches, settings.accumulate))
                waited = time.perf_counter() - waited

                with clock("training steps"):
                    loss, logits = self.stepper.step(iteration, batches)
                if self.average:
                    self.average.update(self.stepper.network, iteration)
                batch = batches[-1]
                self._record_step(iteration, loss, waited, batch, logits)
                progress.set_postfix_str(f"loss {loss:.4f}", refresh=False)
                progress.update()

                if iteration % settings.save_every == 0 or iteration == settings.iterations:
                    with clock("saving checkpoints"):
                        self._save(iteration)
                if settings.snapshot.every and iteration % settings.snapshot.every == 0:
                    self._snapshot(iteration, batch, logits)
                if self.validations and self._validates(iteration):
                    with clock("validation"):
                        self.validations.start(self._result(), iteration)
                self._record_validations(wait=iteration == settings.iterations)
        return self.history

    def _record_step(
        self, iteration: int, loss: float, waited: float, batch: Batch, logits: torch.Tensor
    ) -> None:
        self.history.losses.append((iteration, loss))
        rate = self.stepper.optimizer.param_groups[0]["lr"]
        scalars = {"loss_0": loss, "learning_rate": rate, "feed_wait_s": waited}
        self.monitor.training_step(iteration, scalars)
        if iteration % self.config.sacred.log_every == 0:
            metrics = self._task.training_metrics(logits, batch.labels, batch.loss_scale, batch.mask)
            self.monitor.record(iteration, {"loss_train_0": loss} | metrics)

    def _save(self, iteration: int) -> None:
        sidecar = self.sidecar | {"iteration": iteration}
        path = self.directories.checkpoint(iteration)
        settings, stepper = self.config.training, self.stepper
        differs = self.average is not None or settings.weight_standardization
        in_training = stepper.network if differs else None
        save_checkpoint(
            path, self._result(), stepper.optimizer, sidecar, in_training=in_training, scaler=stepper.scaler
        )
        if settings.checkpoints.keep is not None:
            at_work = None if self.validations is None else self.validations.running
            spare = () if at_work is None else (self.directories.checkpoint(at_work),)
            remove_old_checkpoints(path.parent, settings.checkpoints.keep, iteration, spare)

    def _result(self) -> ValidNetwork:
        """Return `result`, up to date."""
        if self.average is None:
            self.result.load_state_dict(plain_state(self.stepper.network))
        return self.result

    def _validates(self, iteration: int) -> bool:
        return iteration % self.config.validation.validate_every == 0 or (
            iteration == self.config.training.iterations
        )

    def _record_validations(self, *, wait: bool) -> None:
        """Record the validations that have ended; ``wait``: for the one at work, too."""
        if self.validations is None:
            return
        with self.history.clock("validation"):
            for iteration, validations in self.validations.finished(wait=wait):
                self._record_validation(iteration, validations)

    def _record_validation(self, iteration: int, validations: list[Validation]) -> None:
        path = self.directories.checkpoint(iteration)
        self.history.add(iteration, validations, saved=path.exists())
        for index, validation in enumerate(validations):
            self.monitor.record(iteration, validation.published_metrics(index))
            self.monitor.validation(
                index, iteration, validation.scalars(), validation.region.precision_recall
            )
            if validation.section is not None:
                self.monitor.validation_slices(index, iteration, self._pictures(validation.section))
            self.tell(f"iteration {iteration}: {validation.line()}")
        if path.exists():
            scores = {validation.nickname: validation.scalars() for validation in validations}
            write_sidecar(path, self.sidecar | {"iteration": iteration, "scores": scores})

    def _pictures(self, section: Section) -> dict[str, NDArray[Any]]:
        classes = self._task.num_classes
        pictures: dict[str, NDArray[Any]] = {
            "raw": section.raw_YX,
            "labels": class_picture(section.labels_YX, classes),
            "predictions": class_picture(section.prediction_YX, classes),
        }
        if section.ids_YX is not None:
            pictures["objects"] = paint_objects(grey(section.raw_YX), section.ids_YX)
        if section.affinities_CYX is not None:
            pictures["affinities"] = paint_affinities(section.affinities_CYX)
        return pictures

    def _snapshot(self, iteration: int, batch: Batch, logits: torch.Tensor) -> None:
        folder = self.directories.snapshots / "training"
        pictures = write_training_snapshot(folder / f"{iteration}.zarr", batch, logits, self._task)
        num_classes = self._task.num_classes
        for name, picture in pictures.items():
            if name in ("labels", "predictions"):
                pictures[name] = class_picture(picture, num_classes)
            elif name != "raw":
                pictures[name] = paint_affinities(picture)
        self.monitor.training_slices(iteration, pictures)

    def _progress(self) -> Any:
        total = self.config.training.iterations + 1
        # Only on a terminal: in a log file the lines of the validations tell how far it is.
        return tqdm(total=total, initial=self.start, desc="train", unit="it", mininterval=1.0, disable=None)
