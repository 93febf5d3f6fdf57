"""The phantom is deterministic, its labels are exact, and it is no mere threshold."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from incasem.errors import ConfigError
from incasem.phantom import CLASSES, make_phantom

TOUCHING = np.ones((3, 3, 3), dtype=bool)


@pytest.fixture(scope="module")
def phantom():
    return make_phantom((96, 128, 112), seed=3)


def test_equal_seeds_give_equal_bytes(phantom):
    again = make_phantom((96, 128, 112), seed=3)
    assert again.digest() == phantom.digest()
    assert make_phantom((96, 128, 112), seed=4).digest() != phantom.digest()


def test_another_process_with_other_thread_counts_gives_equal_bytes():
    code = "from incasem.phantom import make_phantom; print(make_phantom((40, 48, 56), 5).digest())"
    digests = set()
    for threads in ("1", "4"):
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        digests.add(done.stdout.strip())
    assert digests == {make_phantom((40, 48, 56), 5).digest()}


def test_types_and_ranges(phantom):
    raw = phantom.raw_ZYX
    assert raw.dtype == np.uint8
    assert set(phantom.labels) == set(CLASSES)
    assert phantom.voxel_size == (5.0, 5.0, 5.0)
    for labels in phantom.labels.values():
        assert labels.dtype == np.uint32
        assert labels.shape == raw.shape
    assert 90 < raw.mean() < 180
    assert 25 < raw.std() < 60
    saturated = np.isin(raw, (0, 255)).mean()
    assert saturated < 0.01
    assert set(np.unique(phantom.semantic("mito"))) == {0, 1}
    assert (phantom.semantic("mito") == (phantom.labels["mito"] > 0)).all()


def test_no_voxel_is_in_two_classes(phantom):
    claims = sum((phantom.labels[name] > 0).astype(int) for name in CLASSES)
    assert claims.max() == 1


@pytest.mark.parametrize("seed", range(3))
def test_every_instance_is_one_piece_and_ids_have_no_gaps(seed):
    made = make_phantom((72, 80, 96), seed)
    for name, labels in made.labels.items():
        count = int(labels.max())
        assert set(np.unique(labels)) == set(range(count + 1)) | {0}
        for number, window in enumerate(ndimage.find_objects(labels.astype(np.int32)), start=1):
            _, pieces = ndimage.label(labels[window] == number, structure=TOUCHING)
            assert pieces == 1, f"{name} {number} has {pieces} pieces"


def test_mitochondria_keep_a_gap(phantom):
    mito = phantom.labels["mito"]
    assert mito.max() >= 2
    largest = ndimage.maximum_filter(mito, 3)
    smallest = -ndimage.maximum_filter(np.where(mito > 0, -mito.astype(np.int64), -(2**40)), 3)
    assert (smallest[mito > 0] == largest[mito > 0]).all()


def test_labels_fit_the_image(phantom):
    """The border of a mitochondrion is a dark membrane, slice by slice (so drift moves both alike)."""
    mito = phantom.labels["mito"] > 0
    raw = phantom.raw_ZYX.astype(float)
    slices = [z for z in range(len(mito)) if mito[z].sum() > 400]
    assert slices
    for z in slices:
        rim = mito[z] & ~ndimage.binary_erosion(mito[z], iterations=2, border_value=1)
        around = ndimage.binary_dilation(mito[z], iterations=6) & ~ndimage.binary_dilation(
            mito[z], iterations=3
        )
        assert raw[z][rim].mean() < raw[z][around].mean() - 15


def test_er_has_a_dark_membrane_and_a_light_lumen(phantom):
    er = phantom.labels["er"] > 0
    deep = ndimage.distance_transform_edt(er)
    raw = phantom.raw_ZYX.astype(float)
    assert raw[deep > 4].mean() > raw[er & (deep < 2.5)].mean() + 30


def test_envelope_has_pores():
    made = make_phantom((128, 128, 128), seed=1)
    envelope, pores = made.labels["ne"] > 0, made.labels["np"]
    assert envelope.any()
    assert pores.max() >= 1
    beside = ndimage.binary_dilation(pores > 0, iterations=2) & envelope
    assert beside.any()


@pytest.mark.parametrize("seed", range(12))
def test_64_voxels_hold_a_mitochondrion_and_er(seed):
    made = make_phantom((64, 64, 64), seed)
    sizes = np.bincount(made.labels["mito"].reshape(-1))[1:]
    assert sizes.max() > 2000
    assert (made.labels["er"] > 0).sum() > 500


def test_no_mitochondria_when_none_are_asked_for():
    made = make_phantom((48, 48, 48), 0, mito_fraction=0.0)
    assert made.labels["mito"].max() == 0
    assert make_phantom((48, 48, 48), 0).labels["mito"].max() > 0


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 40)] * 3),
    seed=st.integers(0, 2**63),
    voxel_size=st.sampled_from([(5, 5, 5), (10, 10, 10), (40.0, 5.9, 5.9), (2.5, 5.0, 8.0)]),
)
def test_any_size(shape, seed, voxel_size):
    made = make_phantom(shape, seed, voxel_size)
    assert made.raw_ZYX.shape == shape
    assert all(labels.shape == shape for labels in made.labels.values())
    assert sum((labels > 0).astype(int) for labels in made.labels.values()).max() <= 1


def test_organelles_keep_their_size_in_nm():
    coarse = make_phantom((64, 64, 64), 2, (10, 10, 10))
    fine = make_phantom((128, 128, 128), 2, (5, 5, 5))
    fractions = [(p.labels["mito"] > 0).mean() for p in (coarse, fine)]
    assert abs(fractions[0] - fractions[1]) < 0.06
    assert all(0.05 < f < 0.25 for f in fractions)


def test_a_threshold_does_not_find_the_mitochondria():
    made = make_phantom((96, 128, 128), seed=0)
    truth = made.labels["mito"] > 0
    best = 0.0
    for sigma in (0, 2, 4, 7):
        smooth = ndimage.gaussian_filter(made.raw_ZYX.astype(np.float32), sigma)
        for threshold in np.percentile(smooth, np.arange(4, 50, 3)):
            found = smooth < threshold
            best = max(best, 2 * (found & truth).sum() / (found.sum() + truth.sum()))
    assert 0.3 < best < 0.72, best


def test_slices_drift_and_change_brightness():
    made = make_phantom((64, 96, 96), seed=7)
    means = made.raw_ZYX.reshape(64, -1).mean(axis=1)
    assert means.std() > 2
    shifts = []
    for above, below in zip(made.raw_ZYX[::8], made.raw_ZYX[4::8], strict=True):
        correlation = np.fft.ifft2(
            np.fft.fft2(above - above.mean()) * np.conj(np.fft.fft2(below - below.mean()))
        ).real
        shifts.append(np.unravel_index(int(np.argmax(correlation)), correlation.shape))
    assert any(shift != (0, 0) for shift in shifts)


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (((0, 8, 8), 0), "shape"),
        (((8, 8), 0), "shape"),
        (((8, 8, 8), -1), "seed"),
        (((8, 8, 8), 0, (5, 0, 5)), "voxel size"),
        (((8, 8, 8), 0, (5, float("nan"), 5)), "voxel size"),
    ],
)
def test_impossible_arguments(arguments, names):
    with pytest.raises(ConfigError, match=f"{names} of the phantom is .*; allowed: "):
        make_phantom(*arguments)


def test_impossible_fraction():
    with pytest.raises(ConfigError, match="mito_fraction"):
        make_phantom((8, 8, 8), 0, mito_fraction=0.9)
