"""Endoplasmic reticulum: stacked, holey sheets and a network of tubules with one common lumen."""

import numpy as np

from incasem.phantom.cells import MEMBRANE
from incasem.phantom.fields import Array, SmoothField
from incasem.phantom.shapes import (
    Room,
    Tube,
    band,
    blend,
    drop_crumbs,
    height_along,
    tube_distance,
    unit,
    walk,
)
from incasem.phantom.tissue import RETICULUM, Tissue

_STEP_NM = 50.0
_SHEET_NM = 50.0  # thickness
_STACK_NM = 150.0  # distance of neighbouring sheets
_TUBULES_PER_UM3 = 16.0
_REACH_NM = 30.0


def paint_reticulum(tissue: Tissue, rng: np.random.Generator) -> None:
    """Paint the ER into the room that is left; at least one tubule starts where most room is."""
    distance_ZYX = _tubules(tissue, rng)
    normal = unit(rng.standard_normal(3))
    bend = SmoothField(rng, (0, 0, 0), tissue.extent_nm, 380.0, 170.0)
    where = SmoothField(rng, (0, 0, 0), tissue.extent_nm, 190.0)
    half = max(8.0, tissue.finest_nm)
    for window in tissue.slabs():
        at_nm, axes = tissue.coordinates_nm(window), tissue.axes_nm(window)
        height = height_along(at_nm, normal) + bend(*axes)
        height = np.abs(np.mod(height, np.float32(_STACK_NM)) - np.float32(_STACK_NM / 2))
        # Beyond its rim a sheet ends round, as a half tubule.
        rim = np.maximum((0.2 - where(*axes)) * 260, 0)
        sheet = np.sqrt(height * height + rim * rim) - np.float32(_SHEET_NM / 2)
        distance = np.minimum(distance_ZYX[window], sheet)
        free = tissue.free_ZYX[window]
        np.maximum(distance, tissue.gap_nm - tissue.free_ZYX[window], out=distance_ZYX[window])
    drop_crumbs(tissue, distance_ZYX, _REACH_NM)
    for window in tissue.slabs():
        distance, free = distance_ZYX[window], tissue.free_ZYX[window]
        _paint(tissue.density_ZYX[window], distance, half)
        tissue.kind_ZYX[window][distance < 0] = RETICULUM
        np.minimum(free, distance, out=free)


def _paint(density: Array, distance: Array, half_nm: float) -> None:
    # Ribosomes sit on the outer face: what granules are there are made darker.
    density += band(distance, 14, 14) * np.clip(density - 0.24, 0, 0.25) * 0.9
    blend(density, 0.17, np.clip(-distance / 3, 0, 1))
    blend(density, MEMBRANE - 0.04, band(distance, -4, half_nm))


def _tubules(tissue: Tissue, rng: np.random.Generator) -> Array:
    """Return the signed distance (nm) to a network of tubules, at most ``_REACH_NM``."""
    distance_ZYX = np.full(tissue.shape, _REACH_NM, dtype=np.float32)
    room = Room(*tissue.room())
    count = max(1, round(_TUBULES_PER_UM3 * float(np.prod(tissue.extent_nm / 1000))))
    nodes: list[np.ndarray] = []
    for number in range(count):
        if number == 0:
            start = room.widest()[0]
        elif number % 3 and nodes:
            start = nodes[int(rng.integers(len(nodes)))]
        else:
            start = room.draw(rng, 4)[0]
        way = walk(
            rng, room, start, length_nm=rng.uniform(300, 900), step_nm=_STEP_NM, wiggle=0.35, need_nm=30
        )
        nodes.extend(way)
        tube = Tube(tissue.shown_at(way), rng.uniform(20, 30, len(way)))
        window = tissue.window(*tube.bounds(_REACH_NM))
        if window is None:
            continue
        near = tube_distance(tissue, window, tissue.coordinates_nm(window), tube, _REACH_NM)
        np.minimum(distance_ZYX[window], near, out=distance_ZYX[window])
    return distance_ZYX
