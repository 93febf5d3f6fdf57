import sys
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
from scipy import ndimage

from incasem.blockwise import (
    Grid,
    Job,
    default_block_shape,
    label_components,
    mask_of,
    run_stage,
)
from incasem.errors import DataError, FailedBlocksError
from incasem.geometry import Coordinate
from incasem.volumes import create_volume, open_volume

cloudpickle.register_pickle_by_value(sys.modules[__name__])

SHAPE = (40, 36, 50)


@pytest.fixture
def raw(tmp_path):
    volume = create_volume(
        tmp_path / "cell.zarr/raw",
        shape=SHAPE,
        dtype=np.uint8,
        voxel_size=(5, 4, 4),
        offset_nm=(50, 40, 8),
        chunk_shape=(16, 16, 16),
    )
    values = np.random.default_rng(0).random(SHAPE)
    volume.write_voxels(volume.roi_voxels, (ndimage.gaussian_filter(values, 1.5) * 255).astype(np.uint8))
    return volume


def make_output(raw, folder, **more):
    return create_volume(
        folder / "cell.zarr/mean",
        shape=SHAPE,
        dtype=np.uint8,
        voxel_size=raw.voxel_size,
        offset_nm=raw.offset_nm,
        chunk_shape=(16, 16, 16),
        existing="resume",
        **more,
    )


def smooth(raw, output, fail_below=None):
    """A stage with context: the mean of 3³ voxels."""

    def start_worker():
        def work(block):
            if fail_below is not None and block.index >= fail_below:
                raise ValueError("not today")
            values = raw.read_voxels(block.read_roi, beyond="reflect").astype(np.float32)
            mean = ndimage.uniform_filter(values, 3)[1:-1, 1:-1, 1:-1]
            output.write_voxels(block.write_roi, np.round(mean).astype(np.uint8))

        return work

    block_shape = default_block_shape(output.write_shape, 32 * 16 * 16, volume_shape=SHAPE)
    return Job(
        "smooth",
        Grid(output.roi_voxels, block_shape, Coordinate((1, 1, 1))),
        start_worker,
        {"size": 3, "raw": raw.fingerprint()},
        Path(output.path) / ".incasem",
    )


def test_a_stage_over_volumes_equals_the_whole_and_goes_on_where_it_failed(raw, tmp_path):
    output = make_output(raw, tmp_path)
    with pytest.raises(FailedBlocksError, match="not today"):
        run_stage(smooth(raw, output, fail_below=5), output, 2, progress=False)
    output = make_output(raw, tmp_path)
    report = run_stage(smooth(raw, output), output, 2, progress=False)
    assert report.blocks_resumed == 5
    values = raw.read_voxels(raw.roi_voxels).astype(np.float32)
    expected = np.round(ndimage.uniform_filter(values, 3, mode="mirror")).astype(np.uint8)
    np.testing.assert_array_equal(output.read_voxels(output.roi_voxels), expected)
    assert not (Path(output.path) / ".incasem").exists()

    stored = open_volume(output.path)
    assert stored.attributes["incasem"]["job"] == "smooth"
    again = make_output(raw, tmp_path)
    assert run_stage(smooth(raw, again), again, 2, progress=False).already_complete
    moved = raw.with_place(voxel_size=(5, 4, 8))
    with pytest.raises(DataError, match="Choose another output name"):
        run_stage(smooth(moved, again), again, 2, progress=False)


def test_components_of_a_volume(raw, tmp_path):
    grid = Grid(raw.roi_voxels, Coordinate((16, 32, 16)), Coordinate((0, 0, 0)))
    above = np.percentile(raw.read_voxels(raw.roi_voxels), 60)
    mask = mask_of(raw, lambda values: values > above)
    table = label_components(
        mask,
        grid,
        tmp_path / "parts",
        connectivity=26,
        identity=raw.fingerprint(),
        num_workers=2,
        progress=False,
    )
    expected, count = ndimage.label(raw.read_voxels(raw.roi_voxels) > above, np.ones((3, 3, 3)))
    assert table.count == count > 3
    read = mask()
    for block in grid.blocks():
        places = (block.write_roi - raw.roi_voxels.begin).to_slices()
        np.testing.assert_array_equal(table.label(read(block), block), expected[places])
