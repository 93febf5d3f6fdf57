"""What the microscope makes of the tissue: blur, curtains, changing brightness, noise, eight bits."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from incasem.phantom.fields import Array, SmoothField, smooth_walk

_BRIGHT = 226.0
_CONTRAST = 222.0
_BLUR_NM = 4.0


def take_image(
    density_ZYX: Array, voxel_size: Sequence[float], rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Return the FIB-SEM image (uint8, z, y, x; membranes dark) of a stain density; overwrites the density.

    Milling leaves stripes along y (curtains), each slice has its own brightness and contrast, and the
    noise grows with the signal (Poisson, in its normal approximation) on top of the detector's own.
    """
    depth, height, width = density_ZYX.shape
    sigma = [_BLUR_NM / v for v in voxel_size]
    ndimage.gaussian_filter(density_ZYX, sigma, output=density_ZYX, mode="nearest", truncate=3.0)
    curtains_ZX = _curtains(rng, depth, width)
    gain = 1 + 0.10 * smooth_walk(rng, depth, 25.0) + 0.012 * rng.standard_normal(depth, dtype=np.float32)
    offset = 14 * smooth_walk(rng, depth, 30.0) + 1.5 * rng.standard_normal(depth, dtype=np.float32)
    shading = SmoothField(rng, (0, 0, 0), (depth, height, width), 160.0, 14.0)
    rows, columns = np.arange(height, dtype=np.float32), np.arange(width, dtype=np.float32)

    raw_ZYX = np.empty(density_ZYX.shape, dtype=np.uint8)
    for z, density in enumerate(density_ZYX):
        image = _BRIGHT - _CONTRAST * density
        image += curtains_ZX[z] + shading(np.array([z], dtype=np.float32), rows, columns)[0]
        image = (image - 128) * gain[z] + 128 + offset[z]
        grain = rng.standard_normal(image.shape, dtype=np.float32)
        image += grain * np.sqrt(20 + 0.9 * np.clip(image, 0, 255))
        np.clip(np.rint(image), 0, 255, out=image)
        raw_ZYX[z] = image
    return raw_ZYX


def _curtains(rng: np.random.Generator, depth: int, width: int) -> Array:
    """Stripes along y: sharp in x, lasting for several slices; a few are strong."""
    noise = rng.standard_normal((depth, width), dtype=np.float32)
    fine = ndimage.gaussian_filter(noise, (4.0, 0.8), mode="wrap")
    coarse = ndimage.gaussian_filter(noise, (12.0, 6.0), mode="wrap")
    fine /= max(float(fine.std()), 1e-3)
    coarse /= max(float(coarse.std()), 1e-3)
    return 2.0 * fine + 2.5 * coarse - 8.0 * np.clip(fine - 2.0, 0, 1.5)
