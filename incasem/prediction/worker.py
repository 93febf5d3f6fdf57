"""What a worker process does: load the network once, then predict and write block after block."""

import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from incasem.blockwise import Block, StagedFunction, WorkerUnusableError, worker_slot
from incasem.geometry import Coordinate, Roi
from incasem.networks import (
    Backend,
    ValidNetwork,
    build_network,
    load_checkpoint,
    load_into,
)
from incasem.prediction.memory import is_lost_device
from incasem.prediction.predictor import Predictor, RawRegion
from incasem.prediction.symmetries import Views
from incasem.prediction.tiling import PublishedTiling, Tiling, tiling_for
from incasem.prediction.uploads import new_stream
from incasem.tasks.task import Probability, Task
from incasem.volumes import Volume

BLOCKS_IN_FLIGHT = {"cpu": 2, "cuda": 3}
"""By kind of device. A GPU has a block to compute while another is decoded and written, and a third read."""


def load_network(model: Mapping[str, Any], checkpoint: Path | str) -> ValidNetwork:
    """Return the network of the settings ``model`` with the weights of ``checkpoint``.

    Raises:
        ConfigError: the settings give no network.
        CheckpointError: the checkpoint is missing, damaged, or of another network.
    """
    network = build_network(model)
    load_into(network, load_checkpoint(checkpoint))
    return network


@dataclass(frozen=True)
class PublishedSizes:
    """The published tiling of a whole ROI (absolute voxels): `prediction.input_size_voxels` and output."""

    roi_voxels: Roi
    input_shape: Coordinate
    output_shape: Coordinate

    def tiling(self, network: ValidNetwork) -> PublishedTiling:
        """Return the tiling; raises what `PublishedTiling` raises."""
        return PublishedTiling(network, self.roi_voxels, self.input_shape, self.output_shape)


@dataclass(frozen=True)
class PredictionWorker:
    """Picklable description of a worker; called in its process, it gives the function of one block.

    Attributes:
        model: settings of the network.
        checkpoint: its weights.
        devices: where to run ("cpu", "cuda:0"); each worker takes that of its slot.
        precision: setting of `choose_precision`.
        tile_shape: most voxels of one call of the network; ignored by the published tiling.
        published: the published tiling, or None for the aligned one.
        raw: grey values.
        mask: nonzero where predictions are wanted, or None: everywhere.
        outputs: arrays by name, the main one last.
        task: what the network's output means.
        output_dtype: of the probabilities.
        tta: views to average.
        backend: what runs the network, see `InferenceNetwork`.
    """

    model: Mapping[str, Any]
    checkpoint: Path
    devices: Sequence[str]
    precision: str
    tile_shape: Coordinate
    published: PublishedSizes | None
    raw: Volume
    mask: Volume | None
    outputs: Mapping[str, Volume]
    task: Task
    output_dtype: Probability
    tta: Views = "none"
    backend: Backend = "torch"

    def __call__(self) -> "BlockPredictor":
        """Load the network and return the function of one block."""
        device = torch.device(self.devices[worker_slot() % len(self.devices)])
        if device.type != "cpu":
            torch.cuda.set_device(device)
        network = load_network(self.model, self.checkpoint)
        tiling: Tiling = (
            tiling_for(network, self.tile_shape) if self.published is None else self.published.tiling(network)
        )
        predictor = Predictor(
            network, device, self.precision, tiling=tiling, tta=self.tta, backend=self.backend, task=self.task
        )
        return BlockPredictor(self, predictor, device)


@dataclass(frozen=True)
class _Given:
    """What was read for a block; ``inside`` is where the mask wants it, None: everywhere."""

    raw: RawRegion | None
    inside: NDArray[np.bool_] | None


@dataclass(frozen=True)
class _Computed:
    """Regions and their logits; on a GPU these are there once ``ready`` has happened."""

    inside: NDArray[np.bool_] | None
    logits: list[tuple[Roi, Tensor]]
    ready: torch.cuda.Event | None


class BlockPredictor(StagedFunction[_Given, _Computed]):
    """Reads, predicts and writes one block.

    Decoding belongs to the writing stage, which goes on while the next block is computed: on a GPU in a
    stream of its own, on the processor in one thread (shared among cores, work as light as this costs three
    times as much).
    """

    def __init__(self, worker: PredictionWorker, predictor: Predictor, device: torch.device) -> None:
        self.blocks_in_flight = BLOCKS_IN_FLIGHT[device.type]
        self._worker, self._predictor, self._device = worker, predictor, device
        self._streams = threading.local()
        self._writers = ThreadPoolExecutor(len(worker.outputs) * self.blocks_in_flight, "write")

    def read(self, block: Block) -> _Given:
        """Read the mask and, unless it is empty here, the raw data with their context."""
        worker, roi = self._worker, block.write_roi
        inside = None if worker.mask is None else read_mask(worker.mask, roi)
        if inside is not None and not inside.any() and worker.published is None:
            return _Given(None, inside)
        return _Given(self._predictor.read(worker.raw, roi), inside)

    def compute(self, block: Block, given: _Given) -> _Computed:
        """Run the network over the tiles of the block; a GPU only gets its orders here.

        Raises:
            WorkerUnusableError: the device is lost.
        """
        if given.raw is None:
            return _Computed(given.inside, [], None)
        with self._device_losses():
            logits = list(self._predictor.pieces(given.raw, block.write_roi))
            gpu = self._device.type == "cuda"
            ready = torch.cuda.current_stream(self._device).record_event() if gpu else None
        return _Computed(given.inside, logits, ready)

    def write(self, block: Block, computed: _Computed) -> None:
        """Decode, mask, and store all arrays at once.

        Raises:
            WorkerUnusableError: the device is lost.
        """
        outputs, roi = self._worker.outputs, block.write_roi
        with self._device_losses():
            decoded = list(self._decoded(computed))
        if [region for region, _ in decoded] == [roi]:
            arrays = dict(decoded[0][1])
        else:
            arrays = {
                name: np.zeros((*volume.shape[:-3], *roi.shape), volume.dtype)
                for name, volume in outputs.items()
            }
            for region, parts in decoded:
                for name, part in parts.items():
                    arrays[name][(..., *(region - roi.begin).to_slices())] = part
        if computed.inside is not None:
            main = list(outputs)[-1]
            for name, array in arrays.items():
                # Published, probabilities are not masked. Here blocks outside the mask are not even
                # predicted, and a result must not depend on where the blocks lie.
                if name == main or self._worker.published is None:
                    array[..., ~computed.inside] = 0
        writing = [self._writers.submit(outputs[name].write_voxels, roi, a) for name, a in arrays.items()]
        for future in writing:
            future.result()

    def _decoded(self, computed: _Computed) -> Iterator[tuple[Roi, Mapping[str, NDArray[Any]]]]:
        if computed.ready is None:
            if threading.current_thread() is not threading.main_thread():
                torch.set_num_threads(1)  # of this thread
            for roi, logits_CZYX in computed.logits:
                yield roi, self._worker.task.decode(logits_CZYX, self._worker.output_dtype)
            return
        if not hasattr(self._streams, "own"):
            self._streams.own = new_stream(self._device)
        with torch.cuda.stream(self._streams.own):
            self._streams.own.wait_event(computed.ready)
            for roi, logits_CZYX in computed.logits:
                logits_CZYX.record_stream(self._streams.own)
                yield roi, self._worker.task.decode(logits_CZYX, self._worker.output_dtype)

    @contextmanager
    def _device_losses(self) -> Iterator[None]:
        """Turn the error of a lost device into one that ends the worker."""
        try:
            yield
        except RuntimeError as error:
            if not is_lost_device(error):
                raise
            raise WorkerUnusableError(f"the device {self._device} was lost: {error}") from error


def read_mask(mask: Volume, roi_voxels: Roi) -> NDArray[np.bool_]:
    """Return where ``mask`` is nonzero (z, y, x); False beyond its end."""
    inside: NDArray[np.bool_] = mask.read_voxels(roi_voxels, beyond="constant", fill=0) != 0
    return inside


def mask_is_empty(mask: Volume, roi_voxels: Roi, slab_voxels: int = 2**24) -> bool:
    """Return whether ``mask`` is 0 in all of ``roi_voxels``, reading about ``slab_voxels`` at a time."""
    depth = max(1, slab_voxels // math.prod(roi_voxels.shape[1:]))
    for begin in range(roi_voxels.begin[0], roi_voxels.end[0], depth):
        size = min(depth, roi_voxels.end[0] - begin)
        slab = Roi((begin, *roi_voxels.begin[1:]), (size, *roi_voxels.shape[1:]))
        if read_mask(mask, slab).any():
            return False
    return True
