"""J: the seed had no effect on the batches, since loading processes took theirs from the system."""

import numpy as np

from incasem.training.feed import SampleFeed
from tests.training.cells import cell, small_config


def samples(entry, workers, seed):
    config = small_config(f"training.precache.num_workers={workers}")
    sizes = (config.training.input_size_voxels, config.training.output_size_voxels)
    feed = SampleFeed([entry], config, *sizes, seed=seed, numbers=range(3), num_samples=3)
    with feed:
        return [batch.raw.numpy() for batch in feed.batches(1)]


def test_equal_seeds_are_equal_batches_in_any_number_of_processes(tmp_path):
    entry = cell(tmp_path)
    first, again, other = samples(entry, 0, seed=1), samples(entry, 2, seed=1), samples(entry, 0, seed=2)
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, two)
    assert any((one != two).any() for one, two in zip(first, other, strict=True))
