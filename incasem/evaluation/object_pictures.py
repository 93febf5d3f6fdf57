"""Pictures of objects and of affinities.

An object has the same colour in every picture: it comes from its id. Where two objects touch whose colours
are hard to tell apart, one of them takes another, so that a boundary is never lost.
"""

import colorsys
from typing import Any

import numpy as np
from numpy.typing import NDArray

RGB = NDArray[np.uint8]

_WEIGHT = 0.6
_DIMMED = 0.5
_APART = 110.0
"""Least distance of the colours of objects that touch, in RGB."""
_TRIES = 12


def _palette() -> NDArray[np.uint8]:
    """Return 36 colours: each of 12 hues light, full and dark, none of them near to grey."""
    tones = ((0.45, 1.0), (0.9, 1.0), (0.95, 0.6))  # saturation and value
    colours = [colorsys.hsv_to_rgb(hue / 12, *tone) for tone in tones for hue in range(12)]
    return np.rint(np.array(colours) * 255).astype(np.uint8)


PALETTE = _palette()


def id_colours(ids: NDArray[np.uint64], attempt: int = 0) -> NDArray[np.uint8]:
    """Return the colour of each id, (n, 3): always the same one; ``attempt`` 1, 2, … are others."""
    number = mixed(ids)
    # An odd step visits colour after colour; 5, 7, 11 … and 36 have no common divisor.
    step = np.array([5, 7, 11, 13, 17, 19, 23, 25], np.uint64)[(number >> np.uint64(20)) % np.uint64(8)]
    place = (number + step * np.uint64(attempt)) % np.uint64(len(PALETTE))
    return PALETTE[place.astype(np.intp)]


def paint_objects(raw: RGB, ids_YX: NDArray[Any]) -> RGB:
    """Return ``raw`` with each object in a colour of its own; where there is none (id 0) it is dark grey.

    Args:
        raw: (y, x, 3).
        ids_YX: of any integer type.
    """
    ids, position = np.unique(ids_YX.astype(np.uint64), return_inverse=True)
    position_YX = position.reshape(ids_YX.shape)
    colours = _told_apart(ids, position_YX)
    tinted = raw * (1 - _WEIGHT) + colours[position_YX] * _WEIGHT
    out = np.where((ids_YX == 0)[..., None], raw * _DIMMED, tinted)
    return np.rint(out).astype(np.uint8)


def paint_affinities(affinities_CYX: NDArray[Any]) -> RGB:
    """Return the affinities along z, y and x as red, green and blue, as neuroglancer shows them.

    White is inside of an object; what lacks a colour is cut from its neighbour along that axis.

    Args:
        affinities_CYX: (3, y, x), uint8 or 0 to 1; NaN is 0.
    """
    if affinities_CYX.dtype != np.uint8:
        values = np.nan_to_num(affinities_CYX.astype(np.float32))
        affinities_CYX = np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
    return np.ascontiguousarray(np.moveaxis(affinities_CYX, 0, -1))


def _told_apart(ids: NDArray[np.uint64], position_YX: NDArray[np.intp]) -> NDArray[np.float32]:
    """Return the colours of sorted ids, (n, 3): their own, but for those that look like a neighbour's."""
    colours = id_colours(ids).astype(np.float32)
    others = [id_colours(ids, attempt).astype(np.float32) for attempt in range(1, _TRIES)]
    below: dict[int, list[int]] = {}
    for one, other in _touching(position_YX):
        if ids[one]:  # the background has no colour
            below.setdefault(other, []).append(one)
    for number in sorted(below):
        near = colours[below[number]]
        choices = [colours[number], *(other[number] for other in others)]
        distances = [float(np.linalg.norm(near - choice, axis=1).min()) for choice in choices]
        enough = next((i for i, distance in enumerate(distances) if distance >= _APART), None)
        colours[number] = choices[int(np.argmax(distances)) if enough is None else enough]
    return colours


def _touching(position_YX: NDArray[np.intp]) -> list[tuple[int, int]]:
    """Return the pairs (smaller, larger) that lie side by side, or with one pixel between them."""
    pairs = []
    for reach in (1, 2):
        for first, second in (
            (position_YX[:-reach], position_YX[reach:]),
            (position_YX[:, :-reach], position_YX[:, reach:]),
        ):
            different = first != second
            pairs.append(np.stack([first[different], second[different]], axis=1))
    found = np.unique(np.sort(np.concatenate(pairs), axis=1), axis=0)
    return [(int(one), int(other)) for one, other in found]


def mixed(ids: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return numbers that look random for ids as near as 1 and 2 (splitmix64, Steele et al., 2014)."""
    mixed = ids * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
