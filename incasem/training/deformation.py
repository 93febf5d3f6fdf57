"""Random geometry of a sample: flips, transposes, elastic deformation, rotation, scaling, shifted sections.

The published order is kept: flips and transposes, then the elastic step in the frame that they make, then
flips and transposes again. Optional rotation and scaling (`linear`) join the elastic step; optional
shifted and misaligned sections are planes of the output. All of it becomes one `PositionField` (sections that
are turned against the others have one of their own), so that each voxel is interpolated once; flips and
transposes cost nothing, and patches of unequal sides need no care.

Frames, from the network back to the volume: *output* (what the network gets) ← second flips → *elastic* ←
deformation → *straight* ← first flips → *source* (voxels of the volume, up to an offset).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from incasem.config.augmentation import Augmentation, Elastic
from incasem.geometry import Coordinate, Roi
from incasem.training import section_defects
from incasem.training.linear import about, about_z, draw_linear
from incasem.training.misalignment import draw_misalignment
from incasem.training.resampling import PositionField

# Jitter is normal and thus unbounded; beyond this many sigma (1 in 16,000 draws) it is cut.
MAX_SIGMAS = 4.0
_FROM_ZERO = Coordinate(0, 0, 0)


@dataclass(frozen=True)
class Orientation:
    """A flip and transpose: axis ``a`` of the farther frame runs along axis ``axes[a]`` of the nearer one.

    It runs backwards where ``flips[a]``.
    """

    axes: tuple[int, int, int] = (0, 1, 2)
    flips: tuple[bool, bool, bool] = (False, False, False)

    @classmethod
    def draw(cls, rng: np.random.Generator, transpose_only: tuple[int, ...]) -> Self:
        """Draw flips (probability 1/2 an axis) and a permutation of the axes ``transpose_only``."""
        axes = [0, 1, 2]
        for axis, other in zip(transpose_only, rng.permutation(transpose_only), strict=True):
            axes[axis] = int(other)
        z, y, x = (bool(flip) for flip in rng.random(3) < 0.5)
        return cls((axes[0], axes[1], axes[2]), (z, y, x))

    def then(self, farther: "Orientation") -> "Orientation":
        """Return this orientation followed by the next one, away from the network."""
        axes = [self.axes[axis] for axis in farther.axes]
        flips = [self.flips[axis] != flip for axis, flip in zip(farther.axes, farther.flips, strict=True)]
        return Orientation((axes[0], axes[1], axes[2]), (flips[0], flips[1], flips[2]))

    def region(self, roi: Roi, shape: Coordinate) -> Roi:
        """Return the farther frame's region of a region in the nearer frame, a box of ``shape`` from 0 on."""
        begin = [
            shape[axis] - roi.end[axis] if flip else roi.begin[axis]
            for axis, flip in zip(self.axes, self.flips, strict=True)
        ]
        return Roi(begin, [roi.shape[axis] for axis in self.axes])


class Turned(NamedTuple):
    """Sections ``begin`` … ``end`` - 1 across ``axis`` of the output; they have their own displacement."""

    axis: int
    begin: int
    end: int
    displacement: NDArray[np.float32]


@dataclass(frozen=True)
class Deformation:
    """One draw of the geometry for an output box of ``shape`` voxels that begins at 0."""

    shape: Coordinate
    orientation: Orientation
    field: PositionField
    turned: Turned | None = None

    def pieces(self, roi: Roi, origin: Coordinate = _FROM_ZERO) -> Iterator[tuple[Roi, PositionField]]:
        """Yield the pieces of a region of the output box, slabs in order, each with its own smooth field.

        Args:
            roi: the region.
            origin: source voxel from which positions are counted.
        """
        from_z, from_y, from_x = self.field.tables
        field = self.field._replace(tables=(from_z - np.asarray(origin, np.float32)[:, None], from_y, from_x))
        if self.turned is None:
            yield roi, field
            return
        axis, first, last, displacement = self.turned
        ends = (roi.begin[axis], roi.end[axis])
        cuts = sorted({*ends, *(min(max(cut, ends[0]), ends[1]) for cut in (first, last))})
        for begin, end in pairwise(cuts):
            part = Roi(
                [begin if a == axis else b for a, b in enumerate(roi.begin)],
                [end - begin if a == axis else size for a, size in enumerate(roi.shape)],
            )
            inside = first <= begin < last
            yield part, field._replace(displacement=displacement) if inside else field

    def source_roi(self, roi: Roi) -> Roi:
        """Return the source voxels needed for the region ``roi`` of the output box, with a voxel to spare."""
        needed = [self._source_of(part, field) for part, field in self.pieces(roi)]
        begin = [min(values) for values in zip(*(part.begin for part in needed), strict=True)]
        end = [max(values) for values in zip(*(part.end for part in needed), strict=True)]
        return Roi(begin, [e - b for b, e in zip(begin, end, strict=True)])

    def _source_of(self, roi: Roi, field: PositionField) -> Roi:
        step = field.step
        size_z, size_y = field.displacement.shape[1:3]
        z, y, x = zip(roi.begin, roi.end, strict=True)
        places = [
            np.arange(z[0] // step, min((z[1] - 1) // step + 1, size_z - 1) + 1) * step,
            np.arange(y[0] // step, min((y[1] - 1) // step + 1, size_y - 1) + 1) * step,
            # Straight between multiples of the step, so that these and the ends are the extremes.
            np.unique([x[0], *range(-(-x[0] // step) * step, x[1], step), x[1] - 1]),
        ]
        nodes = np.ix_(places[0] // step, places[1] // step, places[2])
        positions = np.stack([component[nodes] for component in field.displacement], dtype=np.float64)
        low, high = np.zeros(3), np.zeros(3)
        for axis, (table, begin, end) in enumerate(zip(field.tables, roi.begin, roi.end, strict=True)):
            # A table is a straight line plus jumps: the line goes to the nodes, the jumps widen the bounds.
            line, slope = _line(self.orientation, self.shape, axis)
            jumps = table[:, begin:end] - (line[:, None] + np.outer(slope, np.arange(begin, end)))
            low += jumps.min(axis=1)
            high += jumps.max(axis=1)
            straight = line[:, None] + np.outer(slope, places[axis])
            positions += straight.reshape(3, *(-1 if a == axis else 1 for a in range(3)))
        low += positions.min(axis=(1, 2, 3))
        high += positions.max(axis=(1, 2, 3))
        first = [int(np.floor(value)) - 1 for value in low]
        last = [int(np.floor(value)) + 2 for value in high]
        return Roi(first, [e - b + 1 for b, e in zip(first, last, strict=True)])


def draw_deformation(
    shape: Coordinate,
    settings: Augmentation,
    rng: np.random.Generator,
    voxel_size: Sequence[float] = (1.0, 1.0, 1.0),
) -> Deformation:
    """Draw the geometry of a sample.

    Args:
        shape: voxels (z, y, x) of the output box.
        settings: `training.augmentation`; ``simple`` and ``elastic`` may be None.
        rng: the sample's own generator. The optional kinds are drawn last: they change none of the others.
        voxel_size: of the volume, of any unit; for `rotation`.
    """
    transpose_only = settings.simple.transpose_only if settings.simple else None
    first, second = Orientation(), Orientation()
    if transpose_only is not None:
        first, second = Orientation.draw(rng, transpose_only), Orientation.draw(rng, transpose_only)
    orientation = second.then(first)
    tables = []
    for axis in range(3):
        line, slope = _line(orientation, shape, axis)
        tables.append((line[:, None] + np.outer(slope, np.arange(shape[axis]))).astype(np.float32))
    step = settings.elastic.subsample if settings.elastic else Elastic().subsample
    displacement = np.zeros((3, *(-(-(size - 1) // step) + 1 for size in shape)), np.float32)
    angle = 0.0
    if settings.elastic:
        sections = _section_shifts(shape[second.axes[0]], settings.elastic, rng)
        if second.flips[0]:
            sections = sections[:, ::-1]
        tables[second.axes[0]] += _to_source(sections, first)
        elastic, angle = _elastic(shape, second, settings.elastic, rng)
        displacement = _to_source(elastic, first)
    straight_size = [voxel_size[first.axes.index(axis)] for axis in range(3)]
    optional = draw_linear(settings, straight_size, rng)
    linear = optional @ about_z(angle)
    if (optional != np.eye(3)).any():
        displacement += _to_source(_moved(shape, second, step, linear - about_z(angle)), first)
    if settings.shifted_sections.probability:
        in_plane = section_defects.shifts(shape, settings.shifted_sections, rng)
        moved = (linear @ _to_source(in_plane, second)).astype(np.float32)
        tables[settings.shifted_sections.axis] += _to_source(moved, first)
    turned, across = None, settings.misalignment.axis
    if settings.misalignment.probability and (off := draw_misalignment(shape, settings.misalignment, rng)):
        moved = (linear @ _to_source(off.shift[:, None], second)).astype(np.float32)
        tables[across][:, off.begin : off.end] += _to_source(moved, first)
        if off.angle:
            turn = linear @ (about(second.axes.index(across), off.angle, straight_size) - np.eye(3))
            own = displacement + _to_source(_moved(shape, second, step, turn), first)
            turned = Turned(across, off.begin, off.end, _along_x(own, shape[2], step))
    field = PositionField((tables[0], tables[1], tables[2]), _along_x(displacement, shape[2], step), step)
    return Deformation(shape, orientation, field, turned)


def _along_x(displacement: NDArray[np.float32], size: int, step: int) -> NDArray[np.float32]:
    """Return a field known at every ``step``-th voxel of x at all ``size`` voxels of x, interpolated."""
    x = np.arange(size)
    weight = ((x % step) / step).astype(np.float32)
    left = displacement.take(x // step, axis=-1)  # not by an index, whose result lies transposed in memory
    right = displacement.take(np.minimum(x // step + 1, displacement.shape[-1] - 1), axis=-1)
    right -= left
    right *= weight
    left += right
    return left


def _line(
    orientation: Orientation, shape: Coordinate, axis: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return offset and slope (3,) of the source position along an axis of the output."""
    offset, slope = np.zeros(3), np.zeros(3)
    for source_axis, (along, flip) in enumerate(zip(orientation.axes, orientation.flips, strict=True)):
        if along == axis:
            offset[source_axis] = shape[axis] - 1 if flip else 0
            slope[source_axis] = -1 if flip else 1
    return offset, slope


def _to_source(vectors: NDArray[np.float32], first: Orientation) -> NDArray[np.float32]:
    """Return straight-frame vectors (3, …) in the source's axes."""
    signs = np.where(first.flips, -1, 1).astype(np.float32)
    turned: NDArray[np.float32] = vectors[list(first.axes)] * signs.reshape(3, *(1,) * (vectors.ndim - 1))
    return turned


def _section_shifts(sections: int, settings: Elastic, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return how far each section lies off, (3, sections); each shift moves all later sections too.

    Counted from the middle section, so that the sample stays around the location that was drawn for it.
    """
    shifted = rng.random(sections) < settings.shift_probability
    furthest = settings.max_shift_voxels
    steps = rng.integers(-furthest, furthest, (3, sections), endpoint=True)
    steps[:, ~shifted] = 0
    steps[0] = 0
    walk = np.cumsum(steps, axis=1)
    return (walk - walk[:, sections // 2, None]).astype(np.float32)


def _elastic(
    shape: Coordinate, second: Orientation, settings: Elastic, rng: np.random.Generator
) -> tuple[NDArray[np.float32], float]:
    """Return jitter with rotation at the output's nodes, (3, gz, gy, gx) in the elastic frame's axes.

    Returns:
        the displacement, and the angle of the rotation about z (radians).
    """
    step = settings.subsample
    count: list[int] = [0, 0, 0]
    for axis, along in enumerate(second.axes):
        count[along] = max(1, round(shape[along] / settings.control_point_spacing[axis]))
    weights = [_spline_weights(shape[axis], step, count[axis]) for axis in range(3)]
    noise = np.clip(rng.standard_normal((3, *count), np.float32), -MAX_SIGMAS, MAX_SIGMAS)
    noise *= np.asarray(settings.jitter_sigma, np.float32).reshape(3, 1, 1, 1)
    displacement = np.einsum("dkji,xi->dkjx", noise, weights[2])
    displacement = np.einsum("dkjx,yj->dkyx", displacement, weights[1])
    displacement = np.einsum("dkyx,zk->dzyx", displacement, weights[0])

    angle = rng.uniform(*np.deg2rad(settings.rotation_degrees))
    cosine, sine = np.cos(angle) - 1, np.sin(angle)
    _, y, x = _from_centre(shape, second, step)
    displacement[1] += np.float32(cosine) * y + np.float32(sine) * x
    displacement[2] += np.float32(cosine) * x - np.float32(sine) * y
    return displacement, angle


def _from_centre(shape: Coordinate, second: Orientation, step: int) -> list[NDArray[np.float32]]:
    """Return, for each axis of the elastic frame, the nodes' offsets from the centre, ready to broadcast."""
    offsets = []
    for along, flip in zip(second.axes, second.flips, strict=True):
        size = shape[along]
        places = np.arange(-(-(size - 1) // step) + 1) * step
        offset = ((places - (size - 1) / 2) * (-1 if flip else 1)).astype(np.float32)
        offsets.append(offset.reshape([-1 if axis == along else 1 for axis in range(3)]))
    return offsets


def _moved(
    shape: Coordinate, second: Orientation, step: int, change: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Return ``change`` times the nodes' offsets from the centre, (3, gz, gy, gx), in the elastic frame."""
    z, y, x = _from_centre(shape, second, step)
    return np.stack([np.float32(a) * z + np.float32(b) * y + np.float32(c) * x for a, b, c in change])


@lru_cache(maxsize=64)
def _spline_weights(size: int, step: int, count: int) -> NDArray[np.float32]:
    """Return the matrix (nodes, count) from control points to nodes by cubic spline interpolation.

    The control points spread evenly over ``size`` voxels, the first and the last on its ends; nodes lie at
    every ``step``-th voxel, the last one perhaps beyond the end, where the spline's end value is kept.
    """
    places = np.arange(-(-(size - 1) // step) + 1) * step
    at = np.minimum(places / max(size - 1, 1), 1.0) * (count - 1)
    columns = [ndimage.map_coordinates(unit, [at], order=3, mode="mirror") for unit in np.eye(count)]
    return np.stack(columns, axis=1).astype(np.float32)
