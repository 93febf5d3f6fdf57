"""What every network of ours can say about its sizes, so that planners need not know its inside."""

from collections.abc import Sequence

from torch import nn

from incasem.errors import ConfigError, explain
from incasem.geometry import Coordinate

_AXES = "zyx"


class ValidNetwork(nn.Module):
    """A network that does not pad: the output is smaller than the input by the context on both sides.

    Legal input sizes of an axis are ``smallest + k * stride``; the output is always
    ``input - 2 * context_voxels``. Moving the input by a multiple of the stride moves the output by as
    much and changes nothing else, so tiles that start on multiples of the stride fit together exactly.

    Attributes:
        context_voxels: voxels (z, y, x) that the output lacks on each side.
        stride: period (z, y, x, voxels) of the network's translation equivariance.
        smallest_input: smallest legal input (z, y, x, voxels).
        num_fmaps_out: number of output channels.
        depends_on_tile: the result at a voxel depends on the whole tile, by statistics that are taken over it
            (`norm: group`). Then only tiles of one size on one grid fit together.
    """

    context_voxels: Coordinate
    stride: Coordinate
    smallest_input: Coordinate
    num_fmaps_out: int
    depends_on_tile: bool = False

    def output_shape(self, input_shape: Sequence[int]) -> Coordinate:
        """Return the output size (z, y, x, voxels) of an input of ``input_shape`` (z, y, x, voxels).

        Raises:
            ConfigError: the network cannot take this size; the message names the nearest legal ones.
        """
        if len(input_shape) != len(_AXES):
            raise ConfigError(
                explain("input size", tuple(input_shape), "three numbers (z, y, x)", "Give one size an axis")
            )
        wrong = [axis for axis in range(len(_AXES)) if not self._is_legal(input_shape[axis], axis)]
        if wrong:
            raise ConfigError(
                explain(
                    "network input size",
                    f"{tuple(input_shape)} voxels (z, y, x)",
                    "; ".join(self._describe_legal(axis) for axis in wrong),
                    "Nearest legal sizes: "
                    + ", ".join(f"{_AXES[axis]} {self._nearest(input_shape[axis], axis)}" for axis in wrong),
                )
            )
        return Coordinate(s - 2 * c for s, c in zip(input_shape, self.context_voxels, strict=True))

    def input_shape_for(self, output_shape: Sequence[int]) -> Coordinate:
        """Return the smallest legal input (z, y, x, voxels) whose output covers ``output_shape``.

        Raises:
            ConfigError: ``output_shape`` is not three positive numbers.
        """
        if len(output_shape) != len(_AXES) or min(output_shape) < 1:
            raise ConfigError(
                explain(
                    "network output size",
                    tuple(output_shape),
                    "three positive numbers of voxels (z, y, x)",
                    "Correct the size",
                )
            )
        missing = [
            max(0, wanted + 2 * context - smallest)
            for wanted, context, smallest in zip(
                output_shape, self.context_voxels, self.smallest_input, strict=True
            )
        ]
        return Coordinate(
            smallest + -(-more // stride) * stride
            for more, stride, smallest in zip(missing, self.stride, self.smallest_input, strict=True)
        )

    def _is_legal(self, size: int, axis: int) -> bool:
        more = size - self.smallest_input[axis]
        return bool(more >= 0 and more % self.stride[axis] == 0)

    def _describe_legal(self, axis: int) -> str:
        return f"{_AXES[axis]} = {self.smallest_input[axis]} + {self.stride[axis]}k"

    def _nearest(self, size: int, axis: int) -> str:
        smallest, stride = self.smallest_input[axis], self.stride[axis]
        if size < smallest:
            return str(smallest)
        below = smallest + (size - smallest) // stride * stride
        return f"{below} or {below + stride}"
