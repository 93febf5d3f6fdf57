"""Several processes that train one network: as many as `torchrun` starts, on one machine or on several.

Each process makes its own samples of the one seeded sequence and its own gradients; torch's
DistributedDataParallel adds them up, so all take the same step. The process of rank 0 *leads*: it alone reads
and writes the run store, validates, saves and prints, while the others wait for it at the next step.

What the processes tell each other besides gradients goes through gloo, with a patience that a validation of
hours does not exhaust; a process that ends closes its connections, which the others notice at once.
"""

import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from incasem.errors import DataError
from incasem.prediction import choose_device

logger = logging.getLogger(__name__)

Forward = Callable[[Tensor], Tensor]

PATIENCE = timedelta(days=30)  # with a process that leads, or the slowest feed


@dataclass(frozen=True)
class Processes:
    """The processes of a training, and which of them this is; by default there is only one.

    Attributes:
        rank: number of this process.
        world: how many there are.
        local_rank: its number on its machine.
        local_gpus: how many GPUs, from the first on, the processes of its machine may use.
        group: through which they tell each other what they must know; None: there is only one.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_gpus: int = 0
    group: Any = None

    @property
    def leads(self) -> bool:
        """Whether this process records, validates, saves and prints."""
        return self.rank == 0

    def device(self, setting: int | str) -> torch.device:
        """Return the device of this process for `torch.device`: with several, each takes a GPU of its own.

        Raises:
            ConfigError: it is not there.
        """
        if self.group is None or setting == "cpu" or not torch.cuda.is_available():
            return choose_device(setting)
        device = choose_device(f"cuda:{self.local_rank}")
        torch.cuda.set_device(device)
        return device

    def sample_numbers(self, start: int, stop: int, batch_size: int) -> Iterator[int]:
        """Return the samples of this process: of the batches ``start`` to ``stop`` - 1 the part that is its.

        Batch b of all processes holds the samples from ``b * world * batch_size`` on, those of rank 0 first:
        the same ones as the batch of one process that is ``world`` times as large.
        """
        for batch in range(start, stop):
            first = (batch * self.world + self.rank) * batch_size
            yield from range(first, first + batch_size)

    def total(self, values: Sequence[float]) -> list[float]:
        """Return the sums over all processes; values must be finite, or their sums are not.

        Raises:
            DataError: another process has ended.
        """
        if self.group is None:
            return list(values)
        sums = torch.tensor(values, dtype=torch.float64)
        self._told(lambda: distributed.all_reduce(sums, group=self.group))
        return [float(value) for value in sums]

    def from_leader(self, text: str | None = None) -> str:
        """Return the text that the leading process gives; the others give none and wait for it."""
        return self._broadcast(text or "", 0)

    def texts(self, text: str) -> list[str]:
        """Return the texts of all processes, each of which gives its own."""
        return [self._broadcast(text, rank) for rank in range(self.world)]

    def wait(self) -> None:
        """Return when all processes have come here."""
        self.total([])

    def parallel(self, forward: nn.Module, device: torch.device) -> nn.Module:
        """Return the network whose gradients are the mean over the processes."""
        if self.group is None:
            return forward
        self.wait()
        # Of filters with one input channel, whose layout has two names.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        return DistributedDataParallel(forward, device_ids=[device] if device.type == "cuda" else None)

    def own_gradients(self, forward: Forward) -> AbstractContextManager[None]:
        """In this context gradients add up in this process, for a later backward pass to share them."""
        return forward.no_sync() if isinstance(forward, DistributedDataParallel) else nullcontext()

    def _broadcast(self, text: str, source: int) -> str:
        # Bytes, not objects: what comes over the network is not unpickled.
        if self.group is None:
            return text
        content = torch.tensor(list(text.encode()) if self.rank == source else [], dtype=torch.uint8)
        size = torch.tensor([len(content)])
        self._told(lambda: distributed.broadcast(size, src=source, group=self.group))
        if self.rank != source:
            content = torch.zeros(int(size), dtype=torch.uint8)
        if len(content):
            self._told(lambda: distributed.broadcast(content, src=source, group=self.group))
        return bytes(content.tolist()).decode()

    def _told(self, tell: Callable[[], object]) -> None:
        try:
            tell()
        except RuntimeError as error:
            logger.info("rank %d was left alone: %s", self.rank, error)
            raise DataError(
                f"process {self.rank} of {self.world} ends, since another process of the training has "
                "ended; what that one says is the reason."
            ) from error


def _local_gpus() -> int:
    # Without a launcher that tells, all of them: a GPU that another process trains on is not free.
    return int(os.environ.get("LOCAL_WORLD_SIZE", torch.cuda.device_count()))


@contextmanager
def processes() -> Iterator[Processes]:
    """Join the other processes of the training, if `torchrun` (or whoever sets `WORLD_SIZE`) started any.

    At the end each waits for all, unless it fails: then its connections close, and the others end too.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Processes()
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    distributed.init_process_group(backend)
    try:
        group = distributed.new_group(backend="gloo", timeout=PATIENCE)
        joined = Processes(
            distributed.get_rank(), world, int(os.environ.get("LOCAL_RANK", "0")), _local_gpus(), group
        )
        if not joined.leads:  # the warnings of all processes are the same
            for name in ("incasem", "py.warnings"):
                logging.getLogger(name).setLevel(logging.ERROR)
        yield joined
        joined.wait()
    finally:
        distributed.destroy_process_group()
