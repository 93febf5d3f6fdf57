"""Test-time augmentation: the mean over exact symmetries of the voxel grid.

Each view mirrors the tile along some of its axes, or exchanges y and x as well; what the network says of it
is turned back and averaged. Nothing is interpolated.

The result does not depend on how a region is cut into tiles. A mirrored tile begins, in mirrored coordinates,
where the tile ended, so its pooling phase is that of the *end* of the network's output. Outputs begin on
multiples of the stride, and all legal outputs have the same size modulo the stride (`ValidNetwork`); so all
ends have the same phase, whatever the tile.
"""

from dataclasses import dataclass
from itertools import product
from typing import Literal

import torch
from torch import Tensor

from incasem.errors import ConfigError, explain
from incasem.networks import ValidNetwork

Views = Literal["none", 8, 16]


@dataclass(frozen=True)
class View:
    """One symmetry: y and x exchanged or not, then mirrored along ``mirrored`` (negative axis numbers)."""

    mirrored: tuple[int, ...]
    exchanged: bool

    def of(self, array: Tensor) -> Tensor:
        """Return ``array`` (…, z, y, x) as it is seen in this view."""
        return torch.flip(array.transpose(-2, -1) if self.exchanged else array, self.mirrored)

    def back(self, array: Tensor) -> Tensor:
        """Return what `of` made of an array as it was."""
        array = torch.flip(array, self.mirrored)
        return array.transpose(-2, -1) if self.exchanged else array


def views(setting: Views, network: ValidNetwork) -> tuple[View, ...]:
    """Return the views for `prediction.tta`; the first one changes nothing.

    Raises:
        ConfigError: 16 views of a network that treats y and x differently.
    """
    if setting == "none":
        return (View((), False),)
    sizes = (network.stride, network.smallest_input, network.context_voxels)
    if setting == 16 and any(size[1] != size[2] for size in sizes):
        raise ConfigError(
            explain(
                "prediction.tta",
                setting,
                "none or 8 for a network whose downsample_factors differ between y and x",
                "Take 8",
            )
        )
    mirrors = [tuple(axis for axis in (-3, -2, -1) if flags[axis]) for flags in product((0, 1), repeat=3)]
    return tuple(View(axes, exchanged) for exchanged in ((False, True)[: setting // 8]) for axes in mirrors)
