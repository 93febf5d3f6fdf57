"""The place of an array as attributes say it: published, funlib.persistence, HDF5 and N5 conventions.

Inside incasem a place is always nm, z, y, x, the offset being the corner of the first voxel on the
absolute voxel grid (a multiple of the voxel size).
"""

import logging
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from incasem.errors import DataError
from incasem.volumes.store import Place

logger = logging.getLogger(__name__)

Triple = tuple[float, float, float]

_NM_PER_UNIT = {
    **dict.fromkeys(["nm", "nanometer", "nanometers", "nanometre"], 1.0),
    **dict.fromkeys(["um", "µm", "μm", "micrometer", "micrometers", "micrometre", "micron", "microns"], 1e3),
    **dict.fromkeys(["mm", "millimeter", "millimetre"], 1e6),
    **dict.fromkeys(["m", "meter", "metre"], 1e9),
    **dict.fromkeys(["a", "å", "angstrom"], 0.1),
    **dict.fromkeys(["pm", "picometer", "picometre"], 1e-3),
}
OFF_GRID_NM = 0.5
_CONTAINER = re.compile(r"(.*\.(?:h5|hdf5|hdf|zarr|n5))/", re.IGNORECASE)
# Offsets of binned volumes that name the first voxel's centre on the unbinned grid: (1 − 1/factor) / 2
# voxels.
_CENTRE_FRACTIONS = tuple((1 - 1 / factor) / 2 for factor in (2, 3, 4, 8))


def nm_per_unit(unit: object, path: str) -> float:
    """Return how many nm one ``unit`` has; an empty unit, ``pixel`` and None count as nm.

    Raises:
        DataError: the unit is not a known unit of length.
    """
    name = str(unit).strip().lower() if unit is not None else ""
    if name in ("", "pixel", "pixels", "voxel", "none"):
        return 1.0
    if name not in _NM_PER_UNIT:
        raise DataError(
            f"unit of {path} is {unit!r}; allowed: nm, um, mm, m, angstrom. Correct its attributes."
        )
    return _NM_PER_UNIT[name]


def tidy(value: float) -> float:
    """Return ``value`` without the dust of decimal arithmetic (0.1 nm × 3), as a float."""
    return float(round(value, 6))


def whole(values: Sequence[float]) -> list[int | float]:
    """Return the values with ints where they are whole, as the published attributes have them."""
    return [int(v) if float(v).is_integer() else float(v) for v in values]


def axes_for(ndim: int, path: str) -> tuple[str, ...]:
    """Return the axes of an array whose metadata does not name them.

    Raises:
        DataError: neither 3 nor 4 dimensions.
    """
    if ndim not in (3, 4):
        raise DataError(
            f"{path} has {ndim} dimensions; allowed: 3 (z, y, x) or 4 (c, z, y, x). Convert it to one of "
            "these."
        )
    return ("z", "y", "x") if ndim == 3 else ("c", "z", "y", "x")


def triple(values: object, name: str, path: str) -> Triple:
    """Return three numbers (the last three of a longer list) from a metadata value.

    Raises:
        DataError: anything else.
    """
    try:
        numbers = [float(v) for v in values][-3:]  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) != 3 or not all(math.isfinite(v) for v in numbers):
        raise DataError(
            f"{name} of {path} is {values!r}; allowed: three numbers (z, y, x). Correct its attributes."
        )
    return (tidy(numbers[0]), tidy(numbers[1]), tidy(numbers[2]))


def scaled(values: Triple, factors: Sequence[float]) -> Triple:
    """Return the element-wise product."""
    z, y, x = (tidy(v * f) for v, f in zip(values, factors, strict=True))
    return (z, y, x)


def check_voxel_size(voxel_size: Triple, path: str) -> None:
    """Raise DataError unless all three sizes are positive and finite."""
    if not all(v > 0 and math.isfinite(v) for v in voxel_size):
        raise DataError(
            f"voxel size of {path} is {list(voxel_size)}; allowed: positive numbers (nm; z, y, x). "
            "Correct its `resolution` attribute."
        )


def place_from_attributes(attributes: Mapping[str, Any], ndim: int, path: str) -> Place | None:
    """Return the place that ``offset`` with ``resolution`` or ``voxel_size`` says, or None without these.

    ``resolution`` is the published name, ``voxel_size`` that of funlib.persistence ≥ 0.4, ``element_size_um``
    that of some HDF5 files. Units come from ``units`` or ``unit`` (nm if absent).

    Raises:
        DataError: malformed values, or ``resolution`` and ``voxel_size`` that disagree.
    """
    units = attributes.get("units", attributes.get("unit"))
    if units is None or isinstance(units, str):
        factors = [nm_per_unit(units, path)] * 3
    else:
        factors = [nm_per_unit(u, path) for u in list(units)[-3:]]
        factors = factors if len(factors) == 3 else [1.0] * 3
    sizes = {
        name: scaled(triple(attributes[name], name, path), factors)
        for name in ("resolution", "voxel_size")
        if name in attributes
    }
    if "element_size_um" in attributes and not sizes:
        sizes["element_size_um"] = scaled(
            triple(attributes["element_size_um"], "element_size_um", path), [1e3] * 3
        )
    if len(set(sizes.values())) > 1:
        raise DataError(
            f"attributes of {path} disagree: resolution is {list(sizes['resolution'])} nm, voxel_size is "
            f"{list(sizes['voxel_size'])} nm. Edit one so that they are equal."
        )
    if not sizes and "offset" not in attributes:
        return None
    offset = scaled(triple(attributes.get("offset", (0, 0, 0)), "offset", path), factors)
    voxel_size = next(iter(sizes.values()), (1.0, 1.0, 1.0))
    return Place(axes_for(ndim, path), voxel_size, offset, stated=bool(sizes))


def place_attributes(place: Place) -> dict[str, Any]:
    """Return what to store: published ``offset`` and ``resolution`` (nm), and funlib's ``voxel_size``."""
    resolution = whole(place.voxel_size)
    return {"offset": whole(place.offset_nm), "resolution": resolution, "voxel_size": resolution}


def on_grid(place: Place, path: str) -> Place:
    """Return ``place`` with its offset exactly on the voxel grid.

    Offsets within 0.5 nm of a multiple of the voxel size are rounded to it. Volumes that were binned by a
    whole factor often state the first voxel's centre on the finer grid, a quarter voxel off for a factor of
    2: the corner is meant, and a warning says so.

    Raises:
        DataError: the voxel size is not positive, or the offset is off the grid.
    """
    check_voxel_size(place.voxel_size, path)
    steps = [o / v for o, v in zip(place.offset_nm, place.voxel_size, strict=True)]
    corners = [_corner(step, v) for step, v in zip(steps, place.voxel_size, strict=True)]
    if any(corner is None for corner in corners):
        lower = [math.floor(s) * v for s, v in zip(steps, place.voxel_size, strict=True)]
        raise DataError(
            f"offset of {path} is {list(place.offset_nm)} nm; allowed: multiples of the voxel size "
            f"{list(place.voxel_size)} nm. Edit the `offset` attribute (for example to {whole(lower)}) or "
            "the `resolution`."
        )
    z, y, x = (tidy(c * v) for c, v in zip(corners, place.voxel_size, strict=True) if c is not None)
    if any(
        abs(stated - snapped) > OFF_GRID_NM
        for stated, snapped in zip(place.offset_nm, (z, y, x), strict=True)
    ):
        logger.warning(
            "%s: offset %s nm is taken as its first voxel's centre before binning; the corner is %s nm",
            _file_of(path), list(place.offset_nm), [z, y, x],
        )  # fmt: skip
    return Place(place.axes, place.voxel_size, (z, y, x), place.stated)


def _file_of(path: str) -> str:
    """Return the container of a dataset: what is said of raw data and labels alike is said once."""
    match = _CONTAINER.match(path)
    return match[1] if match else path


def _corner(step: float, voxel_size_nm: float) -> int | None:
    """Return the voxel that an offset of ``step`` voxels begins at, or None off the grid."""
    if abs(round(step) - step) * voxel_size_nm <= OFF_GRID_NM:
        return round(step)
    fraction = step - math.floor(step)
    centred = any(abs(fraction - f) < 1e-3 for f in _CENTRE_FRACTIONS)
    return math.floor(step) if centred else None
