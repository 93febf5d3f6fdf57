"""From a decoded image to what is stored: no grey value changes unless the user names how.

========================== =============================================================================
``None``                   values as they are; a dtype that cannot hold all of them is an error
``ScaleToUint8``           the whole range of the input's dtype (floats: 0 to 1) to 0…255, rounded
``ScaleToUint8:LOW,HIGH``  LOW to 0 and HIGH to 255, linear between, clipped beyond
``ScaleToUint8:1%,99%``    the same with percentiles of the stack, estimated on 16 of its sections
``RgbToGrayInversion``     RGB to luminance (ITU-R 601), then 255 - grey: dark labels on white become bright
``RelabelTo:VALUE``        every nonzero voxel becomes VALUE (1 if not given); RGB: any channel nonzero
``RelabelToUid``           the same with a number made from the input's absolute path, for one object
                           a directory
========================== =============================================================================

Names as published, except ``ScaleToUint8`` and the arguments, which are ours.
"""

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from incasem.errors import ConfigError, DataError, did_you_mean, explain

CONVERSIONS = ("None", "ScaleToUint8", "RgbToGrayInversion", "RelabelTo", "RelabelToUid")
# Luminance weights in 1/65536.
_LUMINANCE = (19595, 38470, 7471)


@dataclass(frozen=True)
class Conversion:
    """What is done to each image of a stack; a plain value, part of a job's identity.

    Attributes:
        kind: see the module's table; ``keep`` is None.
        dtype: name of the output's dtype.
        low, high: input values that become 0 and 255 (``scale``).
        value: label that nonzero voxels get (``relabel``).
        invert: whether the result is taken from the dtype's largest value at the end.
    """

    kind: Literal["keep", "scale", "grey_inversion", "relabel"]
    dtype: str
    low: float = 0.0
    high: float = 1.0
    value: int = 1
    invert: bool = False

    def __call__(self, image: NDArray[Any]) -> NDArray[Any]:
        """Return ``image`` (…YX, with a channel axis at the end if RGB) as …YX of ``self.dtype``."""
        converted = self._converted(image).astype(self.dtype, copy=False)
        if self.invert:
            converted = np.iinfo(self.dtype).max - converted
        return converted

    def _converted(self, image: NDArray[Any]) -> NDArray[Any]:
        if self.kind == "scale":
            greys = np.clip(image.astype(np.float64), self.low, self.high) - self.low
            return np.rint(np.nan_to_num(greys) * (255 / (self.high - self.low)))
        if self.kind == "grey_inversion":
            if image.ndim == 3 and image.shape[-1] == 3:
                weighted = image.astype(np.uint32) @ np.asarray(_LUMINANCE, np.uint32)
                image = (weighted + (1 << 15)) >> 16
            return 255 - image
        if self.kind == "relabel":
            labelled = (image != 0).any(axis=-1) if image.ndim == 3 else image != 0
            return np.where(labelled, self.value, 0)
        return image


@dataclass(frozen=True)
class Asked:
    """A conversion as the user wrote it: its name and what follows the colon."""

    name: str
    argument: str | None

    @property
    def needs_percentiles(self) -> bool:
        """Whether the stack must be looked at before the conversion is known."""
        return self.name == "ScaleToUint8" and self.argument is not None and "%" in self.argument


def parse_conversion(text: str | None) -> Asked:
    """Read ``NAME`` or ``NAME:ARGUMENT``.

    Raises:
        ConfigError: unknown name, or an argument where none is taken.
    """
    name, _, argument = (text or "None").partition(":")
    if name not in CONVERSIONS:
        raise ConfigError(
            explain(
                "conversion",
                text or "None",
                ", ".join(CONVERSIONS),
                f"Choose one of them.{did_you_mean(name, CONVERSIONS)}",
            )
        )
    if argument and name not in ("ScaleToUint8", "RelabelTo"):
        raise ConfigError(explain("conversion", text, name, f"{name} takes no argument after the colon"))
    return Asked(name, argument or None)


def plan_conversion(
    asked: Asked,
    *,
    source: str,
    source_dtype: np.dtype,
    rgb: bool,
    dtype: np.dtype,
    invert: bool,
    sample: Iterable[NDArray[Any]] = (),
) -> Conversion:
    """Return the conversion of a stack, refusing every one that would change values unasked.

    Args:
        asked: what the user wrote.
        source: the input, for messages and for ``RelabelToUid``.
        source_dtype: dtype of its samples.
        rgb: whether its images have colour channels.
        dtype: of the output.
        invert: subtract from the largest value at the end.
        sample: images for percentiles; only used if ``asked.needs_percentiles``.

    Raises:
        DataError: the output's dtype cannot hold the input, or RGB without a conversion for it.
        ConfigError: an argument that cannot be used.
    """
    if dtype.kind not in "uif":
        raise ConfigError(explain("dtype", dtype, "uint8, uint16, uint32, …", "Choose an integer type"))
    if invert and dtype.kind != "u":
        raise ConfigError(explain("invert", invert, "false for signed and float types", f"dtype is {dtype}"))
    if rgb and asked.name in ("None", "ScaleToUint8"):
        raise DataError(
            f"{source} holds RGB images and conversion is {asked.name}; allowed: RgbToGrayInversion, "
            "RelabelTo, RelabelToUid, or grey images. Choose one, or save the stack as grey values."
        )
    if asked.name == "ScaleToUint8":
        if dtype != np.uint8:
            raise ConfigError(explain("dtype", dtype, "uint8 with --conversion ScaleToUint8", "Change one"))
        low, high = _scale_range(asked, source_dtype, sample)
        return Conversion("scale", "uint8", low=low, high=high, invert=invert)
    if asked.name == "RgbToGrayInversion":
        if source_dtype != np.uint8:
            raise DataError(
                explain(
                    f"the dtype of {source}", source_dtype, "uint8 for RgbToGrayInversion", "Convert it first"
                )
            )
        return Conversion("grey_inversion", dtype.name, invert=invert)
    if asked.name in ("RelabelTo", "RelabelToUid"):
        return Conversion("relabel", dtype.name, value=_label(asked, source, dtype), invert=invert)
    if not np.can_cast(source_dtype, dtype, "safe"):
        hint = "--conversion ScaleToUint8, or " if dtype == np.uint8 else ""
        raise DataError(
            f"{source} is {source_dtype}, the output {dtype} cannot hold all its values; allowed: a dtype "
            f"that can (values are never wrapped). Use {hint}--dtype {source_dtype}."
        )
    return Conversion("keep", dtype.name, invert=invert)


def _scale_range(asked: Asked, dtype: np.dtype, sample: Iterable[NDArray[Any]]) -> tuple[float, float]:
    if asked.argument is None:
        if dtype.kind in "ui":
            return float(np.iinfo(dtype).min), float(np.iinfo(dtype).max)
        return 0.0, 1.0
    allowed = "two increasing numbers LOW,HIGH or two percentages such as 0.1%,99.9%"
    setting = f"conversion {asked.name}:{asked.argument}"
    parts = asked.argument.split(",")
    try:
        low, high = (float(part.strip().removesuffix("%")) for part in parts)
    except ValueError as error:
        raise ConfigError(explain(setting, "not readable", allowed, "Correct the range")) from error
    if asked.needs_percentiles:
        if not (all(part.strip().endswith("%") for part in parts) and 0 <= low < high <= 100):
            raise ConfigError(explain(setting, asked.argument, allowed, "Correct the range"))
        greys = np.concatenate([image.ravel() for image in sample])
        low, high = (float(p) for p in np.percentile(greys, [low, high]))
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise ConfigError(explain(setting, f"{low:g} to {high:g}", allowed, "Correct the range"))
    return low, high


def _label(asked: Asked, source: str, dtype: np.dtype) -> int:
    largest = int(np.iinfo(dtype).max) if dtype.kind in "ui" else 0
    if asked.name == "RelabelToUid":
        return zlib.crc32(str(Path(source).absolute()).encode()) % max(1, min(largest, 2**32 - 1)) + 1
    argument = asked.argument or "1"
    if not argument.isdecimal() or not 0 < int(argument) <= largest:
        raise ConfigError(
            explain(
                f"conversion RelabelTo:{argument}",
                argument,
                f"a label from 1 to {largest} ({dtype})",
                "Choose another value or dtype",
            )
        )
    return int(argument)
