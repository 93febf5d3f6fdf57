"""A generated cell, or a block of neurites, as a Zarr container: data to try commands and settings on."""

import os
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from incasem.durable import sync
from incasem.errors import DataError, explain
from incasem.phantom import NEURON_IDS, make_neurites, make_phantom, section_membranes
from incasem.volumes import create_volume

RAW = "volumes/raw"
LABELS = "volumes/labels"
MEMBRANE = "membrane"


@dataclass(frozen=True)
class GenerateOptions:
    """Options of `generate_volumes`.

    Attributes:
        container: Zarr v2 container to make; must not exist.
        shape: voxels, z, y, x.
        resolution: voxel size, nm, z, y, x.
        seed: which cell; not negative.
        mito_fraction: part of the volume that mitochondria of a cell are to fill, roughly.
        kind: ``cell`` with labelled organelles, or ``neurites``: a dense block of them with their ids, and
            the membranes between them as they are drawn section by section.
    """

    container: Path
    shape: Sequence[int]
    resolution: Sequence[float]
    seed: int = 1
    mito_fraction: float = 0.11
    kind: Literal["cell", "neurites"] = "cell"


def generate_volumes(options: GenerateOptions) -> list[str]:
    """Write a phantom: the image, and instance ids of each organelle, or of all neurites and membranes.

    The container appears when it is complete.

    Returns:
        The names of the datasets.

    Raises:
        DataError: the container exists, or its name is not that of one.
        ConfigError: shape, voxel size, seed or fraction are not possible.
    """
    target = options.container
    if target.suffix != ".zarr":
        raise DataError(explain("the container", target, "a path that ends in .zarr", "Name it so"))
    if target.exists():
        raise DataError(explain("the container", target, "a new one", "Choose another name, or delete it"))
    shape, seed, resolution = options.shape, options.seed, options.resolution
    made = (
        make_neurites(shape, seed, resolution)
        if options.kind == "neurites"
        else make_phantom(shape, seed, resolution, mito_fraction=options.mito_fraction)
    )
    arrays = {RAW: made.raw_ZYX} | {f"{LABELS}/{name}": ids for name, ids in made.labels.items()}
    if NEURON_IDS in made.labels:
        arrays[f"{LABELS}/{MEMBRANE}"] = section_membranes(made.labels[NEURON_IDS], made.voxel_size)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.stem}.{secrets.token_hex(4)}.zarr")
    try:
        for name, array_ZYX in arrays.items():
            volume = create_volume(
                temporary / name, shape=array_ZYX.shape, dtype=array_ZYX.dtype, voxel_size=made.voxel_size
            )
            volume.write_voxels(volume.roi_voxels, np.ascontiguousarray(array_ZYX))
        os.rename(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    sync(target.parent)
    return list(arrays)
