"""Random grey values: gamma, contrast, blur, noise.

Every function changes float32 raw data in [0, 1] in place, stays within that range, and draws from the given
generator: first whether anything happens, then how strongly.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from incasem.config.augmentation import Blur, Contrast, Gamma, Noise, ShotNoise
from incasem.training.resampling import scale_and_clip

BLUR_SIGMAS = 3.0  # reach of the blur; what lies farther weighs 0.3 %


def log_uniform(bounds: tuple[float, float], rng: np.random.Generator) -> float:
    """Draw a factor such that doubling is as likely as halving."""
    low, high = np.log(bounds)
    return float(np.exp(rng.uniform(low, high)))


def bend(raw_ZYX: NDArray[np.float32], settings: Gamma, rng: np.random.Generator) -> None:
    """Take the grey values to the power of a random exponent."""
    if rng.random() >= settings.probability:
        return
    np.power(raw_ZYX, np.float32(log_uniform(settings.exponent, rng)), out=raw_ZYX)


def stretch(raw_ZYX: NDArray[np.float32], settings: Contrast, rng: np.random.Generator) -> None:
    """Multiply the contrast about the mean, and add to the brightness."""
    if rng.random() >= settings.probability:
        return
    factor = log_uniform(settings.factor, rng)
    mean = float(raw_ZYX.mean(dtype=np.float64))
    scale_and_clip(raw_ZYX, factor, mean * (1 - factor) + rng.uniform(*settings.brightness), 0.0, 1.0)


def blur(raw_ZYX: NDArray[np.float32], settings: Blur, rng: np.random.Generator) -> None:
    """Blur along the settings' axes; beyond its border the sample is reflected."""
    if rng.random() >= settings.probability:
        return
    sigma = rng.uniform(*settings.sigma)
    for axis in settings.axes:
        ndimage.gaussian_filter1d(raw_ZYX, sigma, axis, output=raw_ZYX, mode="mirror", truncate=BLUR_SIGMAS)
    np.clip(raw_ZYX, 0, 1, out=raw_ZYX)  # rounding


def add_noise(
    raw_ZYX: NDArray[np.float32], gaussian: Noise, shot: ShotNoise, rng: np.random.Generator
) -> None:
    """Add Gaussian noise, or shot noise, or both, each with its own probability.

    A voxel of grey value g counts g * ``electrons`` on average, with the variance of a Poisson distribution.
    Its normal approximation is drawn here (good for some ten counts and more, and many times faster), so both
    kinds are one draw: their variances add.
    """
    variance, per_grey = 0.0, 0.0
    if rng.random() < gaussian.probability:
        variance = rng.uniform(*gaussian.sigma) ** 2
    if rng.random() < shot.probability:
        per_grey = 1 / log_uniform(shot.electrons, rng)
    if not variance and not per_grey:
        return
    for plane in raw_ZYX:  # fits in the cache
        noise = rng.standard_normal(plane.shape, np.float32)
        noise *= np.sqrt(plane * np.float32(per_grey) + np.float32(variance))
        plane += noise
        np.clip(plane, 0, 1, out=plane)
