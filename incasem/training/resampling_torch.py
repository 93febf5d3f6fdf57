"""The resampling pass of `resampling`, in torch: for GPUs.

The same arithmetic in the same order, so that the samples of both differ by rounding at most. Arrays come
from and go back to the main memory; to the device travel the source and the coarse field.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from incasem.geometry import Coordinate
from incasem.training.resampling import PositionField

VOXELS_AT_ONCE = 2**22  # the temporary arrays of so many voxels take half a GB

Axes = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def resample_linear(
    source_ZYX: NDArray[Any],
    field: PositionField,
    origin: Coordinate,
    begin: Coordinate,
    shape: Coordinate,
    device: torch.device,
) -> NDArray[np.float32]:
    """Return what `resampling.resample_linear` does, made on ``device``."""
    output_ZYX = np.empty(tuple(shape), np.float32)
    exact = source_ZYX.dtype in (np.uint8, np.float32)  # others become float32 first, as on the processor
    source = torch.from_numpy(np.ascontiguousarray(source_ZYX if exact else source_ZYX.astype(np.float32)))
    flat = source.to(device).reshape(-1)
    along_z, along_y = source_ZYX.shape[1] * source_ZYX.shape[2], source_ZYX.shape[2]
    for planes, (z, y, x) in _positions(field, begin, shape, device):
        whole = [position.to(torch.int32) for position in (z, y, x)]
        rest_z, rest_y, rest_x = (p - w.to(torch.float32) for p, w in zip((z, y, x), whole, strict=True))
        at = _index(whole, origin, source_ZYX.shape)

        def between(first: torch.Tensor, rest: torch.Tensor = rest_x) -> torch.Tensor:
            low = flat[first].to(torch.float32)
            return low + rest * (flat[first + 1].to(torch.float32) - low)

        near = between(at)
        near += rest_y * (between(at + along_y) - near)
        far = between(at + along_z)
        far += rest_y * (between(at + along_z + along_y) - far)
        output_ZYX[planes] = (near + rest_z * (far - near)).cpu().numpy()
    return output_ZYX


def nearest_voxels(
    source_shape: Sequence[int],
    field: PositionField,
    origin: Coordinate,
    begin: Coordinate,
    shape: Coordinate,
    device: torch.device,
) -> NDArray[np.intp]:
    """Return what `resampling.nearest_voxels` does, made on ``device``."""
    indices_ZYX = np.empty(tuple(shape), np.intp)
    for planes, positions in _positions(field, begin, shape, device):
        whole = [(position + 0.5).to(torch.int32) for position in positions]
        indices_ZYX[planes] = _index(whole, origin, source_shape).cpu().numpy()
    return indices_ZYX


def _index(whole: Sequence[torch.Tensor], origin: Coordinate, shape: Sequence[int]) -> torch.Tensor:
    """Return indices into the flattened source of the voxels ``whole`` (z, y, x) of the field's frame."""
    z, y, x = (axis.to(torch.int64) - int(first) for axis, first in zip(whole, origin, strict=True))
    return (z * shape[1] + y) * shape[2] + x


def _positions(
    field: PositionField, begin: Coordinate, shape: Coordinate, device: torch.device
) -> Iterator[tuple[slice, Axes]]:
    """Yield the positions of some planes of the output region at a time."""
    tables = [torch.from_numpy(table).to(device) for table in field.tables]
    y = torch.arange(begin[1], begin[1] + shape[1], device=device)
    x = slice(begin[2], begin[2] + shape[2])
    # Interpolated along y at every node of z, for all planes.
    displacement = torch.from_numpy(np.ascontiguousarray(field.displacement[..., x])).to(device)
    node, following, weight = _nodes(y, field.step, displacement.shape[2])
    along_y = _between(displacement.index_select, 2, node, following, weight[:, None])
    count = max(1, VOXELS_AT_ONCE // max(shape[1] * shape[2], 1))
    for first in range(0, shape[0], count):
        planes = slice(first, min(first + count, shape[0]))
        z = torch.arange(begin[0] + planes.start, begin[0] + planes.stop, device=device)
        node, following, weight = _nodes(z, field.step, displacement.shape[1])
        moved = _between(along_y.index_select, 1, node, following, weight[:, None, None])
        at_z, at_y, at_x = (
            (
                tables[0][axis][z][:, None, None] + tables[1][axis][y][:, None] + tables[2][axis][x]
            ) + moved[axis]
            for axis in range(3)
        )  # fmt: skip
        yield planes, (at_z, at_y, at_x)


def _nodes(places: torch.Tensor, step: int, count: int) -> Axes:
    """Return node, next node and the weight of the next one for some places along an axis."""
    node = torch.div(places, step, rounding_mode="floor")
    inverse = torch.tensor(1.0, device=places.device) / step
    return node, (node + 1).clamp(max=count - 1), (places - node * step).to(torch.float32) * inverse


def _between(
    select: Callable[[int, torch.Tensor], torch.Tensor],
    axis: int,
    node: torch.Tensor,
    following: torch.Tensor,
    weight: torch.Tensor,
) -> torch.Tensor:
    low = select(axis, node)
    return low + weight * (select(axis, following) - low)
