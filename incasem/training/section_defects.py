"""Defects of whole sections: shifted, faint, smeared, missing.

Sections are planes of the sample as the network sees it, across an axis that the settings name: in
prediction, too, the network meets the volume's sections along its own z, whatever was transposed in training.
Each section has its defect with a probability of its own.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from incasem.config.augmentation import LowContrastSections, MissingSections, MotionBlur, ShiftedSections
from incasem.geometry import Coordinate


def shifts(shape: Coordinate, settings: ShiftedSections, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return how many voxels (3, sections) each section of a box of ``shape`` lies off, 0 along its axis.

    With ``all_after`` counted from the middle section, so that the sample stays around its location.
    """
    count, axis = shape[settings.axis], settings.axis
    hit = rng.random(count) < settings.probability
    steps = rng.integers(-settings.max_voxels, settings.max_voxels, (3, count), endpoint=True)
    steps[:, ~hit] = 0
    steps[axis] = 0
    if settings.all_after:
        steps = np.cumsum(steps, axis=1)
        steps -= steps[:, count // 2, None]
    return steps.astype(np.float32)


def fade(raw_ZYX: NDArray[np.float32], settings: LowContrastSections, rng: np.random.Generator) -> None:
    """Lower the contrast of some sections about their own mean, in place."""
    sections = np.moveaxis(raw_ZYX, settings.axis, 0)
    hit = rng.random(len(sections)) < settings.probability
    factors = rng.uniform(*settings.factor, len(sections)).astype(np.float32)
    for index in np.flatnonzero(hit):
        section = sections[index]
        mean = section.mean(dtype=np.float64).astype(np.float32)
        section -= mean
        section *= factors[index]
        section += mean
        np.clip(section, 0, 1, out=section)


def smear(raw_ZYX: NDArray[np.float32], settings: MotionBlur, rng: np.random.Generator) -> None:
    """Blur some sections along one of their axes, evenly, in place; beyond the border they are reflected."""
    sections = np.moveaxis(raw_ZYX, settings.axis, 0)
    hit = rng.random(len(sections)) < settings.probability
    reach = rng.integers(*settings.reach, len(sections), endpoint=True)
    along = rng.integers(0, 2, len(sections))
    for index in np.flatnonzero(hit):
        section, size = sections[index], 2 * int(reach[index]) + 1
        smeared = ndimage.uniform_filter1d(section, size, int(along[index]), mode="mirror")
        np.clip(smeared, 0, 1, out=section)  # rounding


def lose(raw_ZYX: NDArray[np.float32], settings: MissingSections, rng: np.random.Generator) -> None:
    """Replace some sections by `settings.fill`, in place.

    Where all are lost, nothing is left to repeat or to take the mean of: they become black.
    """
    sections = np.moveaxis(raw_ZYX, settings.axis, 0)
    lost = rng.random(len(sections)) < settings.probability
    if not lost.any():
        return
    left = np.flatnonzero(~lost)
    if settings.fill == "black" or not left.size:
        sections[lost] = 0
    elif settings.fill == "mean":
        sections[lost] = np.mean([sections[int(i)].mean(dtype=np.float64) for i in left])
    else:
        for index in np.flatnonzero(lost):
            before = int(np.searchsorted(left, index)) - 1
            sections[index] = sections[left[max(before, 0)]]
