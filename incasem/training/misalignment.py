"""Misaligned samples: from one section on all lie off, or one section alone does (PyTorch Connectomics)."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from incasem.config.augmentation import Misalignment
from incasem.geometry import Coordinate


class Misaligned(NamedTuple):
    """Sections ``begin`` … ``end`` - 1 of a sample lie off.

    Attributes:
        begin: first of them.
        end: first section after them.
        shift: float32 (3,), voxels of the sample, 0 along the axis across the sections.
        angle: radians, about the middle of the section.
    """

    begin: int
    end: int
    shift: NDArray[np.float32]
    angle: float


def draw_misalignment(
    shape: Coordinate, settings: Misalignment, rng: np.random.Generator
) -> Misaligned | None:
    """Draw whether and how a box of ``shape`` voxels is misaligned; None: it is not.

    Where all sections after one move, those are moved that do not hold the middle one (they or the ones
    before them, the other way round), so that the sample stays around its location.
    """
    count, axis = shape[settings.axis], settings.axis
    happens, turns, slips = rng.random(3) < (settings.probability, settings.rotations, settings.slips)
    steps = rng.integers(-settings.max_voxels, settings.max_voxels, 3, endpoint=True)
    part = rng.uniform(-1, 1)
    if not happens or count < 2:
        return None
    section = int(rng.integers(1, count))
    begin, end = (section, count) if section > count // 2 else (0, section)
    if slips:
        begin, end = section, section + 1
    steps[axis] = 0
    if not turns:
        return Misaligned(begin, end, steps.astype(np.float32), 0.0)
    diagonal = float(np.hypot(*(shape[a] for a in range(3) if a != axis)))
    largest = 2 * np.arcsin(min(1.0, settings.max_voxels / diagonal))  # the corners move by so many voxels
    return Misaligned(begin, end, np.zeros(3, np.float32), part * largest)
