"""What a worker process does: load the network once, then predict and write block after block."""

import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from incasem.blockwise import Block, BlockFunction
from incasem.geometry import Coordinate, Roi
from incasem.networks import ValidNetwork, build_network, keep_freed_memory, load_checkpoint, load_into
from incasem.prediction.outputs import SEGMENTATION
from incasem.prediction.predictor import Predictor
from incasem.prediction.tiling import AlignedTiling, PublishedTiling, Tiling
from incasem.tasks.semantic import decode
from incasem.volumes import Volume

OutputType = Literal["uint8", "float32"]


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
        device: where to run ("cpu", "cuda:0").
        precision: setting of `choose_precision`.
        tile_shape: most voxels of one call of the network; ignored by the published tiling.
        published: the published tiling, or None for the aligned one.
        raw: grey values.
        mask: nonzero where predictions are wanted, or None: everywhere.
        outputs: arrays by name.
        output_dtype: of the probabilities.
    """

    model: Mapping[str, Any]
    checkpoint: Path
    device: str
    precision: str
    tile_shape: Coordinate
    published: PublishedSizes | None
    raw: Volume
    mask: Volume | None
    outputs: Mapping[str, Volume]
    output_dtype: OutputType

    def __call__(self) -> BlockFunction:
        """Load the network and return the function of one block."""
        if self.device == "cpu":
            keep_freed_memory()
        network = load_network(self.model, self.checkpoint)
        tiling: Tiling = (
            AlignedTiling(network, self.tile_shape)
            if self.published is None
            else self.published.tiling(network)
        )
        predictor = Predictor(network, self.device, self.precision, tiling=tiling)
        writers = ThreadPoolExecutor(len(self.outputs), thread_name_prefix="write")

        def predict_block(block: Block) -> None:
            arrays = self._predict(predictor, block.write_roi)
            writing = [
                writers.submit(self.outputs[name].write_voxels, block.write_roi, array)
                for name, array in arrays.items()
            ]
            for future in writing:
                future.result()

        return predict_block

    def _predict(self, predictor: Predictor, roi: Roi) -> dict[str, NDArray[Any]]:
        inside = None if self.mask is None else read_mask(self.mask, roi)
        arrays = {name: np.zeros(roi.shape, volume.dtype) for name, volume in self.outputs.items()}
        if inside is not None and not inside.any() and self.published is None:
            return arrays
        for piece, logits_CZYX in predictor.pieces(self.raw, roi):
            place = (piece - roi.begin).to_slices()
            for name, decoded_ZYX in decode(logits_CZYX, self.output_dtype).items():
                arrays[name][place] = decoded_ZYX
        if inside is not None:
            for name, array in arrays.items():
                # Published, probabilities are not masked. Here blocks outside the mask are not even
                # predicted, and a result must not depend on where the blocks lie.
                if name == SEGMENTATION or self.published is None:
                    array[~inside] = 0
        return arrays


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
