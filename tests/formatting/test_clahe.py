import importlib.util
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.exposure import _adapthist

from incasem.errors import ConfigError, DataError
from incasem.formatting import clahe
from incasem.formatting.clahe import Clahe

ROOT = Path(__file__).parents[2]


def plain_clahe(*args, **kwargs):
    spec = importlib.util.spec_from_file_location("plain_clahe", ROOT / "benchmarks" / "plain_clahe.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.plain_clahe(*args, **kwargs)


def tissue(shape, dtype=np.uint8, seed=0):
    """Grey values with structure, empty regions and both extremes."""
    rng = np.random.default_rng(seed)
    top = np.iinfo(dtype).max
    grey = rng.normal(0.45, 0.12, shape) + 0.2 * np.sin(np.arange(shape[2]) / 5)
    grey[rng.random(shape) < 0.01] = 1
    grey[: shape[0] // 3, : shape[1] // 2] = 0
    return (np.clip(grey, 0, 1) * top).astype(dtype)


def whole(volume, kernel, clip_limit):
    """The volume as one block."""
    return in_blocks(volume, volume.shape, volume.shape, kernel, clip_limit)


def in_blocks(volume, count_shape, write_shape, kernel, clip_limit):
    """Count in blocks of one shape, equalise in blocks of another."""
    s = Clahe(kernel, clip_limit)
    tiles = [s.tiles_counted(0, n) for n in volume.shape]
    counts = np.zeros((*(len(t) for t in tiles), clahe.BINS), np.int64)
    for begin, region in blocks(volume.shape, count_shape):
        part = volume[region]
        at = tuple(
            slice(t.start, t.stop)
            for t in (s.tiles_counted(b, b + n) for b, n in zip(begin, part.shape, strict=True))
        )
        counts[at] += clahe.count_block(part, begin, s)
    out = np.empty_like(volume)
    maps = clahe.maps_of_tiles(counts, s)
    for begin, region in blocks(volume.shape, write_shape):
        part = volume[region]
        at = [
            np.minimum(np.asarray(s.tiles_mixed(b, b + n)), len(t) - 1)
            for b, n, t in zip(begin, part.shape, tiles, strict=True)
        ]
        out[region] = clahe.equalize_block(part, begin, maps[np.ix_(*at)], s)
    return out


def blocks(shape, block_shape):
    for position in np.ndindex(*(-(-n // b) for n, b in zip(shape, block_shape, strict=True))):
        begin = [p * b for p, b in zip(position, block_shape, strict=True)]
        yield begin, tuple(slice(p, p + b) for p, b in zip(begin, block_shape, strict=True))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(("kernel", "clip_limit"), [(16, 0.02), (16, 0.3), (15, 0.05), (64, 0.02), (8, 1.0)])
def test_equals_the_plain_whole_volume_version(dtype, kernel, clip_limit):
    volume = tissue((37, 50, 61), dtype)
    ours, plain = whole(volume, kernel, clip_limit), plain_clahe(volume, kernel, clip_limit)
    # Both truncate twice; where a sum is a whole level but for the last bit of a float they part.
    unit = 1 if dtype == np.uint8 else 5
    assert np.abs(ours.astype(int) - plain).max() <= unit
    assert (ours != plain).mean() < 0.02


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 40)] * 3),
    count_shape=st.tuples(*[st.integers(3, 40)] * 3),
    write_shape=st.tuples(*[st.integers(3, 40)] * 3),
    kernel=st.integers(8, 20),
    clip_limit=st.floats(0.005, 1),
    seed=st.integers(0, 100),
)
def test_any_blocks_give_the_same_bytes(shape, count_shape, write_shape, kernel, clip_limit, seed):
    volume = tissue(shape, seed=seed)
    cut = in_blocks(volume, count_shape, write_shape, kernel, clip_limit)
    np.testing.assert_array_equal(cut, whole(volume, kernel, clip_limit))


@settings(max_examples=300, deadline=None)
@given(
    counts=st.lists(st.integers(0, 3000), min_size=256, max_size=256),
    empty=st.floats(0, 1),
    limit=st.integers(1, 3000),
    seed=st.integers(0, 1000),
)
def test_clipping_is_that_of_scikit_image(counts, empty, limit, seed):
    histogram = np.array(counts) * (np.random.default_rng(seed).random(256) > empty)
    expected = _adapthist.clip_histogram(histogram.copy(), limit)
    np.testing.assert_array_equal(clahe.clip_histogram(histogram, limit), expected)


def test_bins_follow_the_definition():
    greys = np.arange(256)
    expected = [round(int(v) * 16383 / 255) // 65 for v in greys]
    np.testing.assert_array_equal(clahe.bins_of_greys(np.dtype(np.uint8)), expected)
    assert clahe.bins_of_greys(np.dtype(np.uint16)).max() == 252


def test_far_from_the_border_it_equals_scikit_image():
    kernel, volume = 16, tissue((96, 96, 96), seed=3)
    # Its tiles begin at the array's first voxel, ours half a tile before the volume's.
    shifted = volume[(slice(kernel // 2, None),) * 3]
    levels = np.rint(shifted.astype(float) * 16383 / 255).astype(np.uint16)
    theirs = _adapthist._clahe(levels, [kernel] * 3, 0.05, 256).astype(int) * 255 // 16383
    ours = whole(volume, kernel, 0.05)[(slice(kernel // 2, None),) * 3].astype(int)
    inner = (slice(kernel, -kernel),) * 3
    assert np.abs(ours - theirs)[inner].max() <= 1
    assert (ours == theirs)[inner].mean() > 0.99


def test_sixteen_bits_stay_sixteen_bits():
    volume = tissue((40, 40, 40), np.uint16)
    out = whole(volume, 16, 0.05)
    assert out.dtype == np.uint16
    assert out.max() > 60000
    assert len(np.unique(out)) > 1000


@pytest.mark.parametrize(
    ("kwargs", "named"),
    [
        ({"kernel": 7}, "kernel_size is 7"),
        ({"kernel": 4096}, "kernel_size"),
        ({"clip_limit": 0}, "clip_limit is 0"),
        ({"clip_limit": 1.5}, "clip_limit"),
    ],
)
def test_settings_out_of_range(kwargs, named):
    with pytest.raises(ConfigError, match=named):
        Clahe(**kwargs)


def test_other_dtypes_are_refused():
    with pytest.raises(DataError, match=r"volumes/raw is float32; allowed: uint8, uint16"):
        clahe.check_dtype(np.dtype(np.float32), "volumes/raw")
