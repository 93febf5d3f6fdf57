"""Neurites are dense, connected, exact and deterministic, and grey values alone do not separate them."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.measure import label
from skimage.metrics import adapted_rand_error
from skimage.segmentation import watershed

from incasem.errors import ConfigError
from incasem.phantom import NEURON_IDS, make_neurites

SHAPE = (64, 96, 104)


@pytest.fixture(scope="module")
def phantom():
    return make_neurites(SHAPE, seed=3)


@pytest.fixture(scope="module")
def ids(phantom):
    return phantom.labels[NEURON_IDS]


def test_equal_seeds_give_equal_bytes(phantom):
    assert make_neurites(SHAPE, seed=3).digest() == phantom.digest()
    assert make_neurites(SHAPE, seed=4).digest() != phantom.digest()


def test_another_process_with_other_thread_counts_gives_equal_bytes():
    code = "from incasem.phantom import make_neurites; print(make_neurites((24, 40, 32), 5).digest())"
    digests = {make_neurites((24, 40, 32), 5).digest()}
    for threads in ("1", "4"):
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        digests.add(done.stdout.strip())
    assert len(digests) == 1


@given(
    shape=st.tuples(*[st.integers(1, 24)] * 3),
    voxel_size=st.sampled_from([(10, 10, 10), (40, 5, 5), (8, 16, 16), (30.5, 7, 6)]),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=15, deadline=None)
def test_any_size(shape, voxel_size, seed):
    made = make_neurites(shape, seed, voxel_size)
    ids = made.labels[NEURON_IDS]
    assert made.raw_ZYX.shape == ids.shape == shape
    assert (made.raw_ZYX.dtype, ids.dtype) == (np.uint8, np.uint32)
    assert made.voxel_size == voxel_size
    # Dense, no gaps, and each id one connected piece.
    present = np.unique(ids)
    np.testing.assert_array_equal(present, np.arange(1, len(present) + 1))
    assert label(ids, connectivity=3).max() == len(present)


def test_the_image(phantom, ids):
    raw = phantom.raw_ZYX
    assert 100 < raw.mean() < 190
    assert 20 < raw.std() < 50
    assert np.isin(raw, (0, 255)).mean() < 0.01
    edge = np.zeros(SHAPE, bool)
    edge[:, :, 1:] |= ids[:, :, 1:] != ids[:, :, :-1]
    edge[:, 1:] |= ids[:, 1:] != ids[:, :-1]
    inside = ndimage.distance_transform_edt(~edge) > 4
    assert raw[edge].mean() < raw[inside].mean() - 20


def test_neurites_cross_the_volume_in_all_directions_and_calibres(ids):
    windows = ndimage.find_objects(ids.astype(np.int32))
    for axis in range(3):
        through = [w for w in windows if w[axis].stop - w[axis].start > 0.6 * SHAPE[axis]]
        assert len(through) >= 4
    sizes = np.bincount(ids.reshape(-1))[1:] / ids.size
    assert len(sizes) > 25
    assert sizes.max() < 0.35
    assert np.percentile(sizes, 90) > 10 * np.percentile(sizes, 10)


def test_thick_sections_smear_oblique_membranes():
    thick, thin = (make_neurites((16, 96, 96), 2, (v, 5, 5)) for v in (40, 5))
    # Fewer voxels are as dark as a membrane seen on edge.
    dark = [np.percentile(p.raw_ZYX, 50) - np.percentile(p.raw_ZYX, 3) for p in (thick, thin)]
    ids = thick.labels[NEURON_IDS]
    moved = [(a != b).mean() for a, b in ((ids[1:], ids[:-1]), (ids[:, 1:], ids[:, :-1]))]
    assert moved[0] > 3 * moved[1]
    assert dark[0] < dark[1]


def test_a_watershed_of_grey_values_does_not_solve_it(phantom, ids):
    smooth = ndimage.gaussian_filter(phantom.raw_ZYX.astype(np.float32), 1.5)
    minima = label(ndimage.minimum_filter(-smooth, 9) == -smooth)
    error = adapted_rand_error(ids, watershed(-smooth, minima))[0]
    assert error > 0.3
    # Membranes are there to be found: with one seed in the middle of each neurite most of it is right.
    depth = np.zeros(SHAPE, np.float32)
    for number, window in enumerate(ndimage.find_objects(ids.astype(np.int32)), start=1):
        depth[window] = np.where(
            ids[window] == number, ndimage.distance_transform_edt(ids[window] == number), depth[window]
        )
    seeds = np.where(depth > 0.6 * ndimage.maximum(depth, ids, np.arange(ids.max() + 1))[ids], ids, 0)
    assert adapted_rand_error(ids, watershed(-smooth, seeds))[0] < 0.25


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(((0, 8, 8), 1), "shape"), (((8, 8, 8), -1), "seed"), (((8, 8, 8), 1, (0, 1, 1)), "voxel size")],
)
def test_what_cannot_be_made(arguments, message):
    with pytest.raises(ConfigError, match=message):
        make_neurites(*arguments)
