import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from incasem.errors import ConfigError, DataError
from incasem.geometry import Coordinate
from incasem.tasks.descriptors import (
    context_voxels,
    default_downsample,
    local_shape_descriptors,
)


def plain(labels, sigma, cell=(1, 1, 1)):
    """The definition, voxel by voxel: Gaussian sums over the cells of the voxel's own object."""
    result = np.zeros((10, *labels.shape))
    sigma, cell = np.array(sigma, float), np.array(cell)
    cells = -(-np.array(labels.shape) // cell)
    places = [np.arange(n) for n in cells]
    gauss = []
    for axis in range(3):
        of_cells = sigma[axis] / cell[axis]
        whole = np.arange(-100, 101)
        kernel = np.where(abs(whole) <= 3 * of_cells, np.exp(-0.5 * (whole / of_cells) ** 2), 0)
        gauss.append(dict(zip(whole, kernel / kernel.sum(), strict=True)))
    for own in set(labels.flatten().tolist()) - {0}:
        share = np.zeros(cells)
        for at in zip(*np.nonzero(labels == own), strict=True):
            share[tuple(np.array(at) // cell)] += 1 / cell.prod()
        for at in zip(*np.nonzero(labels == own), strict=True):
            middle = np.array(at) // cell
            along = [
                np.array([gauss[axis][int(place - middle[axis])] for place in places[axis]])
                for axis in range(3)
            ]
            weight = share * along[0][:, None, None] * along[1][None, :, None] * along[2][None, None, :]
            total = weight.sum()
            offsets = np.stack(np.meshgrid(*places, indexing="ij")).reshape(3, -1).T - middle
            offsets = offsets * cell / sigma  # in sigma
            mean = (weight.reshape(-1, 1) * offsets).sum(0) / total
            centred = offsets - mean
            covariance = (weight.reshape(-1, 1, 1) * centred[:, :, None] * centred[:, None, :]).sum(0) / total
            rest = ((middle + 0.5) * cell - np.array(at) - 0.5) / sigma
            least = np.maximum(np.diag(covariance), 1e-3 / sigma**2)
            correlation = [
                covariance[a, b] / np.sqrt(least[a] * least[b]) for a, b in ((0, 1), (0, 2), (1, 2))
            ]
            result[(slice(None), *at)] = [
                *((mean + rest - covariance @ rest) / 2 + 0.5),
                *np.diag(covariance),
                *(np.array(correlation) / 2 + 0.5),
                total * (1 - mean @ rest),
            ]
    return result.clip(0, 1)


@settings(deadline=None, max_examples=60)
@given(
    labels=st.tuples(*[st.integers(1, 6)] * 3).flatmap(
        lambda shape: hnp.arrays(np.int64, shape, elements=st.sampled_from([0, 3, 2**40, 2**62]))
    ),
    sigma=st.tuples(*[st.floats(0.4, 5)] * 3),
    cell=st.tuples(*[st.integers(1, 3)] * 3),
)
def test_descriptors_are_those_of_the_definition(labels, sigma, cell):
    found = local_shape_descriptors(labels, sigma, cell)
    assert found.dtype == np.float32
    # Correlations of next to nothing are next to nothing over next to nothing.
    np.testing.assert_allclose(found, plain(labels, sigma, cell), atol=2e-3)
    exact = [0, 1, 2, 3, 4, 5, 9]
    np.testing.assert_allclose(found[exact], plain(labels, sigma, cell)[exact], atol=2e-5)


def blobs(shape=(40, 40, 40), objects=12):
    """Compact objects that touch, with background between some."""
    rng = np.random.default_rng(0)
    centres = rng.random((objects, 3)) * shape
    places = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1)
    distances = np.linalg.norm(places[..., None, :] - centres, axis=-1)
    labels = distances.argmin(-1) + 1
    labels[distances.min(-1) > 12] = 0
    return labels


def test_cells_change_little():
    labels = blobs()
    exact = local_shape_descriptors(labels, (6, 6, 6), (1, 1, 1))
    coarse = local_shape_descriptors(labels, (6, 6, 6), (2, 2, 2))
    error = np.abs(exact - coarse)[:, labels != 0]
    assert error[[0, 1, 2, 9]].max() < 0.02
    assert error.mean(axis=1).max() < 0.02


def test_with_their_context_descriptors_do_not_depend_on_the_cut():
    labels, sigma = blobs(), (2.0, 3.0, 2.5)
    about = context_voxels(sigma)
    assert about == Coordinate(6, 9, 8)
    begin, end = Coordinate(8, 10, 9), Coordinate(20, 24, 30)
    place = tuple(slice(b - c, e + c) for b, e, c in zip(begin, end, about, strict=True))
    part = local_shape_descriptors(labels[place], sigma, (1, 1, 1), context=about)
    inner = (slice(None), *(slice(b, e) for b, e in zip(begin, end, strict=True)))
    np.testing.assert_allclose(part, local_shape_descriptors(labels, sigma, (1, 1, 1))[inner], atol=1e-5)


@pytest.mark.parametrize("cell", [(1, 1, 1), (2, 3, 2), (1, 4, 4)])
def test_context_is_only_left_out(cell):
    labels, sigma = blobs((17, 21, 19)), (3.0, 5.0, 4.0)
    whole = local_shape_descriptors(labels, sigma, cell)
    inner = local_shape_descriptors(labels, sigma, cell, context=(2, 5, 3))
    np.testing.assert_array_equal(inner, whole[:, 2:-2, 5:-5, 3:-3])


def test_a_ball_is_the_same_from_all_sides_in_its_middle():
    places = np.stack(np.meshgrid(*[np.arange(-9, 10)] * 3, indexing="ij"))
    ball = (np.linalg.norm(places, axis=0) < 8).astype(np.uint8)
    middle = local_shape_descriptors(ball, (4, 4, 4), (1, 1, 1))[:, 9, 9, 9]
    np.testing.assert_allclose(middle[[0, 1, 2, 6, 7, 8]], 0.5, atol=1e-6)
    np.testing.assert_allclose(middle[3:6], middle[3], atol=1e-6)
    assert 0.3 < middle[3] < 1
    assert 0.5 < middle[9] < 1


def test_the_offset_points_into_the_object():
    slab = np.zeros((5, 5, 30), np.uint32)
    slab[..., 5:25] = 7
    offset_x = local_shape_descriptors(slab, (3, 3, 3), (1, 1, 1))[2, 2, 2]
    assert offset_x[5] > 0.6
    assert offset_x[24] < 0.4
    assert offset_x[14:16].mean() == pytest.approx(0.5, abs=1e-3)
    assert not offset_x[:5].any()


def test_all_background_and_one_object_over_everything():
    assert not local_shape_descriptors(np.zeros((3, 4, 5), np.uint64), (2, 2, 2)).any()
    everything = local_shape_descriptors(np.full((30, 30, 30), 2**63, np.uint64), (2, 2, 2), (1, 1, 1))
    np.testing.assert_allclose(everything[:3, 15, 15, 15], 0.5, atol=1e-5)
    assert everything[9, 15, 15, 15] == pytest.approx(1, abs=1e-5)
    assert local_shape_descriptors(np.ones((4, 4, 4), np.uint8), (2, 2, 2), context=(2, 2, 2)).size == 0


def test_cells_leave_four_to_a_sigma():
    assert default_downsample((8.0, 2.0, 17.0)) == Coordinate(2, 1, 4)


def test_bad_input_is_refused():
    with pytest.raises(DataError, match="an object id is -1"):
        local_shape_descriptors(np.full((1, 1, 1), -1), (1, 1, 1))
    with pytest.raises(ConfigError, match=r"task\.descriptor_sigma_nm"):
        local_shape_descriptors(np.ones((1, 1, 1), np.uint8), (1, 0, 1))
