"""Views of edges and of components of tensors: what a network says exactly, no mean may change."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from incasem.errors import ConfigError
from incasem.geometry import Coordinate, Roi
from incasem.networks import ValidNetwork
from incasem.prediction import AlignedTiling, Device, Planner, Predictor, PublishedTiling
from incasem.prediction.plan import BlockBuffers
from incasem.prediction.symmetries import counts, margin, views
from incasem.tasks.affinities import Affinities
from incasem.tasks.channels import DESCRIPTOR_COMPONENTS, Component, Edge, edge_channels

NEAREST = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
LONG = (*NEAREST, (-2, 0, 0), (0, -3, 0), (0, 0, -3))
AFTER = ((1, 0, 0), (0, 1, 0), (0, 0, 1))
DIAGONAL = (*NEAREST, (-1, -1, 0), (-1, 0, -1), (0, -1, 2), (0, 2, -1))
RNG = np.random.default_rng(0)


class Exact(ValidNetwork):
    """Compares each voxel with others: a network that knows its edges exactly, whatever it is shown.

    Its channels are edges (the closer the grey values, the surer), then components of the grey values'
    gradient if there are any.
    """

    def __init__(self, offsets, stride=(1, 1, 1), components=(), sure=3, slope=20):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1, 1, 1, 1, 1))
        self.offsets, self.components, self.sure, self.slope = offsets, components, sure, slope
        self.num_fmaps_out = len(offsets) + len(components)
        self.context_voxels = Coordinate((max(1, *(abs(s) for offset in offsets for s in offset)),) * 3)
        self.stride = Coordinate(stride)
        # A few voxels beyond the stride come out as well.
        self.smallest_input = self.context_voxels * 2 + self.stride + Coordinate((1,) * 3)

    def forward(self, raw):
        shape = self.output_shape(raw.shape[2:])

        def moved(offset):
            place = (
                slice(c + o, c + o + s) for c, o, s in zip(self.context_voxels, offset, shape, strict=True)
            )
            return raw[(slice(None), 0, *place)]

        here = moved((0, 0, 0)) * self.weight[0]
        channels = [self.sure - self.slope * (here - moved(offset)).abs() for offset in self.offsets]
        unit = np.eye(3, dtype=int)
        gradient = [moved(unit[axis]) - moved(-unit[axis]) for axis in range(3)]
        for component in self.components:
            product = torch.ones_like(here)
            for axis in component.axes:
                product = product * gradient[axis]
            channels.append(product if component.axes else here)
        return torch.stack(channels, dim=1)


@dataclass(frozen=True)
class Meaning(Affinities):
    """Affinities whose channels mean something else."""

    meanings: tuple = ()


def predictor(network, tta, tiling=None, task=None):
    tiling, task = tiling or AlignedTiling(network, (6, 6, 6)), task or Affinities(network.offsets)
    return Predictor(network, "cpu", "fp32", tta=tta, tiling=tiling, task=task)


@pytest.mark.parametrize("tta", [8, 16])
@pytest.mark.parametrize(
    "offsets", [NEAREST, LONG, AFTER, DIAGONAL], ids=["nearest", "long", "after", "diagonal"]
)
def test_the_mean_of_an_exact_predictor_is_what_it_says(memory_raw, offsets, tta):
    raw = memory_raw(RNG.integers(0, 256, (14, 15, 16), dtype=np.uint8), (3, -2, 5))
    roi = Roi((4, 0, 5), (9, 11, 10))  # one side lies on the volume's border
    network = Exact(offsets, (2, 2, 2))
    plain = predictor(network, "none").probabilities(raw, roi)
    assert plain.std() > 0.1
    averaged = predictor(network, tta).probabilities(raw, roi)
    np.testing.assert_allclose(averaged, plain, rtol=0, atol=3e-7)


def test_the_published_mean_would_erase_boundaries(memory_raw):
    """Objects of even grey: edges are 0 or 1. Taken for classes, hardly a boundary is left of them."""
    objects = np.repeat(np.repeat(np.repeat(RNG.permutation(64).reshape(4, 4, 4), 5, 0), 5, 1), 5, 2)
    raw, roi = memory_raw((objects * 4).astype(np.uint8)), Roi((2, 2, 2), (16, 16, 16))
    network = Exact(NEAREST, sure=20, slope=2000)
    exact = predictor(network, "none").probabilities(raw, roi)
    assert 0.03 < (exact < 0.5).mean() < 0.2
    as_classes = Meaning(NEAREST, meanings=(Component(),) * 3)
    published = predictor(network, 16, task=as_classes).probabilities(raw, roi)
    assert (published < 0.5).mean() < 0.1 * (exact < 0.5).mean()
    ours = predictor(network, 16).probabilities(raw, roi)
    np.testing.assert_array_equal(ours < 0.5, exact < 0.5)


def test_components_of_tensors_turn_with_the_view(memory_raw):
    network = Exact(NEAREST, components=DESCRIPTOR_COMPONENTS)
    task = Affinities(NEAREST, descriptor_sigma=(1.0, 1.0, 1.0))
    assert task.meanings[3:] == DESCRIPTOR_COMPONENTS
    raw, roi = memory_raw(RNG.integers(0, 256, (9, 10, 11), dtype=np.uint8)), Roi((0, 1, 2), (9, 8, 7))
    plain = predictor(network, "none", task=task).probabilities(raw, roi)
    averaged = predictor(network, 16, task=task).probabilities(raw, roi)
    assert plain[3:].std(axis=(1, 2, 3)).min() > 0.05
    np.testing.assert_allclose(averaged, plain, rtol=0, atol=3e-7)


@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_no_cut_shows_in_the_mean_of_edges(data, memory_raw):
    """Of a network that is wrong in each view in its own way, so that a missing view would show."""
    offsets = data.draw(st.sampled_from([NEAREST, LONG, DIAGONAL]))
    stride = data.draw(st.sampled_from([(1, 1, 1), (2, 4, 4), (4, 4, 4)]))
    network = Wrong(offsets, stride)
    roi = Roi((-3, 5, 2), (9, 12, 10))
    raw = memory_raw(np.random.default_rng(1).integers(0, 256, roi.shape, dtype=np.uint8), roi.begin)
    setting = data.draw(st.sampled_from([8, 16]))
    whole = predictor(network, setting, AlignedTiling(network)).probabilities(raw, roi)
    begin = [data.draw(st.integers(b, e - 1)) for b, e in zip(roi.begin, roi.end, strict=True)]
    part = Roi(begin, [data.draw(st.integers(1, e - b)) for b, e in zip(begin, roi.end, strict=True)])
    tiling = AlignedTiling(network, data.draw(st.tuples(*[st.integers(2, 12)] * 3)))

    found = predictor(network, setting, tiling).probabilities(raw, part)

    place = (part - roi.begin).to_slices()
    np.testing.assert_allclose(found, whole[(slice(None), *place)], rtol=0, atol=1e-6)


class Wrong(Exact):
    """Gives way to what lies in one direction, and to the place within the stride."""

    def forward(self, raw):
        tilted = raw + 0.3 * torch.roll(raw, (1, 1, 1), (2, 3, 4)).clamp(-0.5, 0.5)
        # What is rolled round must not be seen: it is another voxel in each tile.
        tilted[:, :, 0], tilted[:, :, :, 0], tilted[:, :, :, :, 0] = (
            raw[:, :, 0],
            raw[:, :, :, 0],
            raw[..., 0],
        )
        logits = super().forward(tilted)
        for axis, stride in zip((2, 3, 4), self.stride, strict=True):
            phase = torch.arange(logits.shape[axis]) % stride
            logits = logits + 0.1 * phase.reshape([-1 if a == axis else 1 for a in range(5)])
        return logits

    def __init__(self, offsets, stride):
        super().__init__(offsets, stride)
        self.context_voxels = self.context_voxels + Coordinate(1, 1, 1)
        self.smallest_input = self.context_voxels * 2 + self.stride + Coordinate((1,) * 3)


def test_views_that_lack_a_channel_are_left_out_of_its_mean():
    network = Exact(((-1, 0, 0), (0, -1, -1)))
    found = views(8, network, edge_channels(network.offsets))
    assert len(found) == 8
    # Mirrored along y or x alone, the diagonal becomes one that nobody asked for.
    assert counts(found) == [8, 4]
    only_diagonal = Exact(((-1, -1, -1),))
    assert [view.mirrored for view in views(8, only_diagonal, edge_channels(only_diagonal.offsets))] == [
        (),
        (-3, -2, -1),
    ]


def test_signed_components_come_from_the_views_that_keep_their_sign():
    network = Exact(NEAREST, components=DESCRIPTOR_COMPONENTS)
    found = views(16, network, (*edge_channels(NEAREST), *DESCRIPTOR_COMPONENTS))
    assert counts(found) == [16] * 3 + [8] * 3 + [16] * 3 + [8] * 3 + [16]


def test_exchanged_views_need_edges_that_are_the_same_along_y_and_x():
    uneven = Exact(((-1, 0, 0), (0, -1, 0), (0, 0, -1), (0, -9, 0)))
    channels = edge_channels(uneven.offsets)
    assert len(views(8, uneven, channels)) == 8
    with pytest.raises(
        ConfigError, match=r"allowed: none or 8, since task\.offsets.* lacks \[0, 0, -9\]. Take 8"
    ):
        views(16, uneven, channels)


def test_the_margin_is_the_reach_of_edges_that_are_turned_round():
    network = Exact(LONG)
    assert margin(views("none", network, edge_channels(LONG))) == (Coordinate(0, 0, 0), Coordinate(0, 0, 0))
    assert margin(views(8, network, edge_channels(LONG))) == (Coordinate(2, 3, 3), Coordinate(0, 0, 0))
    assert margin(views(8, network, edge_channels(AFTER * 2))) == (Coordinate(0, 0, 0), Coordinate(1, 1, 1))
    both = ((-1, 0, 0), (1, 0, 0))
    assert margin(views(8, network, edge_channels(both))) == (Coordinate(0, 0, 0), Coordinate(0, 0, 0))
    assert margin(views(16, network)) == (Coordinate(0, 0, 0), Coordinate(0, 0, 0))


def test_the_published_tiling_has_no_margin_for_edges():
    network = Exact(NEAREST)
    tiling = PublishedTiling(network, Roi((0, 0, 0), (9, 9, 9)), (6, 6, 6), (4, 4, 4))
    predictor(network, "none", tiling)
    with pytest.raises(ConfigError, match=r"prediction\.tta is 8 or 16 with prediction\.tiling=published"):
        predictor(network, 8, tiling)


def test_planned_tiles_count_the_margin(network):
    about = (Coordinate(2, 3, 3), Coordinate(0, 0, 0))
    roi, device = Roi((0, 0, 0), (128, 128, 128)), Device("cpu", 4, 64 << 30)
    arguments = {"views": 8, "buffers": BlockBuffers(0, 0)}
    plain = Planner(network, device, roi, (64, 64, 64), **arguments).plan((64, 64, 64))
    wider = Planner(network, device, roi, (64, 64, 64), margin=about, **arguments).plan((64, 64, 64))
    assert wider.tile_shape == plain.tile_shape
    found = Predictor(network, "cpu", "fp32", tta=8, task=Affinities(NEAREST)).tiling
    assert (
        found.axis_tiles(0, 0, 8)[0].input_begin < AlignedTiling(network).axis_tiles(0, 0, 8)[0].input_begin
    )
    assert wider.voxels_read > plain.voxels_read
    assert wider.memory_bytes > plain.memory_bytes


def test_edges_are_what_channels_of_affinities_mean():
    assert Affinities(NEAREST).meanings == tuple(Edge(offset) for offset in NEAREST)
