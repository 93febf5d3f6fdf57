"""Signed distances of tubes, the paths that they follow, and the membranes on them."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from incasem.phantom.fields import Array, Axes
from incasem.phantom.tissue import Tissue, Window

_CRUMB_NM3 = 30.0**3

Point = NDArray[np.float64]


class Tube(NamedTuple):
    """A polyline (nodes × 3, nm) with a radius (nm) at each node; one node is a ball."""

    nodes_nm: NDArray[np.float64]
    radii_nm: NDArray[np.float64]

    def bounds(self, reach_nm: float) -> tuple[Point, Point]:
        """Return the corners of the box around all points within ``reach_nm`` of the surface."""
        grown = (self.radii_nm + reach_nm)[:, None]
        return (self.nodes_nm - grown).min(axis=0), (self.nodes_nm + grown).max(axis=0)


def unit(vector: Point) -> Point:
    """Return the vector at length one (a fixed one for the zero vector)."""
    length = float(np.sqrt(np.sum(vector * vector)))
    return vector / length if length > 1e-9 else np.array([0.0, 0.0, 1.0])


def band(distance: Array, centre_nm: float, half_width_nm: float) -> Array:
    """Return 1 at ``centre_nm``, falling linearly to 0 at ``half_width_nm`` to either side."""
    return np.clip(1 - np.abs(distance - np.float32(centre_nm)) / np.float32(half_width_nm), 0, 1)


def blend(density: Array, target: Array | float, weight: Array) -> None:
    """Move ``density`` towards ``target`` by ``weight`` (0…1), in place."""
    density += (np.asarray(target, dtype=np.float32) - density) * weight


def square_distance(at_nm: Axes, point_nm: Point) -> Array:
    """Return the squared distance (nm²) to a point."""
    total = np.zeros_like(at_nm[0])
    for c, o in zip(at_nm, point_nm, strict=True):
        total += (c - np.float32(o)) ** 2
    return total


def height_along(at_nm: Axes, direction: Point) -> Array:
    """Return the coordinate (nm) along a direction."""
    total = at_nm[0] * np.float32(direction[0])
    total += at_nm[1] * np.float32(direction[1])
    total += at_nm[2] * np.float32(direction[2])
    return total


def tube_distance(tissue: Tissue, window: Window, at_nm: Axes, tube: Tube, reach_nm: float) -> Array:
    """Return the signed distance (nm) to a tube, at most ``reach_nm``.

    Args:
        tissue: gives the voxels that a segment can reach.
        window: the voxels of the result.
        at_nm: their tissue coordinates.
        tube: a polyline with radii.
        reach_nm: distances beyond are cut to it.
    """
    out = np.full(at_nm[0].shape, reach_nm, dtype=np.float32)
    nodes, radii = tube
    ends = range(1, len(nodes)) if len(nodes) > 1 else [0]
    for end in ends:
        begin = max(end - 1, 0)
        piece = Tube(nodes[[begin, end]], radii[[begin, end]])
        part = tissue.window(*piece.bounds(reach_nm))
        if part is None:
            continue
        local = tuple(
            slice(max(p.start, w.start) - w.start, min(p.stop, w.stop) - w.start)
            for p, w in zip(part, window, strict=True)
        )
        if any(s.start >= s.stop for s in local):
            continue
        distance = _segment_distance((at_nm[0][local], at_nm[1][local], at_nm[2][local]), piece)
        np.minimum(out[local], distance, out=out[local])
    return out


def _segment_distance(at_nm: Axes, piece: Tube) -> Array:
    (a, b), (ra, rb) = piece
    axis = b - a
    squared = float(np.sum(axis * axis))
    square = square_distance(at_nm, a)
    if squared < 1e-9:
        return np.sqrt(square) - np.float32(ra)
    along = height_along(at_nm, axis) - np.float32(np.sum(axis * a))
    nearest = np.clip(along / np.float32(squared), 0, 1)
    square += nearest * (nearest * np.float32(squared) - 2 * along)
    return np.sqrt(np.maximum(square, 0)) - (np.float32(ra) + nearest * np.float32(rb - ra))


def drop_crumbs(tissue: Tissue, distance_ZYX: Array, outside_nm: float) -> None:
    """Set the tiny pieces (26-connected) of a shape to ``outside_nm``, in place.

    Cutting a shape free of its neighbours leaves crumbs that no organelle looks like.
    """
    pieces, count = ndimage.label(distance_ZYX < 0, structure=np.ones((3, 3, 3), dtype=bool))
    if count:
        crumbs = np.bincount(pieces.reshape(-1)) < _CRUMB_NM3 / float(np.prod(tissue.voxel_size))
        crumbs[0] = False
        distance_ZYX[crumbs[pieces]] = outside_nm


class Room(NamedTuple):
    """Distance to the nearest object (nm) on a coarse lattice."""

    distance_nm: Array
    spacing_nm: Point

    def at(self, point_nm: Point) -> float:
        """Return the distance at a point; of the nearest lattice point if it is outside."""
        index = np.clip(point_nm // self.spacing_nm, 0, np.array(self.distance_nm.shape) - 1).astype(int)
        return float(self.distance_nm[tuple(index)])

    def inside(self, point_nm: Point, margin_nm: float) -> bool:
        """Whether the point lies in the volume grown by ``margin_nm``."""
        end = self.spacing_nm * self.distance_nm.shape
        return bool((point_nm > -margin_nm).all() and (point_nm < end + margin_nm).all())

    def widest(self) -> tuple[Point, float]:
        """Return the point with most room on all sides, the volume's own sides too, and its distance."""
        shape = self.distance_nm.shape
        sides = np.meshgrid(
            *[
                np.minimum(np.arange(n), np.arange(n)[::-1]) * s
                for n, s in zip(shape, self.spacing_nm, strict=True)
            ],
            indexing="ij",
        )
        within = np.minimum(self.distance_nm, np.minimum.reduce(sides) + 30)
        index = np.unravel_index(int(np.argmax(within)), shape)
        return (np.array(index) + 0.5) * self.spacing_nm, float(self.distance_nm[index])

    def draw(self, rng: np.random.Generator, tries: int) -> tuple[Point, float]:
        """Return the roomiest of ``tries`` random points: objects spread evenly that way."""
        flat = rng.integers(self.distance_nm.size, size=tries)
        best = flat[int(np.argmax(self.distance_nm.reshape(-1)[flat]))]
        index = np.unravel_index(int(best), self.distance_nm.shape)
        return (np.array(index) + rng.random(3)) * self.spacing_nm, float(self.distance_nm[index])


def walk(
    rng: np.random.Generator, room: Room, start_nm: Point, *, length_nm: float, step_nm: float,
    wiggle: float, need_nm: float, direction: Point | None = None,
) -> NDArray[np.float64]:  # fmt: skip
    """Return the nodes (n × 3, nm) of a path that bends at random and turns away from obstacles."""
    heading = unit(rng.standard_normal(3) if direction is None else direction)
    nodes = [start_nm]
    for _ in range(round(length_nm / step_nm)):
        for effort in range(6):
            turned = unit(heading + rng.standard_normal(3) * wiggle * (1 + effort))
            ahead = nodes[-1] + turned * step_nm
            if room.at(ahead) >= need_nm:
                break
        else:
            break
        heading = turned
        nodes.append(ahead)
        if not room.inside(ahead, step_nm + need_nm):
            break
    return np.array(nodes)
