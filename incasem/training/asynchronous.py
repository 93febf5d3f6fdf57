"""Validations beside the training, on a device of their own.

The network is copied when a validation is due, so it is scored as it was at that iteration, and the training
is what it would have been. A second validation waits for the first: they do not queue up.
"""

import copy
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Protocol, Self

import torch

from incasem.networks import ValidNetwork
from incasem.prediction import choose_device
from incasem.training.distributed import Processes
from incasem.training.validation import Validation

FREE_SHARE = 0.9
"""Of a GPU's memory: where as much is free, nobody else is at work."""


class Validates(Protocol):
    """What scores a network; a `Validator`."""

    def run(self, network: ValidNetwork, iteration: int) -> list[Validation]:
        """Return one result a dataset."""
        ...

    def stop(self) -> None:
        """End `run`, which is at work in another thread, with an error."""
        ...


def validation_device(setting: int | str | None, training: torch.device, joined: Processes) -> torch.device:
    """Return where validations run: as set, else a second GPU that is free, else where the training runs.

    Args:
        setting: `validation.device`.
        training: device of the training.
        joined: the processes of the training, each of which may use a GPU.

    Raises:
        ConfigError: a device that is not there.
    """
    if setting is not None:
        return choose_device(setting, name="validation.device")
    if training.type != "cuda":
        return training
    for index in range(torch.cuda.device_count()):
        device = torch.device("cuda", index)
        if device != training and index >= joined.local_gpus and _is_free(device):
            return device
    return training


def _is_free(device: torch.device) -> bool:
    free, total = torch.cuda.mem_get_info(device)
    return free >= FREE_SHARE * total


class Validations:
    """Starts validations and gives their results back, as soon as they are there.

    Args:
        validator: runs them.
        beside: start them in a thread, and go on; else `start` returns when the validation is done.
    """

    def __init__(self, validator: Validates, *, beside: bool) -> None:
        self._validator = validator
        self._pool = ThreadPoolExecutor(1, "validation") if beside else None
        self._done: list[tuple[int, list[Validation]]] = []
        self._running: tuple[int, Future[list[Validation]]] | None = None

    @property
    def running(self) -> int | None:
        """Iteration of the validation that was started last and not taken; None without one."""
        return None if self._running is None else self._running[0]

    def start(self, network: ValidNetwork, iteration: int) -> None:
        """Validate ``network``, which may change as soon as this returns; waits for an earlier validation.

        Raises:
            IncasemError: a validation failed; that of the earlier one too.
        """
        if self._pool is None:
            self._done.append((iteration, self._validator.run(network, iteration)))
            return
        self._take()
        self._running = (iteration, self._pool.submit(self._validator.run, copy.deepcopy(network), iteration))

    def finished(self, *, wait: bool = False) -> Iterator[tuple[int, list[Validation]]]:
        """Yield iteration and results of each validation that has ended since the last call.

        Args:
            wait: for the one that is running, too.

        Raises:
            IncasemError: a validation failed.
        """
        if self._running is not None and (wait or self._running[1].done()):
            self._take()
        while self._done:
            yield self._done.pop(0)

    def _take(self) -> None:
        if self._running is not None:
            iteration, future = self._running
            self._running = None
            self._done.append((iteration, future.result()))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the thread, and with it what runs there if the training failed."""
        if self._pool is not None:
            if kind is not None:
                self._validator.stop()
            self._pool.shutdown(wait=True)
