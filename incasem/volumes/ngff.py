"""OME-NGFF: the `multiscales` of a group, read as places and written so that viewers find each array.

Arrays keep their published paths (``volumes/raw``), so the group above them lists one image an array. Arrays
named ``s0``, ``s1``, … are the levels of one image, named after their group. Version 0.4 goes with Zarr v2,
0.5 with Zarr v3.

A translation of NGFF is the centre of the first voxel, in coordinates that have the centre of the finest
level's first voxel at its corner's position: level k is translated by its corner + (voxel_k − voxel_0) / 2.
Files whose levels share one translation are understood too.
"""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from incasem.errors import DataError
from incasem.volumes.metadata import Triple, axes_for, nm_per_unit, scaled, tidy, triple, whole
from incasem.volumes.store import Place, groups_above

_LEVEL = re.compile(r"s\d+")
_AXES = (("z", "y", "x"), ("c", "z", "y", "x"), ("t", "z", "y", "x"), ("t", "c", "z", "y", "x"))


def place_in_multiscales(multiscales: object, dataset: str, ndim: int, path: str) -> Place | None:
    """Return the place of ``dataset`` (path below the group) as the group's ``multiscales`` tell it, or None.

    The result's axes may begin with ``t``; such an axis must have one element.

    Raises:
        DataError: malformed metadata, or axes in another order than [t,] [c,] z, y, x.
    """
    for image in multiscales if isinstance(multiscales, list) else []:
        levels = image.get("datasets", []) if isinstance(image, dict) else []
        level = next((d for d in levels if isinstance(d, dict) and d.get("path") == dataset), None)
        if level is None:
            continue
        axes, factors = _axes(image, ndim, path)
        voxel_size, offset = _transformed(level, image, path)
        finest_voxel, finest_offset = _transformed(levels[0], image, path)
        offset = _corner(offset, voxel_size, finest_offset, finest_voxel)
        return Place(axes, scaled(voxel_size, factors), scaled(offset, factors))
    return None


def _corner(offset: Triple, voxel_size: Triple, finest_offset: Triple, finest_voxel: Triple) -> Triple:
    """Return a level's corner from its translation, which may be centred or not.

    A level of ours lies on its own voxel grid, which may begin before the finest level does; no factor lets
    both the centred and the plain translation lie on that grid.
    """
    pairs = list(zip(voxel_size, finest_voxel, offset, finest_offset, strict=True))
    if all(math.isclose(o - fo, (v - fv) / 2, abs_tol=1e-6) for v, fv, o, fo in pairs):
        return finest_offset
    z, y, x = (tidy(o - (v - fv) / 2) for v, fv, o, _ in pairs)
    on_grid = all(abs(round(c / v) * v - c) <= 1e-3 * v for c, v in zip((z, y, x), voxel_size, strict=True))
    return (z, y, x) if on_grid else offset


def _axes(image: Mapping[str, Any], ndim: int, path: str) -> tuple[tuple[str, ...], list[float]]:
    stated = image.get("axes")
    if not isinstance(stated, list):
        return axes_for(ndim, path) if ndim < 5 else _AXES[-1], [1.0] * 3
    named = [axis if isinstance(axis, dict) else {"name": axis} for axis in stated]
    axes = tuple(str(axis.get("name")) for axis in named)
    if axes not in _AXES or len(axes) != ndim:
        raise DataError(
            f"axes of {path} are {', '.join(axes)} for {ndim} dimensions; allowed: [t,] [c,] z, y, x. "
            "Write the array anew with its axes in this order."
        )
    return axes, [nm_per_unit(axis.get("unit"), path) for axis in named[-3:]]


def _transformed(level: Mapping[str, Any], image: Mapping[str, Any], path: str) -> tuple[Triple, Triple]:
    scale: Triple = (1.0, 1.0, 1.0)
    translation: Triple = (0.0, 0.0, 0.0)
    for holder in (level, image):
        for transform in holder.get("coordinateTransformations") or []:
            if transform.get("type") == "scale":
                factors = triple(transform.get("scale"), "NGFF scale", path)
                scale, translation = scaled(scale, factors), scaled(translation, factors)
            elif transform.get("type") == "translation":
                added = triple(transform.get("translation"), "NGFF translation", path)
                z, y, x = (tidy(t + a) for t, a in zip(translation, added, strict=True))
                translation = (z, y, x)
    return scale, translation


def label_groups(container: Path, dataset: str) -> list[Path]:
    """Return the directories called ``labels`` on the way to an array and beside it.

    NGFF reserves the name: such a group lists the label images below it, each a group. Published arrays lie
    there directly, so the list has to be there and is empty.
    """
    above = groups_above(container, dataset)
    return [group for group in [*above, above[-1] / "labels"] if group.name == "labels"]


def holds_labels(group: Path, dataset: str) -> bool:
    """Tell by their names whether a group's arrays are labels: ``labels/er``, ``…/segmentation[/NAME]``."""
    return group.name in ("labels", "segmentation") or dataset == "segmentation"


def image_label(source: str | None, version: str) -> dict[str, Any]:
    """Return the `image-label` of a group of labels.

    Args:
        source: path from the group to that of the image, or None where that is not known.
        version: of NGFF.
    """
    return {"version": version} | ({"source": {"image": source}} if source is not None else {})


def pyramid_image(name: str, places: Mapping[str, Place], method: str, version: str | None) -> dict[str, Any]:
    """Return the `multiscales` entry of a pyramid.

    Args:
        name: of the image.
        places: path of each level → its place.
        method: how voxels were merged, for the entry's `type`.
        version: as in `with_array`.
    """
    axes = next(iter(places.values())).axes
    corners = {path: (place.voxel_size, place.offset_nm) for path, place in places.items()}
    return ({"version": version} if version else {}) | {
        "name": name,
        "axes": [_axis(a) for a in axes],
        "datasets": _levels(corners, len(axes)),
        "type": method,
    }


def with_array(
    multiscales: object, group: Path, dataset: str, place: Place, version: str | None
) -> list[dict[str, Any]]:
    """Return ``multiscales`` with the array ``dataset`` of a group put in, or its old entry replaced.

    Entries none of whose arrays is there any more are dropped.

    Args:
        multiscales: the list as stored, or None.
        group: its name is that of the image that ``s0``, ``s1``, … are levels of.
        dataset: the array's name in its group.
        place: of the array; nm.
        version: written into each image (NGFF 0.4), or None where it stands outside (0.5).
    """
    images = (
        [dict(image) for image in multiscales if isinstance(image, dict)]
        if isinstance(multiscales, list)
        else []
    )
    images = [
        image for image in images if any((group / d["path"]).exists() for d in image.get("datasets", []))
    ]
    name = group.name if _LEVEL.fullmatch(dataset) else dataset
    corners = {dataset: (place.voxel_size, place.offset_nm)}
    old = next((image for image in images if image.get("name") == name), None)
    if old is not None and _LEVEL.fullmatch(dataset):
        for level in old.get("datasets", []):
            known = place_in_multiscales([old], level["path"], len(place.axes), name)
            if known is not None:
                corners.setdefault(level["path"], (known.voxel_size, known.offset_nm))
    entry: dict[str, Any] = {"version": version} if version else {}
    entry |= {
        "name": name,
        "axes": [_axis(a) for a in place.axes],
        "datasets": _levels(corners, len(place.axes)),
    }
    if old is None:
        return [*images, entry]
    return [{**image, **entry} if image is old else image for image in images]


def _axis(name: str) -> dict[str, str]:
    if name == "c":
        return {"name": "c", "type": "channel"}
    return {"name": name, "type": "space", "unit": "nanometer"}


def _levels(corners: Mapping[str, tuple[Triple, Triple]], ndim: int) -> list[dict[str, Any]]:
    ordered = sorted(corners.items(), key=lambda item: math.prod(item[1][0]))
    finest = ordered[0][1][0]
    extra = ndim - 3
    return [
        {
            "path": path,
            "coordinateTransformations": [
                {"type": "scale", "scale": [1] * extra + whole(voxel_size)},
                {
                    "type": "translation",
                    "translation": [0] * extra + whole(_centred(corner, voxel_size, finest)),
                },
            ],
        }
        for path, (voxel_size, corner) in ordered
    ]


def _centred(corner: Triple, voxel_size: Triple, finest: Triple) -> Sequence[float]:
    return [tidy(o + (v - f) / 2) for o, v, f in zip(corner, voxel_size, finest, strict=True)]
