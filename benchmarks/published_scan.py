"""Prediction as published: gunpowder's Scan over 204³ → 110³ tiles, float32, contiguous, ZarrWrite.

The baseline of `benchmarks.prediction`; it shares only network and reading of the raw data with incasem.
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from incasem.geometry import Roi
from incasem.training._gunpowder import gp
from incasem.volumes import Volume

INPUT, OUTPUT = 204, 110
CONTEXT = (INPUT - OUTPUT) // 2

RAW, SEGMENTATION = gp.ArrayKey("RAW"), gp.ArrayKey("SEGMENTATION")
CLASSES = [gp.ArrayKey("CLASS_0"), gp.ArrayKey("CLASS_1")]


def scan(volume: Volume, network: nn.Module, tiles_x: int, target: Path) -> None:
    """Predict the first ``tiles_x`` tiles along x and write them to ``target`` (a Zarr container)."""
    voxel_size = gp.Coordinate(int(v) for v in volume.voxel_size)
    begin = gp.Coordinate(volume.roi_voxels.begin) * voxel_size
    region = gp.Roi(begin, gp.Coordinate(INPUT, INPUT, INPUT + (tiles_x - 1) * OUTPUT) * voxel_size)
    tile = gp.BatchRequest()
    tile.add(RAW, gp.Coordinate((INPUT,) * 3) * voxel_size)
    for key in (*CLASSES, SEGMENTATION):
        tile.add(key, gp.Coordinate((OUTPUT,) * 3) * voxel_size)
    names = {key: f"prob_maps/class_{c}" for c, key in enumerate(CLASSES)} | {SEGMENTATION: "segmentation"}
    pipeline = (
        _Raw(volume, region, voxel_size)
        + gp.Normalize(RAW)
        + gp.IntensityScaleShift(RAW, 2, -1)
        + _Predict(network, voxel_size)
        + gp.ZarrWrite(names, output_dir=str(target.parent), output_filename=target.name)
        + gp.Scan(tile)
    )
    with gp.build(pipeline):
        pipeline.request_batch(gp.BatchRequest())


class _Raw(gp.BatchProvider):
    def __init__(self, volume: Volume, region: gp.Roi, voxel_size: gp.Coordinate) -> None:
        self._volume = volume
        self._stored = gp.ArraySpec(region, voxel_size, interpolatable=True, dtype=np.uint8)

    def setup(self) -> None:
        self.provides(RAW, self._stored)

    def provide(self, request: gp.BatchRequest) -> gp.Batch:
        roi = request[RAW].roi
        voxels = roi / self._stored.voxel_size
        spec = self._stored.copy()
        spec.roi = roi
        batch = gp.Batch()
        batch[RAW] = gp.Array(self._volume.read_voxels(Roi(voxels.begin, voxels.shape)), spec)
        return batch


class _Predict(gp.BatchFilter):
    """The network in this process: float32, the layout that torch chooses by itself."""

    def __init__(self, network: nn.Module, voxel_size: gp.Coordinate) -> None:
        self._network = network.eval()
        self._context = gp.Coordinate((CONTEXT,) * 3) * voxel_size

    def setup(self) -> None:
        spec = self.spec[RAW].copy()
        spec.roi = spec.roi.grow(-self._context, -self._context)
        for key in CLASSES:
            self.provides(key, _with_type(spec, np.float32))
        self.provides(SEGMENTATION, _with_type(spec, np.uint32))

    def prepare(self, request: gp.BatchRequest) -> gp.BatchRequest:
        dependencies = gp.BatchRequest()
        roi = request[SEGMENTATION].roi.grow(self._context, self._context)
        dependencies[RAW] = gp.ArraySpec(roi)
        return dependencies

    def process(self, batch: gp.Batch, request: gp.BatchRequest) -> gp.Batch:
        with torch.no_grad():
            raw = torch.from_numpy(np.ascontiguousarray(batch[RAW].data, np.float32))[None, None]
            probabilities = self._network(raw).softmax(dim=1)[0].numpy()
        results = [*zip(CLASSES, probabilities, strict=True), (SEGMENTATION, probabilities.argmax(axis=0))]
        outputs = gp.Batch()
        for key, array in results:
            spec = self.spec[key].copy()
            spec.roi = request[SEGMENTATION].roi
            outputs[key] = gp.Array(np.ascontiguousarray(array, spec.dtype), spec)
        return outputs


def _with_type(spec: gp.ArraySpec, dtype: type) -> gp.ArraySpec:
    spec = spec.copy()
    spec.dtype = dtype
    return spec
