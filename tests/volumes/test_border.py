import numpy as np
import pytest

from incasem.volumes.border import read_reflected, reflect_indices


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_indices_equal_numpy_pad(size):
    expected = np.pad(np.arange(size), 30, mode="reflect")
    np.testing.assert_array_equal(reflect_indices(-30, size + 30, size), expected)


def test_only_the_elements_that_occur_are_read_and_once():
    array = np.arange(100).reshape(10, 10)
    asked = []

    def read(index):
        asked.append(index)
        return array[index]

    result = read_reflected(read, (slice(-2, 3), slice(4, 6)), array.shape)
    np.testing.assert_array_equal(result, np.pad(array, 2, mode="reflect")[:5, 6:8])
    assert asked == [(slice(0, 3), slice(4, 6))]


def test_an_empty_region_gives_an_empty_array():
    array = np.zeros((4, 4))
    assert read_reflected(lambda index: array[index], (slice(2, 2), slice(-1, 3)), array.shape).shape == (
        0,
        4,
    )
