"""The samples of a training, made ahead of the network in worker processes.

Sample ``i`` depends on the entries, the settings, the seed and ``i`` alone: not on which process makes it,
how many there are, or which samples came before. So any number of workers gives the same batches in the same
order, and a training that continues at iteration ``n`` sees what it would have seen.

Workers are started afresh ("spawn"), since tensorstore does not survive a fork, and hand arrays over in
shared memory, or through a pipe where the machine offers too little of it.
"""

import atexit
import contextlib
import itertools
import logging
import math
import os
import random
import shutil
import signal
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from torch.utils.data import DataLoader

from incasem.config import DataEntry, TrainingConfig
from incasem.errors import ConfigError, DataError, IncasemError, explain
from incasem.geometry import Coordinate
from incasem.prediction.device import choose_device
from incasem.tasks.chosen import task_of
from incasem.tasks.task import Task
from incasem.training.locations import Locations, SampleIndex, check_learnable, index_entry
from incasem.training.pipeline import SampleShape, build_pipeline, sample_request
from incasem.training.resampling import warm_up
from incasem.training.samples import Batch, Sample
from incasem.training.sources import EntrySource, Keys, open_entry

logger = logging.getLogger(__name__)

__all__ = ["Batch", "Sample", "SampleFeed"]

CACHE_BYTES = 2**29  # of decoded chunks that one process keeps, over all entries
TIMEOUT_S = 1800  # without any sample, after which the training gives up
SHARED_MEMORY = Path("/dev/shm")
THREAD_SETTINGS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
ARRAYS = {
    "raw": Keys.RAW,
    "labels": Keys.TARGET,
    "loss_scale": Keys.LOSS_SCALE,
    "mask": Keys.MASK,
    "metric_mask": Keys.METRIC_MASK,
}


class SampleFeed:
    """Iterates over the samples ``start_index``, ``start_index + 1``, … without an end.

    Use as a context manager, or call `close`. A script needs ``if __name__ == "__main__":`` for the workers.

    Args:
        entries: of the data configuration; checked by `sources.check_entries` beforehand.
        config: `training.augmentation`, `reject`, `sampling`, `precache`, `task`, `loss.balance_labels`,
            `data.num_classes` and `voxel_size`, and `torch.device` are read.
        input_shape: voxels (z, y, x) that the network reads.
        output_shape: voxels that it keeps; smaller by an even number.
        seed: of the training.
        start_index: first sample.
        num_workers: processes that make samples, at most one a CPU; 0: this process makes them when asked.
            None: `training.precache.num_workers`.
        num_samples: how many samples will be asked for, where that is known; None: no end.
        numbers: of the samples to make, in their order, where they are not all from ``start_index`` on.
        device: of the network, for `training.augmentation.device`; None: what `torch.device` says.

    Raises:
        ConfigError: no entries, or shapes that do not fit together.
        DataError: an entry cannot be used, no sample can be drawn from it, or nothing is labelled. While
            iterating: the data of a sample cannot be read, or a worker was killed.
    """

    def __init__(
        self,
        entries: Sequence[DataEntry],
        config: TrainingConfig,
        input_shape: Sequence[int],
        output_shape: Sequence[int],
        *,
        seed: int,
        start_index: int = 0,
        num_workers: int | None = None,
        num_samples: int | None = None,
        numbers: Iterator[int] | None = None,
        device: torch.device | None = None,
    ) -> None:
        shape = _sample_shape(entries, input_shape, output_shape)
        precache = config.training.precache
        asked = precache.num_workers if num_workers is None else num_workers
        self._num_workers = min(asked, _cpus(), asked if num_samples is None else num_samples)
        task = self._task = task_of(config)
        self._ahead, shared = _samples_ahead(precache.cache_size, self._num_workers, shape, task)
        cache_bytes = CACHE_BYTES // len(entries)
        sources = [
            open_entry(entry, index, labels=task.label_kind, cache_bytes=cache_bytes)
            for index, entry in enumerate(entries)
        ]
        indices = checked_indices(sources, config)
        resampling = _resampling_device(config, device)
        self._dataset = SampleMaker(sources, indices, config, shape, seed, shared, resampling)
        self._dtypes = {source.raw.dtype for source in sources}
        self._numbers: Iterator[int] = itertools.count(start_index) if numbers is None else numbers
        if num_samples is not None:
            self._numbers = itertools.islice(self._numbers, num_samples)
        self._loaded: Iterator[Any] | None = None

    @property
    def num_workers(self) -> int:
        """Worker processes in use."""
        return self._num_workers

    def __iter__(self) -> Iterator[Sample]:
        """Return the samples; a feed can be iterated once."""
        if self._num_workers:
            warm_up(self._dtypes)  # one process compiles, the workers find it done
            _warm_up_task(self._task)
        loader: DataLoader[Any] = DataLoader(
            self._dataset,  # type: ignore[arg-type]  # has no length, and needs none
            batch_size=None,
            sampler=self._numbers,
            num_workers=self._num_workers,
            prefetch_factor=self._ahead if self._num_workers else None,
            multiprocessing_context="spawn" if self._num_workers else None,
            timeout=TIMEOUT_S if self._num_workers else 0,
            worker_init_fn=_start_worker,
            collate_fn=_as_is,
        )
        with _single_threaded_children():
            self._loaded = iter(loader)
        return self._samples()

    def batches(self, size: int = 1) -> Iterator[Batch]:
        """Return batches of ``size`` samples; batch ``b`` begins with sample ``start_index + b * size``."""
        samples = iter(self)
        while chosen := list(itertools.islice(samples, size)):
            yield Batch.of(chosen)

    def close(self) -> None:
        """End the workers."""
        loaded, self._loaded = self._loaded, None
        if loaded is not None and self._num_workers:
            try:
                loaded._shutdown_workers()  # type: ignore[attr-defined]  # what its destructor does, only now
            except RuntimeError as error:
                if not _is_about_a_worker(error):
                    raise
                logger.debug("a feed worker ended by itself: %s", error)
        self._dataset.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
        # torch reports a killed worker by a signal handler, wherever the main thread is at that moment.
        if error is not None and _is_about_a_worker(error):
            raise self._worker_ended(error) from error

    def _samples(self) -> Iterator[Sample]:
        while self._loaded is not None:
            try:
                made = next(self._loaded)
            except StopIteration:
                return
            except (RuntimeError, OSError, EOFError) as error:
                # A pipe to a killed worker may break before the worker itself is missed.
                self.close()
                raise self._worker_ended(error) from error
            if isinstance(made, Failure):
                self.close()
                raise made.error()
            yield _to_sample(made)

    def _worker_ended(self, error: BaseException) -> DataError:
        return DataError(
            f"a process that makes training samples ended ({error}). It was killed, perhaps for want of "
            f"memory. training.precache.num_workers is {self._num_workers}; allowed: 0 or more. Continue the "
            "run, with fewer if it happens again."
        )


class Failure:
    """What takes the place of a sample that could not be made, on the way to the trainer."""

    def __init__(self, number: int, error: Exception) -> None:
        self._number = number
        # gunpowder wraps what was raised in its own error at each node; the first one says what happened.
        first: BaseException = error
        while (before := first.__cause__ or first.__context__) is not None:
            if isinstance(first, IncasemError):
                break
            first = before
        self._message = str(first)
        self._by_user = isinstance(first, IncasemError)
        self._trace = "".join(traceback.format_exception(first))

    def error(self) -> Exception:
        """Return what the trainer raises: a `DataError`, or a RuntimeError for a defect of ours."""
        if self._by_user:
            return DataError(f"training sample {self._number}: {self._message}")
        return RuntimeError(
            f"training sample {self._number} could not be made: {self._message}\n{self._trace}"
        )


def checked_indices(sources: Sequence[EntrySource], config: TrainingConfig) -> list[SampleIndex]:
    """Count the labels of the entries, and check that samples can be drawn and something learnt.

    Raises:
        DataError: they cannot; see `Locations` and `check_learnable`.
    """
    indices = [index_entry(source) for source in sources]
    for source, index in zip(sources, indices, strict=True):
        Locations(source, index, config.training.reject, config.training.sampling)
    check_learnable(sources, indices)
    return indices


class SampleMaker:
    """Makes samples by their numbers; builds its pipeline at the first one, in the process that needs it."""

    def __init__(
        self,
        sources: Sequence[EntrySource],
        indices: Sequence[SampleIndex],
        config: TrainingConfig,
        shape: SampleShape,
        seed: int,
        as_tensors: bool = True,
        device: torch.device | None = None,
    ) -> None:
        self._sources, self._indices = list(sources), list(indices)
        self._config, self._shape, self._seed = config, shape, seed
        self._as_tensors, self._device = as_tensors, device
        self._pipeline: Any = None

    def __getitem__(self, number: int) -> "dict[str, Any] | Failure":
        try:
            return self._make(number)
        except Exception as error:  # noqa: BLE001  # it must reach the other process whole, whatever it is
            return Failure(number, error)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_pipeline": None}

    def close(self) -> None:
        """Take the pipeline of this process down."""
        if self._pipeline is not None:
            self._pipeline.internal_teardown()
            self._pipeline = None

    def _make(self, number: int) -> dict[str, Any]:
        if self._pipeline is None:
            pipeline = build_pipeline(self._sources, self._indices, self._config, self._device)
            pipeline.setup()
            self._pipeline = pipeline
        with _global_generators_kept():
            batch = self._pipeline.request_batch(sample_request(self._shape, self._seed, number))
        entry, z, y, x = (int(value) for value in batch[Keys.PLACE].data)
        made: dict[str, Any] = {name: batch[key].data for name, key in ARRAYS.items()}
        made["raw"] = made["raw"][None]
        if self._as_tensors:
            made = {name: torch.from_numpy(array) for name, array in made.items()}
        described = self._sources[entry].entry
        return made | {
            "position": (z, y, x),
            "entry": entry,
            "nickname": described.nickname,
            "voxel_size": described.voxel_size,
            "number": number,
        }


def _sample_shape(
    entries: Sequence[DataEntry], input_shape: Sequence[int], output_shape: Sequence[int]
) -> SampleShape:
    if not entries:
        raise ConfigError("training.data has no entries; allowed: at least one. Add a region to train on.")
    if any(i < o or (i - o) % 2 for i, o in zip(input_shape, output_shape, strict=True)):
        raise ConfigError(
            f"training.output_size_voxels is {list(output_shape)} with input_size_voxels "
            f"{list(input_shape)}; allowed: sizes that differ by an even number of voxels. "
            "Take the sizes of the network."
        )
    return SampleShape(Coordinate(input_shape), Coordinate(output_shape))


def _resampling_device(config: TrainingConfig, device: torch.device | None) -> torch.device | None:
    """Return the GPU that resamples, which is the network's; None for the processor."""
    if config.training.augmentation.device == "cpu":
        return None
    device = device or choose_device(config.torch.device)
    if device.type == "cpu" and config.torch.device in ("cpu", "auto"):
        raise ConfigError(
            explain(
                "training.augmentation.device",
                f"gpu, where torch.device={config.torch.device} is the processor",
                "cpu, or gpu where the network is on a GPU too",
                "Set training.augmentation.device=cpu",
            )
        )
    return None if device.type == "cpu" else device  # a GPU's number without any GPU has been warned of


def _samples_ahead(cache_size: int, num_workers: int, shape: SampleShape, task: Task) -> tuple[int, bool]:
    """Return how many samples each worker makes ahead, and whether shared memory holds them all."""
    workers = max(num_workers, 1)
    ahead = max(-(-cache_size // workers), 1)
    if not SHARED_MEMORY.is_dir():
        return ahead, True
    sample_bytes = 4 * math.prod(shape.input) + (task.target_bytes + 2) * math.prod(shape.output)
    # Besides those made ahead, each worker holds one in the making and the trainer one in use.
    fit = shutil.disk_usage(SHARED_MEMORY).free // 2 // sample_bytes // workers - 2
    return (min(ahead, fit), True) if fit > 0 else (min(ahead, 2), False)


def _cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _to_sample(made: dict[str, Any]) -> Sample:
    tensors = {name: torch.as_tensor(made[name]) for name in ARRAYS}
    if tensors["labels"].ndim == 3:
        tensors["labels"] = tensors["labels"].to(torch.int64)  # classes: one byte a voxel until here
    return Sample(**(made | tensors))


def _is_about_a_worker(error: BaseException) -> bool:
    return isinstance(error, RuntimeError) and str(error).startswith("DataLoader ")


def _warm_up_task(task: Task) -> None:
    """Compile what targets need, or load it from numba's cache, by making the smallest one."""
    labels_ZYX = np.ones(
        task.label_context * 2 + 1, np.uint64 if task.label_kind == "instances" else np.uint8
    )
    task.target(labels_ZYX, np.zeros(labels_ZYX.shape, bool))


def _as_is(made: Any) -> Any:
    return made


def _start_worker(_: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the trainer's; it ends its workers
    # A worker may be told to end while its queue's thread copies a sample to shared memory. Python would end
    # that thread in the middle of torch's code, which aborts the process: leave before Python goes down.
    atexit.register(os._exit, 0)


@contextlib.contextmanager
def _single_threaded_children() -> Iterator[None]:
    """Processes started meanwhile use one thread each: the samples are what runs in parallel."""
    before = {name: os.environ.get(name) for name in THREAD_SETTINGS}
    os.environ.update(dict.fromkeys(THREAD_SETTINGS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _global_generators_kept() -> Iterator[None]:
    """gunpowder seeds the generators of the whole process, which are not ours where it is the trainer's."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
