import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from incasem.errors import ConfigError
from incasem.geometry import Roi
from incasem.networks import OneConv3d
from incasem.prediction import AlignedTiling, Predictor
from incasem.prediction.symmetries import views
from incasem.tasks.semantic_decoding import decode

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def cubic(make_network):
    """A network that treats all axes alike and emits a few voxels beyond its stride."""
    network = make_network(num_fmaps=2, downsample_factors=((2, 2, 2),) * 2)
    assert network.output_shape(network.smallest_input)[0] % network.stride[0] != 0
    return network


def test_views_are_different_and_can_be_turned_back(cubic):
    array = torch.arange(2 * 3 * 4 * 4).reshape(2, 3, 4, 4)
    for setting, count in (("none", 1), (8, 8), (16, 16)):
        found = views(setting, cubic)
        assert len({tuple(view.of(array).flatten().tolist()) for view in found}) == count
        assert all(torch.equal(view.back(view.of(array)), array) for view in found)
        assert torch.equal(found[0].of(array), array)


def test_y_and_x_are_exchanged_only_where_the_network_treats_them_alike(make_network):
    uneven = make_network(downsample_factors=((1, 1, 2),))
    assert len(views(8, uneven)) == 8
    with pytest.raises(ConfigError, match=r"prediction.tta is 16; allowed: none or 8"):
        views(16, uneven)


def symmetrical(network):
    """Make all filters of one convolution symmetrical under every view."""
    with torch.no_grad():
        weight = network.layer.weight
        mean = sum(view.of(weight) for view in views(16, network)) / 16
        weight.copy_(mean * 20)
    return network


@pytest.mark.parametrize("setting", [8, 16])
def test_a_network_with_the_symmetries_gives_the_same_with_and_without(memory_raw, setting):
    torch.manual_seed(0)
    network = symmetrical(OneConv3d(num_fmaps_out=3))
    raw, roi = memory_raw(RNG.integers(0, 256, (12, 14, 16), dtype=np.uint8)), Roi((1, 0, 3), (9, 14, 10))
    plain = Predictor(network, "cpu", "fp32").probabilities(raw, roi)
    averaged = Predictor(network, "cpu", "fp32", tta=setting).probabilities(raw, roi)

    assert plain.std() > 0.05
    np.testing.assert_allclose(averaged, plain, rtol=0, atol=1e-6)


def test_the_mean_is_that_of_the_probabilities_of_all_views(cubic, memory_raw, reference):
    """Written out: predict every mirror image of the whole volume, turn back, average."""
    size = cubic.input_shape_for((8, 8, 8))
    emitted = cubic.output_shape(size)
    array = RNG.integers(0, 256, size, dtype=np.uint8)
    # Where the output of the whole volume begins on the stride grid, one tile takes exactly the volume.
    raw, roi = memory_raw(array, -cubic.context_voxels), Roi((0, 0, 0), emitted)
    expected = np.zeros((2, *emitted))
    for exchanged in (False, True):
        for mirrored in np.ndindex(2, 2, 2):
            axes = [axis for axis in range(3) if mirrored[axis]]
            seen = np.flip(array.swapaxes(1, 2) if exchanged else array, axes)
            values = torch.from_numpy(seen / np.float32(255) * 2 - 1)[None, None].float()
            with torch.no_grad():
                found = cubic(values).softmax(dim=1)[0].numpy()
            found = np.flip(found, [axis + 1 for axis in axes])
            expected += found.swapaxes(2, 3) if exchanged else found

    averaged = Predictor(cubic, "cpu", "fp32", tta=16).probabilities(raw, roi)
    np.testing.assert_allclose(averaged, expected / 16, rtol=0, atol=1e-6)


@settings(deadline=None, max_examples=8)
@given(data=st.data())
def test_no_cut_shows_in_the_mean(data, cubic, memory_raw):
    roi = Roi((-3, 5, 2), (14, 17, 13))
    raw = memory_raw(np.random.default_rng(1).integers(0, 256, roi.shape, dtype=np.uint8), roi.begin)
    setting = data.draw(st.sampled_from([8, 16]))
    whole = Predictor(cubic, "cpu", "fp32", tta=setting).probabilities(raw, roi)
    begin = [data.draw(st.integers(b, e - 1)) for b, e in zip(roi.begin, roi.end, strict=True)]
    part = Roi(begin, [data.draw(st.integers(1, e - b)) for b, e in zip(begin, roi.end, strict=True)])
    tiling = AlignedTiling(cubic, data.draw(st.tuples(*[st.integers(4, 16)] * 3)))

    found = Predictor(cubic, "cpu", "fp32", tiling=tiling, tta=setting).probabilities(raw, part)

    place = (part - roi.begin).to_slices()
    np.testing.assert_allclose(found, whole[(slice(None), *place)], rtol=0, atol=1e-6)


def test_the_segmentation_is_the_class_of_the_largest_mean(cubic, memory_raw):
    raw, roi = memory_raw(RNG.integers(0, 256, (20, 20, 20), dtype=np.uint8)), Roi((2, 3, 4), (12, 9, 10))
    predictor = Predictor(cubic, "cpu", "fp32", tta=8)
    mean = predictor.probabilities(raw, roi)
    ((_, logits),) = predictor.pieces(raw, roi)
    decoded = decode(logits, "float32")

    np.testing.assert_allclose(decoded["prob_maps/class_1"], mean[1], atol=1e-6)
    clear = np.abs(mean[0] - mean[1]) > 1e-6
    np.testing.assert_array_equal(decoded["segmentation"][clear], mean.argmax(axis=0)[clear])
