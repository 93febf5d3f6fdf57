import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from incasem.errors import ConfigError
from incasem.geometry import Coordinate, Roi
from incasem.networks import Unet
from incasem.prediction import AlignedTiling, Device, Planner, PublishedTiling
from incasem.prediction.cost import NetworkCost
from incasem.prediction.plan import BlockBuffers, largest_tile, total_memory

PUBLISHED = Unet()
SMALL = Unet(num_fmaps=2, downsample_factors=((2, 2, 2),))
CPU = Device("cpu", bytes_per_element=4, memory_bytes=24 << 30, cores=2)
GPU = Device("cuda", bytes_per_element=2, memory_bytes=139 << 30)


@settings(deadline=None, max_examples=15)
@given(
    begin=st.tuples(*[st.integers(-50, 50)] * 3), shape=st.tuples(*[st.integers(1, 900)] * 3),
    unit=st.sampled_from([64, 128]), workers=st.integers(1, 4),
)  # fmt: skip
def test_blocks_are_whole_write_units_and_no_larger_than_needed(begin, shape, unit, workers):
    units = Coordinate(min(unit, s) for s in shape)
    plan = Planner(SMALL, CPU, Roi(begin, shape), units).plan(num_workers=workers)

    assert all(b % u == 0 for b, u in zip(plan.block_shape, units, strict=True))
    assert all(b < s + u for b, s, u in zip(plan.block_shape, shape, units, strict=True))
    assert plan.num_blocks == math.prod(-(-s // b) for s, b in zip(shape, plan.block_shape, strict=True))
    assert plan.memory_bytes <= CPU.memory_bytes
    assert str(plan.num_blocks) in plan.describe()


def test_overheads_are_those_counted_tile_by_tile():
    roi = Roi((3, 5, 7), (200, 130, 64))
    plan = Planner(SMALL, CPU, roi, (64, 64, 64)).plan((64, 128, 64))
    tiling = AlignedTiling(SMALL, plan.tile_shape)
    read = 0
    for z in range(3, 203, 64):
        for y in range(5, 135, 128):
            block = Roi((z, y, 7), (min(64, 203 - z), min(128, 135 - y), 64))
            tiles = tiling.tiles(block)
            assert len(tiles) == 1
            read += math.prod(tiles[0].input_roi.shape)

    assert plan.read_overhead == pytest.approx(read / math.prod(roi.shape))
    assert plan.num_blocks == 4 * 2
    assert plan.flop_overhead > 1


def test_more_memory_means_larger_blocks_and_less_work():
    roi, unit = Roi((0, 0, 0), (1000, 1000, 1000)), (64, 64, 64)
    small = Planner(PUBLISHED, CPU, roi, unit).plan()
    large = Planner(PUBLISHED, GPU, roi, unit).plan()

    assert math.prod(large.block_shape) > math.prod(small.block_shape)
    assert large.flop_overhead < small.flop_overhead
    assert large.read_overhead < small.read_overhead


def test_what_memory_is_left_goes_into_one_axis_after_the_other():
    roi = Roi((1, 1, 1), (256, 256, 256))
    device = Device("cpu", bytes_per_element=2, memory_bytes=7 << 30, cores=2)
    plan = Planner(PUBLISHED, device, roi, (64, 64, 64)).plan()

    assert sorted(plan.block_shape) == [128, 256, 256]
    assert plan.memory_bytes <= device.memory_bytes / 2


def test_a_block_of_the_user_is_taken_as_it_is_and_cut_into_tiles_that_fit():
    roi = Roi((0, 0, 0), (1000, 1000, 1000))
    plan = Planner(PUBLISHED, CPU, roi, (64, 64, 64)).plan((512, 512, 512))

    assert plan.block_shape == Coordinate(512, 512, 512)
    assert max(plan.tile_shape) < 512
    assert "in tiles of" in plan.describe()
    assert plan.memory_bytes <= CPU.memory_bytes / 2


def test_a_block_of_the_user_must_own_whole_chunks():
    planner = Planner(SMALL, CPU, Roi((0, 0, 0), (300, 300, 300)), (64, 64, 64))
    with pytest.raises(ConfigError, match=r"block_size_voxels is \(100, 128, 128\).*Take \(128, 128, 128\)"):
        planner.plan((100, 128, 128))
    assert planner.plan((1024, 64, 64)).block_shape == Coordinate(320, 64, 64)


def test_too_little_memory_says_how_much_is_needed():
    device = Device("cpu", 4, memory_bytes=1 << 30)
    with pytest.raises(ConfigError, match=r"memory of one worker is 1.1 GB; allowed: at least \d"):
        Planner(PUBLISHED, device, Roi((0, 0, 0), (300, 300, 300)), (64, 64, 64)).plan()


def test_workers_get_a_block_each():
    roi = Roi((0, 0, 0), (256, 256, 256))
    assert Planner(SMALL, CPU, roi, (64, 64, 64)).plan(num_workers=1).num_blocks == 1
    assert Planner(SMALL, CPU, roi, (64, 64, 64)).plan(num_workers=4).num_blocks >= 4


def test_the_published_tiling_is_planned_with_its_own_tiles():
    roi = Roi((0, 0, 0), (300, 300, 300))
    tiling = PublishedTiling(PUBLISHED, roi, (204,) * 3, (110,) * 3)
    plan = Planner(PUBLISHED, GPU, roi, (64, 64, 64), tiling).plan()

    assert plan.tile_shape == Coordinate(110, 110, 110)
    assert plan.num_blocks == 1
    assert plan.read_overhead == 1, "what overlaps is read once a block"
    assert plan.flops == 8 * NetworkCost(PUBLISHED, "cuda").call((204, 204, 204)).flops


def test_the_largest_tile_fits_the_memory_it_was_made_for():
    tile = largest_tile(PUBLISHED, CPU)
    plan = Planner(PUBLISHED, CPU, Roi((0, 0, 0), tile), tile).plan()

    assert plan.num_blocks == 1
    assert plan.memory_bytes <= CPU.memory_bytes / 2
    assert min(largest_tile(PUBLISHED, GPU)) > max(tile)


def test_memory_and_cores_are_shared_among_workers():
    one = Device.of(torch.device("cpu"), torch.bfloat16)
    two = Device.of(torch.device("cpu"), torch.bfloat16, num_workers=2)

    assert one.bytes_per_element == 2
    assert two.memory_bytes == one.memory_bytes // 2
    assert two.cores == max(1, one.cores // 2)


@pytest.mark.parametrize(
    ("group", "limit"),
    [
        ("0::/slurm/job_7/step_0", "sys/fs/cgroup/slurm/job_7/memory.max"),
        ("0::/", "sys/fs/cgroup/memory.max"),
        ("5:cpu:/other\n4:memory:/docker/abc", "sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes"),
    ],
)
def test_memory_is_that_of_the_container_or_cluster_job(tmp_path, group, limit):
    path = tmp_path / "proc/self/cgroup"
    path.parent.mkdir(parents=True)
    path.write_text(group + "\n")
    file = tmp_path / limit
    file.parent.mkdir(parents=True)
    file.write_text("1000000\n")
    assert total_memory(tmp_path) == 1_000_000

    file.write_text("max\n")
    assert total_memory(tmp_path) > 1_000_000


def test_on_a_large_device_little_is_wasted():
    roi = Roi((0, 0, 0), (2048, 2048, 2048))
    plan = Planner(PUBLISHED, GPU, roi, (64, 64, 64)).plan()

    assert plan.read_overhead <= 2.6
    assert (
        plan.flop_overhead <= 1.6
    )  # 1.2 needs tensors beyond 2**31 elements, which libraries cannot address


def test_every_view_is_work_but_no_overhead():
    roi = Roi((0, 0, 0), (128, 128, 128))
    once, eight = (Planner(SMALL, CPU, roi, (64, 64, 64), views=n).plan((128, 128, 128)) for n in (1, 8))

    assert eight.flops == 8 * once.flops
    assert eight.flop_overhead == pytest.approx(once.flop_overhead)
    assert eight.read_overhead == once.read_overhead
    assert eight.memory_bytes > once.memory_bytes


def test_what_is_held_of_a_block_counts():
    roi = Roi((0, 0, 0), (512, 512, 512))
    small = Device("cpu", 4, memory_bytes=4 << 30)
    buffers = BlockBuffers(read_bytes=2, written_bytes=9, blocks=2)
    plain = Planner(SMALL, small, roi, (64, 64, 64), buffers=BlockBuffers(0, 0)).plan((128, 128, 128))
    held = Planner(SMALL, small, roi, (64, 64, 64), buffers=buffers).plan((128, 128, 128))

    assert buffers.memory(10, 5) == 2 * (20 + 45)
    assert held.memory_bytes - plain.memory_bytes > 2 * 11 * 128**3
    with pytest.raises(ConfigError, match=r"a smaller prediction\.block_size_voxels"):
        Planner(SMALL, small, roi, (64, 64, 64), buffers=buffers).plan((512, 512, 512))


def test_the_duration_follows_from_the_speed():
    roi = Roi((0, 0, 0), (512, 512, 512))
    plan = Planner(SMALL, CPU, roi, (64, 64, 64)).plan()
    slow, quick = plan.at_speed(plan.flops / 7000), plan.at_speed(plan.flops / 1e-9)

    assert slow.seconds == pytest.approx(7000, rel=0.01)
    assert "about 1 h 5" in slow.describe()
    assert quick.seconds >= plan.voxels_read / 3e8
    assert "about" in plan.describe()
