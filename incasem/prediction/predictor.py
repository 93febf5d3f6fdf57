"""The network on any region of a volume: tiles, context, normalisation, cropping."""

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from incasem.errors import DataError
from incasem.geometry import Roi
from incasem.networks import InferenceNetwork, ValidNetwork, choose_precision
from incasem.prediction.plan import Device, largest_tile
from incasem.prediction.tiling import AlignedTiling, Tile, Tiling
from incasem.tasks.semantic import normalise
from incasem.volumes import Volume

_TOLERANCE = 1e-3
"""How far floats may leave [0, 1]: interpolation overshoots a little."""


class Predictor:
    """Predicts any region of at least one voxel, in the memory of one tile besides the result.

    With the aligned tiling (the default) the values do not depend on the region that was asked for: tiles
    start on multiples of the network's stride on the absolute voxel grid, context is read outside the region
    and reflected at the volume's border.

    Args:
        network: a copy of it is made ready; the original stays as it is.
        device: where to run, see `choose_device`.
        precision: "auto", "fp32", "bf16" or "fp16" (`choose_precision`).
        tiling: where the tiles lie; by default aligned, with the largest tile that the device's memory takes.

    Attributes:
        num_classes: channels of the result.
        network: what runs, with the precision that it found to be right.
    """

    def __init__(
        self,
        network: ValidNetwork,
        device: torch.device | str = "cpu",
        precision: str = "auto",
        *,
        tiling: Tiling | None = None,
    ) -> None:
        device = torch.device(device)
        self.network = InferenceNetwork(network, device, choose_precision(precision, device))
        self.num_classes = network.num_fmaps_out
        self._source = network
        self._given_tiling = tiling

    @cached_property
    def tiling(self) -> Tiling:
        """Where the tiles lie."""
        if self._given_tiling is not None:
            return self._given_tiling
        device = Device.of(self.network.device, self.network.precision)
        return AlignedTiling(self._source, largest_tile(self._source, device))

    def pieces(self, raw: Volume, roi_voxels: Roi) -> Iterator[tuple[Roi, Tensor]]:
        """Yield the logits of ``roi_voxels`` tile by tile.

        Args:
            raw: grey values: uint8, uint16, or floats in [0, 1]; (z, y, x), or with the network's channels
                before these.
            roi_voxels: absolute voxels; may reach beyond ``raw``, which is then reflected.

        Yields:
            The region (absolute voxels), and its logits float32 (C, z, y, x) on the device. Regions do not
            overlap. The aligned tiling covers ``roi_voxels``; the published one leaves out its shell.

        Raises:
            DataError: ``roi_voxels`` is empty, or the raw data cannot be read or are of a wrong type.
        """
        if min(roi_voxels.shape) < 1:
            raise DataError("the region to predict is empty; allowed: at least one voxel. Correct the ROI.")
        for tile in self.tiling.tiles(roi_voxels):
            yield tile.keep_roi, self._run(raw, tile)

    def logits(self, raw: Volume, roi_voxels: Roi) -> NDArray[np.float32]:
        """Return the network's output (C, z, y, x) for exactly ``roi_voxels`` (absolute voxels).

        Voxels without a tile (the shell of the published tiling) are 0 in every class.
        Raises what `pieces` raises.
        """
        whole = np.zeros((self.num_classes, *roi_voxels.shape), np.float32)
        for roi, logits_CZYX in self.pieces(raw, roi_voxels):
            whole[(slice(None), *(roi - roi_voxels.begin).to_slices())] = logits_CZYX.cpu().numpy()
        return whole

    def probabilities(self, raw: Volume, roi_voxels: Roi) -> NDArray[np.float32]:
        """Return the softmax of `logits` over the classes: float32 (C, z, y, x), sums 1.

        Voxels without a tile (the shell of the published tiling) are 0 in every class.
        Raises what `pieces` raises.
        """
        whole = np.zeros((self.num_classes, *roi_voxels.shape), np.float32)
        for roi, logits_CZYX in self.pieces(raw, roi_voxels):
            softmax = logits_CZYX.softmax(dim=0).cpu().numpy()
            whole[(slice(None), *(roi - roi_voxels.begin).to_slices())] = softmax
        return whole

    def _run(self, raw: Volume, tile: Tile) -> Tensor:
        raw_ZYX = raw.read_voxels(tile.input_roi, beyond="reflect")
        _check_range(raw_ZYX)
        logits_NCZYX = self.network(_with_batch(normalise(raw_ZYX)))
        return logits_NCZYX[0][(slice(None), *tile.crop)]


def _with_batch(raw: NDArray[Any]) -> NDArray[Any]:
    """Return (z, y, x) or (c, z, y, x) as (1, c, z, y, x)."""
    return raw.reshape((1,) * (5 - raw.ndim) + raw.shape)


def _check_range(raw: NDArray[Any]) -> None:
    """Refuse floats that are grey values of another range: they would be predicted without a sign of it."""
    if raw.dtype.kind != "f":
        return
    low, high = float(raw.min()), float(raw.max())
    if not (low >= -_TOLERANCE and high <= 1 + _TOLERANCE):  # also NaN
        raise DataError(
            f"floating-point raw data reach from {low:g} to {high:g}; allowed: 0 to 1. "
            "Convert them to uint8 or uint16, or scale them to 0 … 1."
        )
