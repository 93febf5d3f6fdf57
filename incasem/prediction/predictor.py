"""The network on any region of a volume: tiles, context, normalisation, symmetries, cropping."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from incasem.errors import ConfigError, DataError, explain
from incasem.geometry import Roi
from incasem.networks import Backend, InferenceNetwork, ValidNetwork, choose_precision
from incasem.prediction.memory import free_cached_memory, is_out_of_memory
from incasem.prediction.plan import Device, largest_tile
from incasem.prediction.symmetries import Views, counts, margin, views
from incasem.prediction.tiling import AlignedTiling, FixedTiling, Tile, Tiling, tiling_for
from incasem.prediction.uploads import Uploaded, Uploads
from incasem.tasks.semantic import Semantic
from incasem.tasks.task import Task
from incasem.volumes import Volume

logger = logging.getLogger(__name__)

_TOLERANCE = 1e-3
"""How far floats may leave [0, 1]: interpolation overshoots a little."""


@dataclass(frozen=True)
class RawRegion:
    """What was read for one region, once for all its tiles.

    Attributes:
        volume: where it was read.
        roi_voxels: what was read (absolute voxels): the tiles' inputs and what lies between.
        values: the grey values, on their way to the device; None where the region has no tile.
    """

    volume: Volume
    roi_voxels: Roi
    values: Uploaded | None


class Predictor:
    """Predicts any region of at least one voxel, in the memory of one tile besides the result.

    With the aligned tiling (the default) the values do not depend on the region that was asked for: tiles
    start on multiples of the network's stride on the absolute voxel grid, context is read outside the region
    and reflected at the volume's border.

    Where the memory does not suffice for a tile, tiles are made smaller for good, with a warning; not those
    of a `FixedTiling`, whose size is part of the result.

    Args:
        network: a copy of it is made ready; the original stays as it is.
        device: where to run, see `choose_device`.
        precision: "auto", "fp32", "bf16" or "fp16" (`choose_precision`).
        tiling: where the tiles lie; by default aligned, with the largest tile that the device's memory takes,
            and for a network that depends on the tile those that emit the published 110³ voxels.
        tta: views to average, see `symmetries`.
        backend: of `InferenceNetwork`.
        task: what the network's output means; None: classes.

    Attributes:
        num_classes: channels of the result.
        network: what runs, with the precision that it found to be right.

    Raises:
        ConfigError: the network or its channels have not the symmetries of ``tta``, or these need a margin
            that the published tiling does not have. When predicting: the memory does not suffice for a tile
            whose size is fixed.
    """

    def __init__(
        self,
        network: ValidNetwork,
        device: torch.device | str = "cpu",
        precision: str = "auto",
        *,
        tiling: Tiling | None = None,
        tta: Views = "none",
        backend: Backend = "torch",
        task: Task | None = None,
    ) -> None:
        device = torch.device(device)
        self._task = task or Semantic(network.num_fmaps_out)
        self._views = views(tta, network, self._task.meanings)
        self.network = InferenceNetwork(network, device, choose_precision(precision, device), backend=backend)
        self._backend: Backend = backend
        self.num_classes = network.num_fmaps_out
        self._source = network
        self._uploads = Uploads(device)
        if tiling is not None:
            self.tiling = tiling.with_margin(margin(self._views))

    @cached_property
    def tiling(self) -> Tiling:
        """Where the tiles lie."""
        if self._source.depends_on_tile:
            return tiling_for(self._source, None).with_margin(margin(self._views))
        device = Device.of(self.network.device, self.network.precision, backend=self._backend)
        needed = margin(self._views)
        tile_shape = largest_tile(self._source, device, len(self._views), needed)
        return AlignedTiling(self._source, tile_shape, needed)

    def read(self, raw: Volume, roi_voxels: Roi) -> RawRegion:
        """Read what the tiles of ``roi_voxels`` need, each voxel once, and start its way to the device.

        Args:
            raw: grey values: uint8, uint16, or floats in [0, 1]; (z, y, x), or with the network's channels
                before these.
            roi_voxels: absolute voxels; may reach beyond ``raw``, which is then reflected.

        Raises:
            DataError: ``roi_voxels`` is empty, or the raw data cannot be read or are of a wrong type.
        """
        if min(roi_voxels.shape) < 1:
            raise DataError("the region to predict is empty; allowed: at least one voxel. Correct the ROI.")
        tiles = self.tiling.tiles(roi_voxels)
        if not tiles:
            return RawRegion(raw, roi_voxels, None)
        return self._read(raw, _union([tile.input_roi for tile in tiles]))

    def pieces(self, raw: Volume | RawRegion, roi_voxels: Roi) -> Iterator[tuple[Roi, Tensor]]:
        """Yield the logits of ``roi_voxels`` tile by tile.

        Args:
            raw: grey values, see `read`, or what `read` returned for the same region.
            roi_voxels: absolute voxels.

        Yields:
            The region (absolute voxels), and its logits float32 (C, z, y, x) on the device. Regions do not
            overlap. The aligned tiling covers ``roi_voxels``; the published one leaves out its shell. With
            several views, the logits are those of the mean probabilities.

        Raises:
            DataError: as `read`.
        """
        region = raw if isinstance(raw, RawRegion) else self.read(raw, roi_voxels)
        missing = [roi_voxels]
        while missing:
            part = missing.pop()
            tiles = self.tiling.tiles(part)
            for tile in tiles:
                logits = self._try(region, tile)
                if logits is not None:
                    yield tile.keep_roi, logits
                    continue
                self.tiling = self._smaller_tiling(tile)
                missing += [later.keep_roi for later in reversed(tiles[tiles.index(tile) :])]
                break

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
        """Return the probabilities of `logits`, float32 (C, z, y, x); of classes the softmax, sums 1.

        Voxels without a tile (the shell of the published tiling) are 0 in every channel.
        Raises what `pieces` raises.
        """
        whole = np.zeros((self.num_classes, *roi_voxels.shape), np.float32)
        for roi, logits_CZYX in self.pieces(raw, roi_voxels):
            probabilities_CZYX = self._task.probabilities(logits_CZYX).cpu().numpy()
            whole[(slice(None), *(roi - roi_voxels.begin).to_slices())] = probabilities_CZYX
        return whole

    def _read(self, raw: Volume, roi: Roi) -> RawRegion:
        values = raw.read_voxels(roi, beyond="reflect")
        _check_range(values)
        return RawRegion(raw, roi, self._uploads.start(values))

    def _try(self, region: RawRegion, tile: Tile) -> Tensor | None:
        """Return the logits of one tile, or None where the memory does not suffice for it."""
        try:
            return self._run(region, tile)
        except (RuntimeError, MemoryError) as error:
            if is_out_of_memory(error) and isinstance(self.tiling, FixedTiling):
                raise _fixed_too_large(self.tiling, tile, self.network.device) from error
            if not is_out_of_memory(error) or not isinstance(self.tiling, AlignedTiling):
                raise
            if self.tiling.is_smallest(tile):
                raise
        # Out here the error is gone, and with it the tensors that its traceback held.
        free_cached_memory(self.network.device)
        return None

    def _smaller_tiling(self, tile: Tile) -> Tiling:
        """Return the tiling with half the tile that was too large, along its longest axis."""
        assert isinstance(self.tiling, AlignedTiling)
        logger.warning(
            "out of memory on %s: tiles of %s voxels are halved, which takes longer. Fewer workers need less "
            "memory, and so does a smaller prediction.block_size_voxels.",
            self.network.device,
            "×".join(str(size) for size in tile.keep_roi.shape),
        )
        return self.tiling.halved(tile)

    def _run(self, region: RawRegion, tile: Tile) -> Tensor:
        if not region.roi_voxels.contains(tile.input_roi):
            # A tile that was made smaller may end a few voxels further, at its own smallest legal size.
            region = self._read(region.volume, tile.input_roi)
        assert region.values is not None
        raw_CZYX = region.values.normalised((tile.input_roi - region.roi_voxels.begin).to_slices())
        raw_NCZYX = raw_CZYX.reshape((1,) * (5 - raw_CZYX.ndim) + tuple(raw_CZYX.shape))
        if len(self._views) == 1:
            return self.network(raw_NCZYX)[0][(slice(None), *tile.crop)]
        with torch.inference_mode():
            shape = (self.num_classes, *tile.keep_roi.shape)
            total_CZYX = torch.zeros(shape, dtype=torch.float32, device=self.network.device)
            for view in self._views:
                seen_CZYX = self._task.probabilities(self.network(view.of(raw_NCZYX))[0])
                view.add_to(total_CZYX, seen_CZYX, tile.crop)
            for total_ZYX, count in zip(total_CZYX, counts(self._views), strict=True):
                total_ZYX /= count
            return self._task.outputs(total_CZYX)


def _fixed_too_large(tiling: FixedTiling, tile: Tile, device: torch.device) -> ConfigError:
    return ConfigError(
        explain(
            "prediction.output_size_voxels",
            f"{tuple(tiling.output_shape)}, for which the memory of {device} does not suffice (it reads "
            f"{tuple(tile.input_roi.shape)})",
            "tiles that fit into the memory; they cannot be made smaller on the way, since with "
            "model.norm=group the result depends on them",
            "Use fewer workers, or set smaller prediction.output_size_voxels and input_size_voxels and "
            "predict everything anew",
        )
    )


def _union(rois: Sequence[Roi]) -> Roi:
    """Return the smallest region that holds all of ``rois``."""
    begin = [min(values) for values in zip(*(roi.begin for roi in rois), strict=True)]
    end = [max(values) for values in zip(*(roi.end for roi in rois), strict=True)]
    return Roi(begin, [e - b for b, e in zip(begin, end, strict=True)])


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
