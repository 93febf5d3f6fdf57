"""Put a phantom together: tissue, image, labels."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from incasem.errors import ConfigError, explain
from incasem.phantom.cells import paint_cells, paint_pores, plan_cells
from incasem.phantom.imaging import take_image
from incasem.phantom.mitochondria import paint_mitochondria
from incasem.phantom.reticulum import paint_reticulum
from incasem.phantom.tissue import ENVELOPE, RETICULUM, Tissue
from incasem.phantom.vesicles import paint_lysosomes, paint_vesicles

CLASSES = ("mito", "er", "ne", "np")

_TOUCHING = np.ones((3, 3, 3), dtype=bool)


@dataclass(frozen=True)
class Phantom:
    """A generated electron-microscopy volume and its exact labels.

    Attributes:
        raw_ZYX: image, uint8, membranes dark.
        labels: instance ids (uint32, 0 = not this class) by class: of a cell mitochondria (``mito``),
            endoplasmic reticulum (``er``), nuclear envelope (``ne``) and nuclear pores (``np``), of
            neuropil neurites (``neuron_ids``). Each instance is one 26-connected piece, ids are 1…N
            without gaps, and no voxel is in two classes.
        voxel_size: nm, z, y, x.
        seed: what it was made from.
    """

    raw_ZYX: NDArray[np.uint8]
    labels: dict[str, NDArray[np.uint32]]
    voxel_size: tuple[float, float, float]
    seed: int

    def semantic(self, name: str) -> NDArray[np.uint8]:
        """Return the class ``name`` as 0 and 1 (uint8)."""
        return (self.labels[name] > 0).astype(np.uint8)

    def digest(self) -> str:
        """Return a SHA-256 of image and labels."""
        total = hashlib.sha256(self.raw_ZYX.tobytes())
        for ids in self.labels.values():
            total.update(ids.tobytes())
        return total.hexdigest()


def make_phantom(
    shape_voxels: Sequence[int],
    seed: int,
    voxel_size: Sequence[float] = (5.0, 5.0, 5.0),
    *,
    mito_fraction: float = 0.11,
) -> Phantom:
    """Generate part of a cell as a FIB-SEM microscope would show it.

    Equal arguments give equal bytes, whatever the number of threads. From 64 voxels (of 5 nm) on each
    axis there is always at least one mitochondrion and some ER. Takes about half a microsecond and
    32 bytes a voxel.

    Args:
        shape_voxels: z, y, x; any size of at least one voxel.
        seed: not negative.
        voxel_size: nm, z, y, x. Organelles keep their size in nm.
        mito_fraction: part of the volume that mitochondria are to fill, roughly.

    Raises:
        ConfigError: a size, the seed or the fraction is not possible.
    """
    shape = check_size(shape_voxels, seed, voxel_size)
    if not 0 <= mito_fraction <= 0.4:
        raise ConfigError(
            explain(
                "mito_fraction of the phantom", mito_fraction, "0 to 0.4", "Give a smaller part of the volume"
            )
        )
    # One stream an organelle: changing one of them leaves the others as they were.
    streams = [np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(8)]
    tissue = Tissue(shape, voxel_size, streams[0])
    cells, nucleus = plan_cells(tissue, streams[1])
    paint_cells(tissue, cells, nucleus, streams[2])
    paint_pores(tissue, nucleus)
    paint_mitochondria(tissue, streams[3], mito_fraction)
    paint_lysosomes(tissue, streams[4])
    paint_reticulum(tissue, streams[5])
    paint_vesicles(tissue, streams[6])

    del tissue.free_ZYX
    raw_ZYX = take_image(tissue.density_ZYX, voxel_size, streams[7])
    del tissue.density_ZYX
    labels = {
        "mito": _pieces(tissue.mito_ZYX),
        "er": _components(tissue.kind_ZYX == RETICULUM),
        "ne": _components(tissue.kind_ZYX == ENVELOPE),
        "np": _pieces(tissue.pore_ZYX),
    }
    depth, height, width = (float(v) for v in voxel_size)
    return Phantom(raw_ZYX, labels, (depth, height, width), seed)


def check_size(shape_voxels: Sequence[int], seed: int, voxel_size: Sequence[float]) -> tuple[int, int, int]:
    """Return the shape of a phantom, if all three are possible, else raise ConfigError."""
    if len(shape_voxels) != 3 or any(int(n) != n or n < 1 for n in shape_voxels):
        raise ConfigError(
            explain(
                "shape of the phantom", tuple(shape_voxels), "three sizes of at least 1 voxel", "Give z, y, x"
            )
        )
    if len(voxel_size) != 3 or not all(0 < v < np.inf for v in voxel_size):
        raise ConfigError(
            explain(
                "voxel size of the phantom", tuple(voxel_size), "three lengths above 0 nm", "Give z, y, x"
            )
        )
    if seed < 0:
        raise ConfigError(
            explain("seed of the phantom", seed, "an integer of at least 0", "Give another one")
        )
    depth, height, width = (int(n) for n in shape_voxels)
    return depth, height, width


def _components(mask_ZYX: NDArray[np.bool_]) -> NDArray[np.uint32]:
    """Return the 26-connected components, numbered in the order in which they are met."""
    labels = np.zeros(mask_ZYX.shape, dtype=np.uint32)
    ndimage.label(mask_ZYX, structure=_TOUCHING, output=labels)
    return labels


def _pieces(instances_ZYX: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Number the pieces of each instance apart: one may leave the volume and come back."""
    out = np.zeros_like(instances_ZYX)
    count = 0
    for number, window in enumerate(ndimage.find_objects(instances_ZYX.astype(np.int32)), start=1):
        if window is None:
            continue
        own = instances_ZYX[window] == number
        pieces, found = ndimage.label(own, structure=_TOUCHING)
        out[window][own] = pieces[own] + count
        count += found
    return out
