"""What is not labelled but dark as well: lysosomes and clusters of vesicles."""

import numpy as np

from incasem.phantom.cells import MEMBRANE
from incasem.phantom.fields import SmoothField
from incasem.phantom.shapes import Point, Room, Tube, band, blend, tube_distance, walk
from incasem.phantom.tissue import FAR_NM, Tissue

_LYSOSOMES = 0.055  # part of the volume; about half of what mitochondria fill
_MOST_MISSES = 25
_CLUSTERS_PER_UM3 = 14.0


def paint_lysosomes(tissue: Tissue, rng: np.random.Generator) -> None:
    """Paint dense bodies: darker than the matrix of mitochondria, one membrane, no cristae.

    They are as large as mitochondria and as dark as membranes, so that no grey value separates either.
    """
    largest = min(125.0, float(np.median(tissue.extent_nm)) * 0.2)
    painted, misses = 0, 0
    while painted < _LYSOSOMES * tissue.free_ZYX.size and misses < _MOST_MISSES:
        room = Room(*tissue.room())
        place, distance = room.draw(rng, 10)
        radius = min(largest * rng.uniform(0.6, 1.0), distance - 12)
        if radius < 30:
            misses += 1
            continue
        way = walk(
            rng, room, place, length_nm=radius * rng.uniform(0, 2), step_nm=35, wiggle=0.3, need_nm=radius
        )
        tube = Tube(tissue.shown_at(way), radius * rng.uniform(0.85, 1.1, len(way)))
        voxels = _paint_lysosome(tissue, tube, rng)
        painted += voxels
        misses += voxels == 0


def _paint_lysosome(tissue: Tissue, tube: Tube, rng: np.random.Generator) -> int:
    window = tissue.window(*tube.bounds(FAR_NM))
    if window is None:
        return 0
    distance = tube_distance(tissue, window, tissue.coordinates_nm(window), tube, FAR_NM)
    free = tissue.free_ZYX[window]
    np.maximum(distance, tissue.gap_nm - free, out=distance)
    axes = tissue.axes_nm(window)
    blotches = SmoothField(rng, [a[0] for a in axes], [a[-1] for a in axes], 32.0)(*axes)
    density = tissue.density_ZYX[window]
    dark = float(rng.uniform(0.68, 0.8))
    blend(density, dark + 0.22 * blotches, np.clip(-distance / 4, 0, 1))
    blend(density, MEMBRANE - 0.03, band(distance, -5, max(7.5, tissue.finest_nm)))
    np.minimum(free, distance, out=free)
    return int(np.count_nonzero(distance < 0))


def paint_vesicles(tissue: Tissue, rng: np.random.Generator) -> None:
    """Paint clusters of small vesicles (20 nm radius), clear or dense, into what room is left."""
    room = Room(*tissue.room())
    for _ in range(max(1, round(_CLUSTERS_PER_UM3 * float(np.prod(tissue.extent_nm / 1000))))):
        centre, distance = room.draw(rng, 3)
        if distance <= 0:
            continue
        dense = rng.random() < 0.25
        for offset in rng.standard_normal((int(rng.integers(4, 22)), 3)) * 55:
            _paint_vesicle(tissue, centre + offset, float(rng.uniform(16, 25)), dense)


def _paint_vesicle(tissue: Tissue, place: Point, radius_nm: float, dense: bool) -> None:
    tube = Tube(tissue.shown_at(place[None]), np.array([radius_nm]))
    window = tissue.window(*tube.bounds(20.0))
    if window is None:
        return
    distance = tube_distance(tissue, window, tissue.coordinates_nm(window), tube, 20.0)
    free = tissue.free_ZYX[window]
    body = distance < 0
    if not body.any() or float(free[body].min()) < 2:
        return
    density = tissue.density_ZYX[window]
    blend(density, 0.75 if dense else 0.16, np.clip(-distance / 4, 0, 1))
    blend(density, MEMBRANE - 0.06, band(distance, -3, max(7.5, tissue.finest_nm)))
    np.minimum(free, distance, out=free)
