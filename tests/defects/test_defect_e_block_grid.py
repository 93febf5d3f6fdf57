"""E: probabilities changed by up to 0.19 with the place of the blocks, and by the order of the workers."""

import numpy as np
import pytest
import torch

from incasem.geometry import Coordinate, Roi
from incasem.prediction import Predictor
from incasem.prediction.tiling import AlignedTiling, PublishedTiling
from tests.defects.conftest import make_network, store

ROI = Roi((4, 6, 1), (40, 38, 42))


@pytest.fixture
def network():
    network = make_network()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(2)  # far from even probabilities
    return network


@pytest.fixture
def raw(tmp_path):
    grey = np.random.default_rng(0).integers(0, 256, (48, 48, 48)).astype(np.uint8)
    return store(tmp_path / "cell.zarr/raw", grey)


def probabilities(network, raw, roi, tiling=None):
    return Predictor(network, precision="fp32", tiling=tiling).probabilities(raw, roi)


def test_probabilities_do_not_depend_on_where_blocks_and_tiles_lie(network, raw):
    whole = probabilities(network, raw, ROI)
    for size in (6, 10):
        tiled = probabilities(network, raw, ROI, AlignedTiling(network, Coordinate((size,) * 3)))
        np.testing.assert_allclose(tiled, whole, atol=1e-5)
    for cut in (7, 18):
        left, right = Roi(ROI.begin, (40, 38, cut)), Roi((4, 6, 1 + cut), (40, 38, 42 - cut))
        parts = [probabilities(network, raw, part) for part in (left, right)]
        np.testing.assert_allclose(np.concatenate(parts, axis=3), whole, atol=1e-5)


def test_tiles_of_the_published_size_do_depend_on_it(network, raw):
    """So the test above could fail: tiles that begin anywhere have another phase of pooling."""
    context = network.context_voxels
    inner = tuple(slice(c, s - c) for c, s in zip(context, ROI.shape, strict=True))
    published = PublishedTiling(network, ROI, network.input_shape_for((6, 6, 6)), (6, 6, 6))
    tiled = probabilities(network, raw, ROI, published)[(1, *inner)]
    assert np.abs(tiled - probabilities(network, raw, ROI)[(1, *inner)]).max() > 0.02
