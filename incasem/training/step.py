"""One step of the optimizer: batches forward and backward, and a look at whether the numbers are sound."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import nn

from incasem.config import TrainingConfig
from incasem.errors import DataError
from incasem.networks import ValidNetwork
from incasem.tasks.chosen import task_of
from incasem.training.distributed import Forward, Processes
from incasem.training.optimization import learning_rate, set_learning_rate
from incasem.training.samples import Batch


@dataclass
class Stepper:
    """Takes the steps of a training; in each of its processes there is one.

    The batches of a step, in all processes, give the loss and the gradient of one batch that holds them all.

    Args:
        config: all settings of the run.
        network: on its device; trained in place.
        optimizer: of the network.
        scaler: of the gradients; enabled in float16 only.
        device: of the network.
        precision: of the arithmetic.
        processes: which share the step.
    """

    config: TrainingConfig
    network: ValidNetwork
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    device: torch.device
    precision: torch.dtype
    processes: Processes = field(default_factory=Processes)

    def __post_init__(self) -> None:
        self.network.train()
        self._task = task_of(self.config)
        forward: nn.Module = self.network
        if self.config.training.compile:
            # It wraps the network, which keeps its parameters under their own names.
            forward = cast(nn.Module, torch.compile(forward, dynamic=False))
        self._forward: Forward = self.processes.parallel(forward, self.device)

    def step(self, iteration: int, batches: Sequence[Batch]) -> tuple[float, torch.Tensor]:
        """Change the network; return the loss, and the logits (N, C, Z, Y, X) of this process's last batch.

        Args:
            iteration: gives the learning rate.
            batches: of this process; `training.accumulate`.

        Raises:
            DataError: the loss or the gradient is not finite. The network is as it was.
        """
        settings = self.config.training.optimizer
        rate = learning_rate(settings.lr, settings.schedule, iteration, self.config.training.iterations)
        set_learning_rate(self.optimizer, rate)
        self.optimizer.zero_grad(set_to_none=True)
        totals = self._totals(batches)
        losses = []
        for batch in batches[:-1]:
            with self.processes.own_gradients(self._forward):
                losses.append(self._backward(batch, totals)[0])
        loss, logits = self._backward(batches[-1], totals)
        losses.append(loss)
        self.scaler.unscale_(self.optimizer)
        norm = self._gradient_norm()
        values = [float(loss) for loss in losses]
        (value,) = self.processes.total([sum(values)])
        if not math.isfinite(value):
            named = [batch for batch, own in zip(batches, values, strict=True) if not math.isfinite(own)]
            raise self._not_finite(f"loss is {value}", named)
        # In float16 it is the scaler's business to leave such a step out.
        if not self.scaler.is_enabled() and not math.isfinite(norm):
            raise self._not_finite(f"norm of the gradient is {float(norm)}", batches)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return value, logits

    def _totals(self, batches: Sequence[Batch]) -> list[float] | None:
        """Return what the losses of the step are divided by; None for a batch alone, which tells."""
        if len(batches) == 1 and self.processes.world == 1:
            return None
        return self.processes.total(self._task.totals(batch.loss_scale for batch in batches))

    def _backward(self, batch: Batch, totals: list[float] | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Add the gradient of a batch; return its part of the loss, and the logits, detached."""
        raw = batch.raw.to(self.device, memory_format=torch.channels_last_3d, non_blocking=True)
        labels = batch.labels.to(self.device, non_blocking=True)
        scale = batch.loss_scale.to(self.device, non_blocking=True)
        mixed = self.precision != torch.float32
        with torch.autocast(self.device.type, dtype=self.precision, enabled=mixed):
            logits = self._forward(raw)
        logits = logits.float()
        loss = self._task.loss(logits, labels, scale, totals)
        # The processes' gradients are averaged, and are to be added.
        scaled = self.scaler.scale(loss if self.processes.world == 1 else loss * self.processes.world)
        scaled.backward()  # type: ignore[no-untyped-call]
        return loss.detach(), logits.detach()

    def _gradient_norm(self) -> torch.Tensor:
        """Return the norm of the gradient, before it is clipped to `training.gradient_clip`."""
        limit = self.config.training.gradient_clip
        if limit is not None:
            return torch.nn.utils.clip_grad_norm_(self.network.parameters(), limit)
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        return torch.nn.utils.get_total_norm(gradients)

    def _not_finite(self, what: str, batches: Sequence[Batch]) -> DataError:
        """Return the error, the same one in all processes, for the ``batches`` of this one."""
        own = "; ".join(batch.describe() for batch in batches)
        samples = "; ".join(text for text in self.processes.texts(own) if text)
        return DataError(
            f"the {what} for the sample {samples}; the last good checkpoint is "
            "untouched. Look at the raw data there, or lower training.optimizer.lr "
            f"(now {self.config.training.optimizer.lr:g})."
        )
