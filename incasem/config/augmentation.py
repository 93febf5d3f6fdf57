"""The settings of the augmentation: the published kinds, which are on, and optional ones, which are off.

An optional kind is off while its ``probability`` is 0. Axes are those of the sample as the network sees it,
after flips and transposes: 0 (z), 1 (y), 2 (x). Grey values are on the scale 0…1.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ValidationInfo, field_validator

from incasem.config.fields import (
    Flag,
    Fraction,
    NotNegative,
    NotNegativeTriple,
    Positive,
    PositiveTriple,
    Section,
    integer,
    not_allowed,
    number,
    value_range,
)

Angles = Annotated[tuple[float, float], BeforeValidator(value_range(number(), "numbers"))]
Fractions = Annotated[
    tuple[float, float], BeforeValidator(value_range(number(minimum=0, maximum=1), "numbers of 0 to 1"))
]
Offsets = Annotated[
    tuple[float, float], BeforeValidator(value_range(number(minimum=-1, maximum=1), "numbers of -1 to 1"))
]
PositiveNumbers = Annotated[
    tuple[float, float], BeforeValidator(value_range(number(above=0), "numbers above 0"))
]
# What a sample reads grows with the third power of 1 / factor.
Factors = Annotated[
    tuple[float, float], BeforeValidator(value_range(number(minimum=0.25, maximum=4), "numbers of 0.25 to 4"))
]
Counts = Annotated[tuple[int, int], BeforeValidator(value_range(integer(1), "whole numbers of at least 1"))]
Axis = Annotated[int, BeforeValidator(integer(0, 2))]


def _axes(*, least: int) -> Callable[[Any], tuple[int, ...]]:
    allowed = "a list of different axes out of 0 (z), 1 (y), 2 (x)" + ", at least one" * bool(least)

    def validate(value: Any) -> tuple[int, ...]:
        if not isinstance(value, list | tuple) or any(type(axis) is not int for axis in value):
            raise not_allowed(allowed)
        if len(set(value)) != len(value) or not set(value) <= {0, 1, 2} or len(value) < least:
            raise not_allowed(allowed)
        return tuple(value)

    return validate


class Elastic(Section):
    """Elastic deformation with rotation about z and shifted sections, as published; lengths in voxels."""

    control_point_spacing: PositiveTriple = (32, 32, 32)
    """Of the grid whose points are displaced."""
    jitter_sigma: NotNegativeTriple = (2.0, 2.0, 2.0)
    subsample: Positive = 4
    rotation_degrees: Angles = (0.0, 90.0)
    """About z, drawn uniformly."""
    shift_probability: Fraction = 0.05
    """Of each section, that it and all after it lie off in y and x …"""
    max_shift_voxels: NotNegative = 2
    """… by at most this much."""


class Intensity(Section):
    """Brightness and contrast, drawn for each sample on the raw scale 0…1."""

    scale: Fraction = 0.15
    shift: Fraction = 0.15


class Simple(Section):
    """Flips of every axis and permutations of the listed ones."""

    transpose_only: Annotated[tuple[int, ...], BeforeValidator(_axes(least=0))] = (0, 1, 2)


class Rotation(Section):
    """Rotation about the sample's centre, in nm; about x, then y, then z. Angles are drawn uniformly."""

    probability: Fraction = 0.0
    """Of each sample."""
    degrees_z: Angles = (-180.0, 180.0)
    """About z."""
    degrees_y: Angles = (0.0, 0.0)
    """About y; for data with cubic voxels, -180 to 180 as well."""
    degrees_x: Angles = (0.0, 0.0)
    """About x; likewise."""


class Scaling(Section):
    """Magnification about the sample's centre, the same along all axes; above 1 things become larger."""

    probability: Fraction = 0.0
    """Of each sample."""
    factor: Factors = (0.8, 1.25)
    """Drawn uniformly on the logarithmic scale."""


class ShiftedSections(Section):
    """Misalignment: raw data and labels of a section lie off by whole voxels within its plane."""

    probability: Fraction = 0.0
    """Of each section."""
    axis: Axis = 0
    """Across the sections."""
    max_voxels: Positive = 5
    """Largest displacement along each axis of the section."""
    all_after: Flag = False
    """Whether all later sections move along."""


class Misalignment(Section):
    """From one section on, raw data and labels of all of them lie off, shifted or turned; or one alone does.

    As in PyTorch Connectomics, which takes 16 voxels and a probability of 0.5.
    """

    probability: Fraction = 0.0
    """Of each sample."""
    axis: Axis = 0
    """Across the sections."""
    max_voxels: Positive = 16
    """Largest displacement along each axis of the section; of the corners, where it is turned."""
    rotations: Fraction = 0.5
    """Share of misalignments that turn sections about their middle; the others shift them."""
    slips: Fraction = 0.5
    """Share of misalignments of one section alone; the others move all sections after it as well."""


class Gamma(Section):
    """Grey values to the power of an exponent."""

    probability: Fraction = 0.0
    """Of each sample."""
    exponent: PositiveNumbers = (0.7, 1.5)
    """Drawn uniformly on the logarithmic scale."""


class Contrast(Section):
    """Contrast about the sample's mean, and brightness: stronger than `intensity`, but not in each sample."""

    probability: Fraction = 0.0
    """Of each sample."""
    factor: PositiveNumbers = (0.5, 1.5)
    """Drawn uniformly on the logarithmic scale."""
    brightness: Offsets = (-0.1, 0.1)
    """Added."""


class LowContrastSections(Section):
    """Faint sections: contrast about the section's own mean."""

    probability: Fraction = 0.0
    """Of each section."""
    axis: Axis = 0
    """Across the sections."""
    factor: Fractions = (0.1, 0.5)


class Blur(Section):
    """Gaussian blur, as out of focus."""

    probability: Fraction = 0.0
    """Of each sample."""
    sigma: PositiveNumbers = (0.5, 1.5)
    """Voxels."""
    axes: Annotated[tuple[int, ...], BeforeValidator(_axes(least=1))] = (1, 2)
    """Blurred along these: by default within the sections."""


class MotionBlur(Section):
    """Sections smeared along one of their two axes, as where the specimen moved while it was scanned."""

    probability: Fraction = 0.0
    """Of each section."""
    axis: Axis = 0
    """Across the sections."""
    reach: Counts = (1, 5)
    """Voxels on either side that flow into one; PyTorch Connectomics takes 5 (a window of 11)."""


class Noise(Section):
    """Gaussian noise, the same at every grey value."""

    probability: Fraction = 0.0
    """Of each sample."""
    sigma: PositiveNumbers = (0.01, 0.08)
    """On the raw scale 0…1."""


class ShotNoise(Section):
    """Noise of counting electrons, stronger where it is bright."""

    probability: Fraction = 0.0
    """Of each sample."""
    electrons: PositiveNumbers = (100.0, 1000.0)
    """Counted in a white voxel, drawn uniformly on the logarithmic scale; the fewer, the noisier."""


class MissingSections(Section):
    """Lost sections. Labels stay: the network learns to go on across the gap."""

    probability: Fraction = 0.0
    """Of each section."""
    axis: Axis = 0
    """Across the sections."""
    fill: Literal["black", "mean", "repeat"] = "black"
    """0, the mean grey of the sections that are left, or the nearest of them before (at the start: after)."""


class Cutout(Section):
    """Boxes filled with the sample's mean grey. Labels stay: the network learns to go on behind them."""

    probability: Fraction = 0.0
    """Of each sample."""
    boxes: Counts = (1, 3)
    """How many."""
    smallest: PositiveTriple = (8, 8, 8)
    """Voxels; each side of each box is drawn by itself …"""
    largest: PositiveTriple = (32, 32, 32)
    """… up to this, or to the sample's side."""

    @field_validator("largest")
    @classmethod
    def _not_below_the_smallest(
        cls, largest: tuple[int, int, int], info: ValidationInfo
    ) -> tuple[int, int, int]:
        smallest = info.data.get("smallest", largest)
        if any(most < least for most, least in zip(largest, smallest, strict=True)):
            raise not_allowed(f"three whole numbers z, y, x of at least `smallest`, {list(smallest)}")
        return largest


class Augmentation(Section):
    """The published kinds are switched off with `none`, the others by their probability."""

    device: Literal["cpu", "gpu"] = "cpu"
    """Where geometry is resampled; gpu: that of `torch.device`, used by every process that makes samples."""
    elastic: Elastic | None = Elastic()
    intensity: Intensity | None = Intensity()
    simple: Simple | None = Simple()
    rotation: Rotation = Rotation()
    scaling: Scaling = Scaling()
    shifted_sections: ShiftedSections = ShiftedSections()
    misalignment: Misalignment = Misalignment()
    gamma: Gamma = Gamma()
    contrast: Contrast = Contrast()
    low_contrast_sections: LowContrastSections = LowContrastSections()
    blur: Blur = Blur()
    motion_blur: MotionBlur = MotionBlur()
    noise: Noise = Noise()
    shot_noise: ShotNoise = ShotNoise()
    missing_sections: MissingSections = MissingSections()
    cutout: Cutout = Cutout()
