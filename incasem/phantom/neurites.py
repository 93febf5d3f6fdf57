"""Where the neurites of a block of neuropil run: paths that give way to each other, thick ones first."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from incasem.phantom.fields import Array, smooth_walk
from incasem.phantom.shapes import Point, Tube, unit

_STEP_NM = 60.0
_MARGIN_NM = 150.0  # paths begin and end outside the volume, so that its faces look like its inside
_LATTICE_NM = 40.0
_FAR_NM = 1000.0
_MEDIAN_RADIUS_NM, _SPREAD = 100.0, 0.55  # of the lognormal distribution of calibres
_LEAST_RADIUS_NM = 32.0
_FILLED = 0.8  # of the volume, by tubes of drawn calibre; small ones fill what is left between them
_GAP_NM = 55.0  # a gap with more room than this gets a neurite of its own
_BRANCH_EVERY_NM = 1800.0
_SQUEEZE_NM = 8.0  # with less room a path ends; neighbours make way for what is thicker than that
_DIRECTIONS = 14
_TRIES = 5  # at paths through a place; the longest is taken


class Neurites(NamedTuple):
    """Straight segments of tubes (n × 3, nm), the radii at both ends (nm), and whose they are (0…)."""

    begins_nm: NDArray[np.float64]
    ends_nm: NDArray[np.float64]
    begin_radii_nm: NDArray[np.float64]
    end_radii_nm: NDArray[np.float64]
    owners: NDArray[np.int32]


class _Space:
    """Distance (nm) to the nearest neurite on a coarse lattice around the volume, negative inside of one."""

    def __init__(self, extent_nm: Point) -> None:
        self.begin_nm = np.full(3, -_MARGIN_NM)
        self.end_nm = extent_nm + _MARGIN_NM
        shape = np.ceil((self.end_nm - self.begin_nm) / _LATTICE_NM).astype(int)
        self.distance: Array = np.full(shape, _FAR_NM, dtype=np.float32)

    def at(self, points_nm: NDArray[np.float64]) -> Array:
        """Return the distance at points (n × 3)."""
        index = ((points_nm - self.begin_nm) // _LATTICE_NM).astype(int)
        index = np.clip(index, 0, np.array(self.distance.shape) - 1)
        found: Array = self.distance[index[:, 0], index[:, 1], index[:, 2]]
        return found

    def inside(self, point_nm: Point) -> bool:
        return bool((point_nm >= self.begin_nm).all() and (point_nm < self.end_nm).all())

    def place_of(self, flat_index: int) -> Point:
        index = np.unravel_index(flat_index, self.distance.shape)
        return self.begin_nm + (np.array(index) + 0.5) * _LATTICE_NM

    def draw(self, rng: np.random.Generator, tries: int) -> tuple[Point, float]:
        """Return the roomiest of some random places, and its room."""
        flat = rng.integers(self.distance.size, size=tries)
        best = int(flat[int(np.argmax(self.distance.reshape(-1)[flat]))])
        return self.place_of(best), float(self.distance.reshape(-1)[best])

    def occupy(self, tube: Tube) -> None:
        """Add a tube."""
        for begin, end, radius in zip(tube.nodes_nm[:-1], tube.nodes_nm[1:], tube.radii_nm[1:], strict=True):
            # A lattice point this far away keeps its larger value, which only says that there is room.
            reach = radius + 6 * _LATTICE_NM
            low = (np.minimum(begin, end) - reach - self.begin_nm) // _LATTICE_NM
            high = (np.maximum(begin, end) + reach - self.begin_nm) // _LATTICE_NM + 1
            low, high = (np.clip(v, 0, self.distance.shape).astype(int) for v in (low, high))
            if (low >= high).any():
                continue
            window = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
            points = np.moveaxis(np.mgrid[window], 0, -1) * _LATTICE_NM + self.begin_nm + _LATTICE_NM / 2
            axis = end - begin
            along = np.clip((points - begin) @ axis / max(float(axis @ axis), 1e-9), 0, 1)
            away = np.sqrt(((points - begin - along[..., None] * axis) ** 2).sum(axis=-1)) - radius
            np.minimum(self.distance[window], away, out=self.distance[window])


def plan_neurites(extent_nm: Point, rng: np.random.Generator) -> Neurites:
    """Choose the paths of neurites that fill a box of ``extent_nm`` (z, y, x) and cross it in all directions.

    Calibres are lognormal. A path bends at random, goes where there is room, and is as thick there as the
    room allows; some send out thin branches.
    """
    space = _Space(extent_nm)
    volume = float(np.prod(space.end_nm - space.begin_nm))
    tubes: list[tuple[int, Tube]] = []
    owner, filled = 0, 0.0
    across = float(np.mean(extent_nm)) + 2 * _MARGIN_NM
    # Thick ones have to come first: later there is no room for them.
    section = np.pi * _MEDIAN_RADIUS_NM**2 * np.exp(2 * _SPREAD**2)
    count = int(1.8 * volume / (across * section)) + 4  # many meet no room for their calibre
    radii = np.sort(rng.lognormal(np.log(_MEDIAN_RADIUS_NM), _SPREAD, count))[::-1]
    for radius in np.minimum(radii, 0.16 * across):
        start, room = space.draw(rng, 30)
        if filled >= _FILLED * volume or room < _LEAST_RADIUS_NM:
            break
        grown = _neurite(space, rng, start, min(radius, 1.2 * room))
        tubes += [(owner, tube) for tube in grown]
        filled += sum(map(_volume, grown))
        owner += 1
    while True:
        flat = int(np.argmax(space.distance))
        room = float(space.distance.reshape(-1)[flat])
        if room < _GAP_NM:
            break
        tube = _path(space, rng, space.place_of(flat), min(room, 1.5 * _MEDIAN_RADIUS_NM))
        space.occupy(tube)
        space.distance.reshape(-1)[flat] = min(0, space.distance.reshape(-1)[flat])
        tubes.append((owner, tube))
        owner += 1
    return _segments(tubes)


def _neurite(space: _Space, rng: np.random.Generator, start: Point, radius: float) -> list[Tube]:
    trunk = _path(space, rng, start, radius)
    space.occupy(trunk)
    tubes = [trunk]
    for _ in range(rng.poisson(len(trunk.nodes_nm) * _STEP_NM / _BRANCH_EVERY_NM)):
        k = int(rng.integers(len(trunk.nodes_nm)))
        side = unit(rng.standard_normal(3))
        foot = trunk.nodes_nm[k] + side * (trunk.radii_nm[k] + 50)
        thin = float(rng.uniform(_LEAST_RADIUS_NM, max(0.5 * radius, _LEAST_RADIUS_NM + 1)))
        if not space.inside(foot) or space.at(foot[None])[0] < thin:
            continue
        twig = _walk(space, rng, foot, side, thin, int(rng.integers(5, 30)))
        nodes = np.concatenate([trunk.nodes_nm[k : k + 1], twig.nodes_nm])
        tubes.append(Tube(nodes, np.concatenate([twig.radii_nm[:1], twig.radii_nm])))
        space.occupy(tubes[-1])
    return tubes


def _path(space: _Space, rng: np.random.Generator, start: Point, radius: float) -> Tube:
    """Return a path through ``start`` that goes on to both sides until it leaves the box or finds no room."""
    longest = int(3 * np.sqrt(((space.end_nm - space.begin_nm) ** 2).sum()) / _STEP_NM)
    found = []
    for _ in range(_TRIES):
        heading = unit(rng.standard_normal(3))
        ahead = _walk(space, rng, start, heading, radius, longest)
        back = _walk(space, rng, start, -heading, radius, longest)
        nodes = np.concatenate([back.nodes_nm[:0:-1], ahead.nodes_nm])
        found.append(Tube(nodes, np.concatenate([back.radii_nm[:0:-1], ahead.radii_nm])))
    return max(found, key=lambda tube: len(tube.nodes_nm))


def _walk(
    space: _Space, rng: np.random.Generator, start: Point, heading: Point, radius: float, steps: int
) -> Tube:
    nodes, radii = [start], [radius]
    swelling = 1 + 0.45 * smooth_walk(rng, steps, 5.0)
    for swollen in swelling:
        turns = heading + rng.standard_normal((_DIRECTIONS, 3)) * np.linspace(0.06, 0.9, _DIRECTIONS)[:, None]
        turns /= np.sqrt((turns**2).sum(axis=1, keepdims=True))
        ahead = nodes[-1] + turns * _STEP_NM
        rooms = space.at(ahead)
        # Straight on, unless another way has clearly more room; more than it needs does not count.
        wish = np.minimum(rooms, radius) / radius + 2.0 * (turns @ heading)
        best = int(np.argmax(wish))
        room = float(rooms[best])
        if room < _SQUEEZE_NM:
            break
        heading = turns[best]
        nodes.append(ahead[best])
        most = max(1.1 * room, _LEAST_RADIUS_NM)
        # A calibre changes little from node to node.
        radii.append(float(np.clip(radius * swollen, _LEAST_RADIUS_NM, min(most, 1.25 * radii[-1]))))
        if not space.inside(nodes[-1]):
            break
    return Tube(np.array(nodes), np.array(radii))


def _volume(tube: Tube) -> float:
    lengths = np.sqrt((np.diff(tube.nodes_nm, axis=0) ** 2).sum(axis=1))
    return float((np.pi * tube.radii_nm[1:] ** 2 * lengths).sum())


def _segments(tubes: list[tuple[int, Tube]]) -> Neurites:
    """Cut the paths into segments; a path of one node is a ball."""
    parts = []
    for owner, (nodes, radii) in tubes:
        first = slice(0, -1) if len(nodes) > 1 else slice(0, 1)
        last = slice(1, None) if len(nodes) > 1 else slice(0, 1)
        owners = np.full(len(nodes[first]), owner, dtype=np.int32)
        parts.append((nodes[first], nodes[last], radii[first], radii[last], owners))
    return Neurites(*(np.concatenate(column) for column in zip(*parts, strict=True)))
