"""Mitochondria: tubes, some branched, with two membranes, a matrix and lamellar cristae."""

from typing import NamedTuple

import numpy as np

from incasem.phantom.cells import MEMBRANE
from incasem.phantom.fields import Array, SmoothField
from incasem.phantom.shapes import (
    Point,
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
from incasem.phantom.tissue import FAR_NM, Tissue

_STEP_NM = 45.0
_INNER_NM = 21.0  # depth of the inner membrane
_LARGEST_NM = 125.0
_LEAST_LEFT = 0.5  # of its voxels; a mitochondrion cut smaller than that by its neighbours is given up


class _Plan(NamedTuple):
    branches: list[Tube]
    axis: Point


def paint_mitochondria(tissue: Tissue, rng: np.random.Generator, fraction: float) -> None:
    """Paint mitochondria until they fill ``fraction`` of the volume; the first goes where most room is."""
    target = fraction * tissue.mito_ZYX.size
    painted, number, misses = 0, 0, 0
    largest = min(_LARGEST_NM, float(np.median(tissue.extent_nm)) * 0.26)
    while painted < target and misses < 12:
        room = Room(*tissue.room())
        plan = _plan(tissue, room, rng, largest, first=number == 0)
        voxels = _paint(tissue, plan, number + 1, rng) if plan else 0
        painted += voxels
        number += voxels > 0
        misses = 0 if voxels else misses + 1


def _plan(
    tissue: Tissue, room: Room, rng: np.random.Generator, largest_nm: float, *, first: bool
) -> _Plan | None:
    start, distance = room.widest() if first else room.draw(rng, 12)
    radius = min(largest_nm * rng.uniform(0.6, 1.0), distance - 14)
    if radius < largest_nm * 0.55 and not first:
        return None
    radius = max(radius, largest_nm * 0.3)
    length = radius * float(rng.choice([0.6, 2.5, 5.0, 9.0]))
    need = 0.75 * radius
    axis = unit(rng.standard_normal(3))
    ways = [
        walk(rng, room, start, length_nm=length / 2, step_nm=_STEP_NM, wiggle=0.22, need_nm=need, direction=d)
        for d in (axis, -axis)
    ]
    if rng.random() < 0.3 and length > 4 * radius:
        side = unit(np.cross(axis, rng.standard_normal(3)))
        ways.append(
            walk(rng, room, start, length_nm=length / 2, step_nm=_STEP_NM, wiggle=0.22, need_nm=need,
                 direction=side)
        )  # fmt: skip
    return _Plan(
        [Tube(tissue.shown_at(way), radius * rng.uniform(0.85, 1.1, len(way))) for way in ways], axis
    )


def _paint(tissue: Tissue, plan: _Plan, number: int, rng: np.random.Generator) -> int:
    """Paint one mitochondrion; return its voxels, 0 if there is no place for it in the volume."""
    bounds = [branch.bounds(FAR_NM) for branch in plan.branches]
    begin = np.min([b for b, _ in bounds], axis=0)
    end = np.max([e for _, e in bounds], axis=0)
    window = tissue.window(begin, end)
    if window is None:
        return 0
    at_nm = tissue.coordinates_nm(window)
    distance = np.full(at_nm[0].shape, FAR_NM, dtype=np.float32)
    for branch in plan.branches:
        np.minimum(distance, tube_distance(tissue, window, at_nm, branch, FAR_NM), out=distance)
    free = tissue.free_ZYX[window]
    whole = np.count_nonzero(distance < 0)
    np.maximum(distance, tissue.gap_nm - free, out=distance)
    drop_crumbs(tissue, distance, FAR_NM)
    body = distance < 0
    count = int(np.count_nonzero(body))
    if count < _LEAST_LEFT * whole and number > 1:
        return 0
    if count:
        axes = tissue.axes_nm(window)
        lamellae = _lamellae(at_nm, plan.axis, rng)
        folds = SmoothField(rng, [a[0] for a in axes], [a[-1] for a in axes], 55.0)(*axes)
        _paint_inside(tissue.density_ZYX[window], distance, lamellae, folds, tissue.finest_nm, rng)
        tissue.mito_ZYX[window][body] = number
        np.minimum(free, distance, out=free)
    return count


def _lamellae(at_nm: tuple[Array, Array, Array], axis: Point, rng: np.random.Generator) -> Array:
    """Return the distance (nm) to the nearest of a stack of planes; most stacks lie across the tube."""
    normal = unit(axis + rng.standard_normal(3) * float(rng.choice([0.3, 1.5], p=[0.65, 0.35])))
    spacing = rng.uniform(44, 62)
    height = height_along(at_nm, normal / spacing)
    height += np.float32(rng.random())
    return np.abs(height - np.round(height)) * np.float32(spacing)


def _paint_inside(
    density: Array, distance: Array, lamellae: Array, folds: Array, finest_nm: float, rng: np.random.Generator
) -> None:
    half = max(8.0, finest_nm)
    grain = density * 0.25  # some of the granules that were here before: matrix is not flat either
    matrix = rng.uniform(0.40, 0.50)
    blend(density, 0.3, np.clip(-distance / 4, 0, 1))
    inner = distance + _INNER_NM
    blend(density, matrix - 0.09 + grain, np.clip(-inner / 5, 0, 1))
    bent = np.abs(lamellae + 16 * folds)
    reach = np.clip((0.34 + folds) * 8, 0, 1) * np.clip(-inner / 4, 0, 1)
    blend(density, matrix + rng.uniform(0.24, 0.32), np.clip(1.5 - bent / max(8.0, finest_nm), 0, 1) * reach)
    blend(density, MEMBRANE - 0.08, band(inner, 0, half))
    blend(density, MEMBRANE, band(distance, -5, half))
