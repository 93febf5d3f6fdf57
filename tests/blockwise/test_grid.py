import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from incasem.blockwise import Block, Grid, default_block_shape
from incasem.errors import DataError
from incasem.geometry import Coordinate, Roi, grow

triples = st.tuples(*[st.integers(1, 12)] * 3)
offsets = st.tuples(*[st.integers(-50, 50)] * 3)
contexts = st.tuples(*[st.integers(0, 9)] * 3)


@given(offsets, triples, triples, contexts)
def test_blocks_tile_the_region_exactly_once(begin, shape, block_shape, context):
    grid = Grid(Roi(begin, shape), Coordinate(block_shape), Coordinate(context))
    written = np.zeros(shape, int)
    for expected_index, block in enumerate(grid.blocks()):
        assert block.index == expected_index
        assert grid.total_roi.contains(block.write_roi)
        assert block.read_roi == grow(block.write_roi, context)
        assert grid.index_at(block.write_roi.begin) == block.index
        assert grid.block(block.index) == block
        assert grid.voxels().flat[block.index] == math.prod(block.write_roi.shape)
        written[(block.write_roi - Coordinate(begin)).to_slices()] += 1
    assert len(grid) == math.prod(grid.shape) == expected_index + 1
    assert (written == 1).all()


@given(offsets, triples, triples, triples)
def test_a_block_of_whole_chunks_shares_no_chunk(begin, shape, chunk, chunks_per_block):
    block_shape = Coordinate(chunk) * Coordinate(chunks_per_block)
    owner = {}
    for block in Grid(Roi(begin, shape), block_shape, Coordinate((0, 0, 0))).blocks():
        first = [(b - o) // c for b, o, c in zip(block.write_roi.begin, begin, chunk, strict=True)]
        last = [(e - 1 - o) // c for e, o, c in zip(block.write_roi.end, begin, chunk, strict=True)]
        for key in np.ndindex(*[e - b + 1 for b, e in zip(first, last, strict=True)]):
            place = tuple(k + f for k, f in zip(key, first, strict=True))
            assert owner.setdefault(place, block.index) == block.index


def test_a_volume_smaller_than_a_block_is_one_clipped_block():
    grid = Grid(Roi((5, 6, 7), (3, 1, 2)), Coordinate((64, 64, 64)), Coordinate((2, 2, 2)))
    (block,) = grid.blocks()
    assert block == Block(0, grid)
    assert block.write_roi == Roi((5, 6, 7), (3, 1, 2))
    assert block.read_roi == Roi((3, 4, 5), (7, 5, 6))


@pytest.mark.parametrize(
    ("roi", "block_shape", "context", "message"),
    [
        (Roi((0, 0, 0), (4, 0, 4)), (2, 2, 2), (0, 0, 0), "at least one voxel"),
        (Roi((0, 0, 0), (4, 4, 4)), (2, 0, 2), (0, 0, 0), "block shape"),
        (Roi((0, 0, 0), (4, 4, 4)), (2, 2, 2), (0, -1, 0), "context"),
        (Roi((0, 0, 0), (4, 4, 4)), (2, 2), (0, 0, 0), "one for each axis"),
    ],
)
def test_a_grid_that_makes_no_sense_is_refused(roi, block_shape, context, message):
    with pytest.raises(DataError, match=message):
        Grid(roi, Coordinate(block_shape), Coordinate(context))


def test_a_block_beyond_the_grid_is_an_error():
    with pytest.raises(IndexError):
        Grid(Roi((0,), (4,)), Coordinate((2,)), Coordinate((0,))).block(2)


@given(triples, st.integers(1, 5000), st.none() | st.tuples(*[st.integers(1, 200)] * 3))
def test_the_default_block_owns_whole_chunks_and_keeps_to_its_size(write_shape, target, volume_shape):
    shape = default_block_shape(write_shape, target, volume_shape=volume_shape)
    assert all(s % w == 0 and s > 0 for s, w in zip(shape, write_shape, strict=True))
    assert math.prod(shape) <= target or tuple(shape) == write_shape
    if volume_shape is not None:
        assert all(s < v + w for s, v, w in zip(shape, volume_shape, write_shape, strict=True))


def test_the_default_block_is_near_a_cube():
    assert default_block_shape((64, 64, 64)) == Coordinate((256, 256, 256))
    assert default_block_shape((1, 64, 64), 64**3) == Coordinate((64, 64, 64))
    assert default_block_shape((32, 32, 32), 64**3, volume_shape=(20, 500, 500)) == Coordinate((32, 128, 64))
