"""Whether grey values are what a network can see something in."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from incasem.geometry import Roi
from incasem.preflight.findings import Findings
from incasem.preflight.sampling import GreyValues, look_at_grey_values
from incasem.volumes import Volume

CHECK = "grey-values"
_LOW_CONTRAST = 32
"""Of 256 grey levels, between the 1 and 99 percentiles."""
_LISTED = 8
_CONVERT = "Convert it with `incasem convert --dtype uint8 --conversion ScaleToUint8`."
_EQUALIZE = "If it should show tissue, try `incasem equalize`."


def check_grey_values(findings: Findings, about: str, volume: Volume, roi_voxels: Roi) -> None:
    """Add what a bounded sample says of range, gaps and odd sections of raw data.

    Args:
        findings: gets them.
        about: the entry or path.
        volume: raw data, uint8, uint16 or floats.
        roi_voxels: inside the volume.
    """
    seen = findings.attempt(CHECK, about, lambda: look_at_grey_values(volume, roi_voxels))
    if seen is None or not seen.sample.boxes:
        return
    before = len(findings.found)
    _check_range(findings, about, volume.dtype, seen)
    _check_sections(findings, about, seen)
    if len(findings.found) == before:
        low, half, high = (f"{value:g}" for value in seen.percentiles)
        findings.ok(
            CHECK, about,
            f"{volume.dtype}, {seen.low:g} to {seen.high:g} (1, 50, 99 %: {low}, {half}, {high})"
            + looked_at(seen.sample.share),
            **_figures(seen),
        )  # fmt: skip


def looked_at(share: float) -> str:
    """Return how much was looked at, where it was not everything."""
    return "" if share >= 1 else f"; looked at {100 * share:.3g} % of the voxels"


def _figures(seen: GreyValues) -> dict[str, object]:
    return {
        "low": seen.low,
        "high": seen.high,
        "percentiles": list(seen.percentiles),
        "not_finite": seen.not_finite,
        "empty_sections": seen.flat,
        "inverted_sections": seen.inverted,
        "share_read": min(seen.sample.share, 1.0),
    }


def _check_range(findings: Findings, about: str, dtype: np.dtype[Any], seen: GreyValues) -> None:
    figures = _figures(seen)
    if seen.not_finite:
        findings.error(
            CHECK, about, f"{seen.not_finite} voxels are NaN or infinite{looked_at(seen.sample.share)}",
            "Replace them, for instance by 0, and write the volume again.", **figures,
        )  # fmt: skip
    if seen.low == seen.high:
        what = f"all voxels that were read are {seen.low:g}{looked_at(seen.sample.share)}: nothing to see"
        (findings.error if seen.sample.whole else findings.warning)(
            CHECK, about, what, "Check the path, the region, and whether the conversion went through.",
            **figures,
        )  # fmt: skip
        return
    if dtype == np.uint16 and seen.high <= 255:
        findings.error(
            CHECK, about,
            f"the type is uint16, which is divided by 65535, but no value is above {seen.high:g}: to the "
            "network it is all black",
            _CONVERT, **figures,
        )  # fmt: skip
    elif dtype.kind == "f" and (seen.low < 0 or seen.high > 1):
        findings.error(
            CHECK, about, f"values from {seen.low:g} to {seen.high:g}; allowed for floats: 0 to 1",
            "Scale the volume, or convert it to uint8.", **figures,
        )  # fmt: skip
    else:
        full = 1.0 if dtype.kind == "f" else float(np.iinfo(dtype).max)
        low, _, high = seen.percentiles
        levels = (high - low) / full * 256
        if levels < _LOW_CONTRAST:
            findings.warning(
                CHECK, about,
                f"low contrast: 98 % of the voxels lie between {low:g} and {high:g}, "
                f"{levels:.0f} of 256 grey levels",
                _CONVERT if dtype == np.uint16 else _EQUALIZE, **figures,
            )  # fmt: skip


def _check_sections(findings: Findings, about: str, seen: GreyValues) -> None:
    for what, sections, todo in (
        ("empty (one grey value)", seen.flat, "Fill them from their neighbours, or cut the region there."),
        (
            "inverted, the negative of their neighbours", seen.inverted,
            "Invert these images in the stack and convert it again.",
        ),
    ):  # fmt: skip
        if sections:
            verb = "section is" if len(sections) == 1 else "sections are"
            findings.warning(
                CHECK, about, f"{len(sections)} {verb} {what}: z = {_listed(sections)}"
                + looked_at(seen.sample.share),
                todo, **_figures(seen),
            )  # fmt: skip


def _listed(sections: Sequence[int]) -> str:
    shown = ", ".join(map(str, sections[:_LISTED]))
    return shown if len(sections) <= _LISTED else f"{shown}, …"
