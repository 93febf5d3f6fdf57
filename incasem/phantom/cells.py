"""Cells with their plasma membranes, and the nucleus with its envelope and pores."""

from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from incasem.phantom.fields import Array, Axes, SmoothField
from incasem.phantom.shapes import Point, band, blend, height_along, square_distance, unit
from incasem.phantom.tissue import ENVELOPE, FAR_NM, NOTHING, Tissue

MEMBRANE = 0.88
_CLEFT_NM = 7.0  # half of the extracellular space between two cells
_ENVELOPE_NM = 44.0
_PORE_NM = 46.0
_PORE_SPACING_NM = 160.0
_PORES_PER_UM2 = 9.0


class Nucleus(NamedTuple):
    """A ball (in warped coordinates) that reaches into the volume from an edge, and its pores."""

    centre_nm: Point
    radius_nm: float
    pores: NDArray[np.float64]  # unit vectors from the centre

    def distance(self, at_nm: Axes) -> Array:
        """Return the signed distance (nm) to the outer membrane."""
        square = square_distance(at_nm, self.centre_nm)
        return np.sqrt(square) - np.float32(self.radius_nm)


class Cells(NamedTuple):
    """Voronoi cells (in warped coordinates); the first is the main one. Tone: stain of the cytosol."""

    seeds_nm: NDArray[np.float64]
    tones: NDArray[np.float32]

    def inside(self, at_nm: Axes) -> tuple[Array, NDArray[np.intp]]:
        """Return the distance (nm) to the nearest boundary between cells, and the cell's index."""
        depth = np.full((len(self.seeds_nm), *at_nm[0].shape), np.inf, dtype=np.float32)
        for i, j in combinations(range(len(self.seeds_nm)), 2):
            normal = unit(self.seeds_nm[i] - self.seeds_nm[j])
            middle = (self.seeds_nm[i] + self.seeds_nm[j]) / 2
            plane = height_along(at_nm, normal)
            plane -= np.float32(np.sum(normal * middle))
            np.minimum(depth[i], plane, out=depth[i])
            np.minimum(depth[j], -plane, out=depth[j])
        index = np.argmax(depth, axis=0)
        return np.max(depth, axis=0), index


def plan_cells(tissue: Tissue, rng: np.random.Generator) -> tuple[Cells, Nucleus]:
    """Choose the arrangement: neighbours at some corners, the nucleus at the opposite side.

    The nucleus lies half-way along the longest axis: both halves of a volume cut for training and
    validation show all that there is.
    """
    middle = tissue.extent_nm / 2
    corner = rng.choice([-1.0, 1.0], 3)
    seeds = [middle]
    for flip in rng.permutation(3)[: rng.integers(1, 3)]:
        other = corner.copy()
        other[flip] *= -0.6
        seeds.append(middle + middle * other * 2 * rng.uniform(0.5, 0.62))
    seeds.append(middle + middle * corner * 2 * rng.uniform(0.45, 0.58))
    tones = np.concatenate([[0.26], rng.uniform(0.2, 0.31, len(seeds) - 1)]).astype(np.float32)

    radius = float(np.median(tissue.extent_nm)) * rng.uniform(0.42, 0.55)
    away = rng.uniform(0.85, 1.05, 3)
    away[int(np.argmax(tissue.extent_nm + rng.random(3)))] = rng.uniform(-0.25, 0.25)
    centre = middle - middle * corner * away
    return Cells(np.array(seeds), tones), Nucleus(centre, radius, _pores(tissue, rng, centre, radius))


def _pores(tissue: Tissue, rng: np.random.Generator, centre: Point, radius: float) -> NDArray[np.float64]:
    directions = rng.standard_normal((4000, 3))
    directions /= np.sqrt((directions**2).sum(axis=1, keepdims=True))
    places = centre + directions * radius
    visible = directions[((places > 0) & (places < tissue.extent_nm)).all(axis=1)]
    area_um2 = 4 * np.pi * (radius / 1000) ** 2 * len(visible) / len(directions)
    chosen: list[Point] = []
    for direction in visible:
        if len(chosen) >= max(1.0, area_um2 * _PORES_PER_UM2):
            break
        if all(((direction - c) ** 2).sum() * radius**2 > _PORE_SPACING_NM**2 for c in chosen):
            chosen.append(direction)
    return np.array(chosen).reshape(-1, 3)


def paint_cells(tissue: Tissue, cells: Cells, nucleus: Nucleus, rng: np.random.Generator) -> None:
    """Paint cytosol, plasma membranes, extracellular clefts, nucleoplasm and nuclear envelope."""
    granules_ZYX = granules(tissue, rng)
    clouds = SmoothField(rng, (0, 0, 0), tissue.extent_nm, 90.0)
    chromatin = SmoothField(rng, (0, 0, 0), tissue.extent_nm, 65.0)
    half = max(8.5, tissue.finest_nm)
    for window in tissue.slabs():
        at_nm = tissue.coordinates_nm(window)
        axes = tissue.axes_nm(window)
        border, cell = cells.inside(at_nm)
        outside = nucleus.distance(at_nm)
        np.maximum(outside, tissue.gap_nm + 40 - border, out=outside)  # the nucleus stays in its cell

        grain, cloud = granules_ZYX[window], clouds(*axes)
        density = cells.tones[cell] + 0.12 * cloud
        density += np.clip(grain - 0.7 + 1.2 * cloud, 0, 2) * 0.22
        _paint_nucleoplasm(density, outside, grain, chromatin(*axes))
        blend(density, 0.14, (border < _CLEFT_NM).astype(np.float32))
        blend(density, MEMBRANE, band(border, _CLEFT_NM + 5, half))

        shell = np.abs(outside + _ENVELOPE_NM / 2) - _ENVELOPE_NM / 2
        _paint_shell(density, shell, half)
        tissue.kind_ZYX[window][shell < 0] = ENVELOPE
        tissue.density_ZYX[window] = density
        free = np.minimum(border - _CLEFT_NM - 12, outside)
        tissue.free_ZYX[window] = np.minimum(free, FAR_NM)


def granules(tissue: Tissue, rng: np.random.Generator) -> Array:
    """Band-limited noise of unit variance; its peaks are the size of ribosomes (about 25 nm)."""
    noise = rng.standard_normal(tissue.shape, dtype=np.float32)
    sigma = np.maximum(7.5 / tissue.voxel_size, 0.35)
    noise = ndimage.gaussian_filter(noise, sigma, mode="wrap", truncate=3.0)
    return noise / max(float(noise[:: max(1, len(noise) // 16)].std()), 1e-3)


def _paint_nucleoplasm(density: Array, outside: Array, grain: Array, chromatin: Array) -> None:
    within = outside < -_ENVELOPE_NM / 2
    rim = np.clip((outside + _ENVELOPE_NM + 70) / 70, 0, 1)
    clumped = np.clip(3.0 * (chromatin + 0.55 * rim - 0.12), 0, 1)
    nucleoplasm = 0.25 + 0.18 * clumped + 0.06 * grain
    density[within] = nucleoplasm[within]


def _paint_shell(density: Array, shell: Array, half_nm: float) -> None:
    """Paint a flattened sac: light lumen inside, membrane just within the surface."""
    blend(density, 0.2, np.clip(-shell / 3, 0, 1))
    blend(density, MEMBRANE, band(shell, -5, half_nm))


def paint_pores(tissue: Tissue, nucleus: Nucleus) -> None:
    """Cut the pores into the envelope: a rim where both membranes meet, and the pore complex in it."""
    half = max(8.5, tissue.finest_nm)
    for number, direction in enumerate(nucleus.pores, start=1):
        place = nucleus.centre_nm + direction * (nucleus.radius_nm - _ENVELOPE_NM / 2)
        reach = _PORE_NM + _ENVELOPE_NM
        window = tissue.window(place - reach, place + reach)
        if window is None:
            continue
        at_nm = tissue.coordinates_nm(window)
        outside = nucleus.distance(at_nm)
        along = height_along(at_nm, direction) - np.float32(np.sum(direction * nucleus.centre_nm))
        square = square_distance(at_nm, nucleus.centre_nm)
        across = np.sqrt(np.maximum(square - along * along, 0))
        flat = np.abs(outside + _ENVELOPE_NM / 2) - _ENVELOPE_NM / 2
        kind = tissue.kind_ZYX[window]
        sac = (kind == ENVELOPE) & (along > 0)
        pore = sac & (across < _PORE_NM)
        shell = np.maximum(flat, _PORE_NM - across)
        density = tissue.density_ZYX[window]
        near = sac & (across < _PORE_NM + 12)
        content = 0.34 + 0.34 * band(across, 0, 16) + 0.18 * band(across, _PORE_NM - 14, 12)
        repainted = np.where(pore, content, density)
        _paint_shell(repainted, shell, half)
        density[near] = repainted[near]
        kind[pore] = NOTHING
        tissue.pore_ZYX[window][pore] = number
