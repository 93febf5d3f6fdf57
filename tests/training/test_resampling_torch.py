"""The resampling pass in torch, on the processor, against the compiled one."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from incasem.config.augmentation import Augmentation
from incasem.errors import ConfigError
from incasem.geometry import Coordinate, Roi
from incasem.training import feed as feed_module
from incasem.training import resampling, resampling_torch
from incasem.training.deformation import draw_deformation
from incasem.training.feed import _resampling_device
from incasem.training.pipeline import build_pipeline
from tests.training.cells import cell, small_config
from tests.training.test_pipeline import Samples, same

CPU = torch.device("cpu")
EVERY_GEOMETRY = Augmentation.model_validate(
    {
        "rotation": {"probability": 0.5, "degrees_x": (-20, 20)},
        "scaling": {"probability": 0.5},
        "shifted_sections": {"probability": 0.1},
    }
)


@given(
    st.tuples(*(st.integers(1, 20) for _ in range(3))),
    st.sampled_from([np.uint8, np.uint16, np.float32]),
    st.integers(0, 1000),
    st.sampled_from([1, 100, 2**22]),
    st.data(),
)
@settings(deadline=None, max_examples=60)
def test_torch_and_compiled_resampling_agree(shape, dtype, seed, at_once, data):
    rng = np.random.default_rng(seed)
    drawn = draw_deformation(Coordinate(shape), EVERY_GEOMETRY, rng)
    begin = Coordinate(data.draw(st.integers(0, size - 1)) for size in shape)
    part = Coordinate(data.draw(st.integers(1, size - b)) for b, size in zip(begin, shape, strict=True))
    source_roi = drawn.source_roi(Roi(begin, part))
    ((_, field),) = drawn.pieces(Roi(begin, part), source_roi.begin)
    source = (rng.random(tuple(source_roi.shape)) * (1 if dtype == np.float32 else 255)).astype(dtype)
    place = (Coordinate(0, 0, 0), begin, part)
    expected = resampling.resample_linear(source, field, *place)
    nearest = resampling.nearest_voxels(source.shape, field, *place)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resampling_torch, "VOXELS_AT_ONCE", at_once)
        found = resampling_torch.resample_linear(source, field, *place, device=CPU)
        found_nearest = resampling_torch.nearest_voxels(source.shape, field, *place, device=CPU)
    full_scale = 1 if dtype == np.float32 else 255
    np.testing.assert_allclose(found, expected, atol=1e-5 * full_scale)
    np.testing.assert_array_equal(found_nearest, nearest)
    assert (found.dtype, found_nearest.dtype) == (expected.dtype, nearest.dtype)


def test_whole_samples_are_the_same_but_for_rounding(tmp_path):
    entry = cell(tmp_path)
    expected, found = Samples([entry]), Samples([entry])
    indices = [feed_module.index_entry(source) for source in found.sources]
    found.pipeline = build_pipeline(found.sources, indices, small_config(), CPU)
    found.pipeline.setup()
    for number in range(4):
        ours, theirs = expected[number], found[number]
        np.testing.assert_allclose(theirs.pop("RAW"), ours.pop("RAW"), atol=1e-5)
        assert same(ours, theirs)


def test_the_gpu_is_that_of_the_network():
    gpu, third = "training.augmentation.device=gpu", torch.device("cuda", 3)
    assert _resampling_device(small_config("torch.device=3"), third) is None
    assert _resampling_device(small_config(gpu, "torch.device=3"), third) == third
    # In a training of several processes each has a GPU of its own, whatever the setting says.
    assert _resampling_device(small_config(gpu, "torch.device=0"), third) == third
    with pytest.raises(ConfigError, match=r"training\.augmentation\.device.*torch\.device=cpu"):
        _resampling_device(small_config(gpu, "torch.device=cpu"), CPU)


def test_the_published_device_number_works_without_any_gpu():
    assert _resampling_device(small_config("training.augmentation.device=gpu", "torch.device=0"), CPU) is None
