"""Test-time augmentation: the mean over exact symmetries of the voxel grid.

Each view mirrors the tile along some of its axes, or exchanges y and x as well; what the network says of it
is turned back and averaged. Nothing is interpolated.

The result does not depend on how a region is cut into tiles. A mirrored tile begins, in mirrored coordinates,
where the tile ended, so its pooling phase is that of the *end* of the network's output. Outputs begin on
multiples of the stride, and all legal outputs have the same size modulo the stride (`ValidNetwork`); so all
ends have the same phase, whatever the tile.

Edges are turned back as edges. Let v be the place of a voxel of the view, and ``turned(o)`` its offset o
turned back. What the view says in the channel of o is the edge of v and ``v + turned(o)``. Where
``turned(o)`` is the offset of some channel, it belongs to that one at v. Where ``-turned(o)`` is, it belongs
to that one at ``v + turned(o)``: so in a view mirrored along z the edge to the voxel before stands one voxel
off. The mean without this (published by PyTorch Connectomics v1) takes neighbouring edges for one, and
erases boundaries. So that shifted edges are there at a tile's border too, tiles of edges are made larger by
`margin`; no tile and no voxel has fewer views than others.

A view that does not hold a channel (its offset turned back is nobody's; a component that changes its sign) is
left out of the mean of this channel.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

import torch
from torch import Tensor

from incasem.errors import ConfigError, explain
from incasem.geometry import Coordinate
from incasem.networks import ValidNetwork
from incasem.prediction.tiling import Margin
from incasem.tasks.channels import Channel, Component, Edge

Views = Literal["none", 8, 16]
_NO_SHIFT = (0, 0, 0)


@dataclass(frozen=True)
class Source:
    """Where a view holds a channel of the result: in its own ``channel``, ``shift`` voxels (z, y, x) on."""

    channel: int
    shift: tuple[int, int, int] = _NO_SHIFT


@dataclass(frozen=True)
class View:
    """One symmetry: y and x exchanged or not, then mirrored along ``mirrored`` (negative axis numbers).

    ``sources`` tells for each channel of the result where the view holds it; None: it does not.
    """

    mirrored: tuple[int, ...]
    exchanged: bool
    sources: tuple[Source | None, ...] = ()

    def of(self, array: Tensor) -> Tensor:
        """Return ``array`` (…, z, y, x) as it is seen in this view."""
        return torch.flip(array.transpose(-2, -1) if self.exchanged else array, self.mirrored)

    def back(self, array: Tensor) -> Tensor:
        """Return what `of` made of an array as it was. Channels stay as they were seen."""
        array = torch.flip(array, self.mirrored)
        return array.transpose(-2, -1) if self.exchanged else array

    def add_to(self, total_CZYX: Tensor, seen_CZYX: Tensor, crop: Sequence[slice]) -> None:
        """Add what the network said of this view to a sum, channel by channel.

        Args:
            total_CZYX: of the result, of the size of ``crop``.
            seen_CZYX: as the network gave it.
            crop: (z, y, x) in the output as it is without the symmetry, `margin` away from its borders.
        """
        back_CZYX = self.back(seen_CZYX)
        for total_ZYX, source in zip(total_CZYX, self.sources, strict=True):
            if source is not None:
                z, y, x = (slice(c.start + s, c.stop + s) for c, s in zip(crop, source.shift, strict=True))
                total_ZYX += back_CZYX[source.channel, z, y, x]


def views(setting: Views, network: ValidNetwork, channels: Sequence[Channel] = ()) -> tuple[View, ...]:
    """Return the views for `prediction.tta`; the first one changes nothing.

    Views that hold no channel at all are left out.

    Args:
        setting: of the prediction.
        network: that will see them.
        channels: what its output means; () for classes.

    Raises:
        ConfigError: 16 views of a network that treats y and x differently, or of edges of which one has no
            counterpart where y and x are exchanged.
    """
    meanings = tuple(channels) or (Component(),) * network.num_fmaps_out
    as_it_is = View((), False, _sources((), False, meanings))
    if setting == "none":
        return (as_it_is,)
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
    found = [
        View(axes, exchanged, _sources(axes, exchanged, meanings))
        for exchanged in ((False, True)[: setting // 8])
        for axes in mirrors
    ]
    if setting == 16:
        _check_exchanged([view for view in found if view.exchanged], meanings)
    return tuple(view for view in found if any(view.sources))


def counts(views: Sequence[View]) -> list[int]:
    """Return the number of views that hold each channel; at least 1."""
    return [
        sum(source is not None for source in sources)
        for sources in zip(*(v.sources for v in views), strict=True)
    ]


def margin(views: Sequence[View]) -> Margin:
    """Return the voxels (z, y, x) of the network's output needed before and after what is kept of a tile."""
    shifts = [source.shift for view in views for source in view.sources if source is not None]
    before = Coordinate(max(0, -min(shift[axis] for shift in shifts)) for axis in range(3))
    return before, Coordinate(max(0, max(shift[axis] for shift in shifts)) for axis in range(3))


def _check_exchanged(exchanged: Sequence[View], meanings: Sequence[Channel]) -> None:
    missing = [
        channel
        for channel, sources in zip(
            meanings, zip(*(view.sources for view in exchanged), strict=True), strict=True
        )
        if not any(sources)
    ]
    if missing:
        offsets = [one.offset for one in missing if isinstance(one, Edge)]
        lacking = ", ".join(f"[{z}, {x}, {y}]" for z, y, x in offsets)
        raise ConfigError(
            explain(
                "prediction.tta",
                16,
                f"none or 8, since task.offsets, looked at with y and x exchanged, lacks {lacking}",
                "Take 8, or train with offsets that are the same along y and x",
            )
        )


def _sources(
    mirrored: Sequence[int], exchanged: bool, meanings: Sequence[Channel]
) -> tuple[Source | None, ...]:
    """Return where a view holds each channel."""
    turned = [_turned(meaning, mirrored, exchanged) for meaning in meanings]
    return tuple(_source(index, meanings, turned) for index in range(len(meanings)))


def _source(index: int, meanings: Sequence[Channel], turned: Sequence[Channel | None]) -> Source | None:
    """Return where the channel ``index`` is found among what the view's channels mean when turned back.

    Of channels with the same meaning (classes) the first is the first, and so on.
    """
    wanted = meanings[index]
    rank = meanings[:index].count(wanted)
    same = [channel for channel, meaning in enumerate(turned) if meaning == wanted]
    if rank < len(same):
        return Source(same[rank])
    if isinstance(wanted, Edge):
        z, y, x = wanted.offset
        if (opposite := Edge((-z, -y, -x))) in turned:
            return Source(turned.index(opposite), wanted.offset)
    return None


def _turned(meaning: Channel, mirrored: Sequence[int], exchanged: bool) -> Channel | None:
    """Return what a channel of a view means for the tile as it is; None: the opposite of what it says."""
    axes = {axis + 3 for axis in mirrored}
    order = (0, 2, 1) if exchanged else (0, 1, 2)
    if isinstance(meaning, Edge):
        signed = [-step if axis in axes else step for axis, step in enumerate(meaning.offset)]
        return Edge((signed[0], signed[order[1]], signed[order[2]]))
    if sum(axis in axes for axis in meaning.axes) % 2:
        return None
    return Component(tuple(sorted(order[axis] for axis in meaning.axes)))
