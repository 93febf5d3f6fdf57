"""Rotation and scaling of a sample, as matrices on offsets from its centre.

A matrix takes the offset of a voxel of the output to the offset of the place in the volume that is seen
there, both in voxels (z, y, x).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from incasem.config.augmentation import Augmentation, Rotation


def draw_linear(
    settings: Augmentation, voxel_size: Sequence[float], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Draw `rotation` and `scaling`; the unit matrix where neither happens.

    Args:
        settings: `training.augmentation`.
        voxel_size: along the three axes, of any unit. A body stays rigid in it however unequal the sides are.
        rng: the sample's own generator.
    """
    matrix = np.eye(3)
    if settings.rotation.probability and rng.random() < settings.rotation.probability:
        size = np.asarray(voxel_size, np.float64)
        matrix = _rotation(settings.rotation, rng) * size / size[:, None]
    if settings.scaling.probability and rng.random() < settings.scaling.probability:
        matrix = matrix / np.exp(rng.uniform(*np.log(settings.scaling.factor)))
    return matrix


def about_z(radians: float) -> NDArray[np.float64]:
    """Return the matrix of a rotation about z."""
    return about(0, radians)


def about(axis: int, radians: float, voxel_size: Sequence[float] = (1.0, 1.0, 1.0)) -> NDArray[np.float64]:
    """Return the matrix of a rotation about an axis, rigid in the unit of ``voxel_size``."""
    first, second = (other for other in range(3) if other != axis)
    matrix, size = np.eye(3), np.asarray(voxel_size, np.float64)
    matrix[first, first] = matrix[second, second] = np.cos(radians)
    matrix[first, second], matrix[second, first] = np.sin(radians), -np.sin(radians)
    turned: NDArray[np.float64] = matrix * size / size[:, None]
    return turned


def _rotation(settings: Rotation, rng: np.random.Generator) -> NDArray[np.float64]:
    z, y, x = np.deg2rad(
        [rng.uniform(*angles) for angles in (settings.degrees_z, settings.degrees_y, settings.degrees_x)]
    )
    around_y = np.array([[np.cos(y), 0, -np.sin(y)], [0, 1, 0], [np.sin(y), 0, np.cos(y)]])
    around_x = np.array([[np.cos(x), np.sin(x), 0], [-np.sin(x), np.cos(x), 0], [0, 0, 1]])
    product: NDArray[np.float64] = about_z(z) @ around_y @ around_x
    return product
