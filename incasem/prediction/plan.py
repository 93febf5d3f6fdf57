"""Choosing the block: what one worker writes at a time, and what the network is given for it.

Large blocks waste less on context; memory, the 2³¹ elements that convolution libraries can address in one
tensor, and the output's chunk grid limit them. The model is simple: arithmetic, reading and a fixed time a
block add up, with nominal speeds for the kind of device. Only the choice depends on those speeds.
"""

import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import torch

from incasem.blockwise import count_of, format_seconds
from incasem.errors import ConfigError, explain
from incasem.geometry import Coordinate, Roi, ceil_to_multiple
from incasem.networks import Backend, ValidNetwork
from incasem.prediction.cost import NetworkCost
from incasem.prediction.tiling import (
    NO_MARGIN,
    AlignedTiling,
    FixedTiling,
    Margin,
    PublishedTiling,
    Tiling,
)

_TENSOR_LIMIT = 2**31
_MEMORY_SHARE = 0.5
"""Of the memory that a device has in all. Not of what happens to be free: the same machine must choose the
same block again when a killed job is continued."""
_MEMORY_FACTOR = 1.7
"""Measured peak over the sum of living tensors (bf16 and fp32, channels last, CPU, freed memory kept)."""
_MEMORY_BASE = 500_000_000
_LARGEST_EDGE = 1024
_SECONDS_A_BLOCK = 0.05
_READ_BYTES_PER_SECOND = 3e8
_FLOPS_PER_SECOND = {"cpu": {2: 3e11, 4: 1e11}, "cuda": {2: 3e14, 4: 3e13}}
"""Nominal, a CPU core or a GPU, by bytes a number."""


@dataclass(frozen=True)
class PredictionPlan:
    """The chosen block and what it costs.

    Attributes:
        block_shape: voxels (z, y, x) that are written at a time; whole write units of the output.
        tile_shape: most voxels (z, y, x) asked of one call of the network.
        num_blocks: blocks of the ROI, masked ones included.
        flops: operations for the whole ROI.
        flop_overhead: ``flops`` over those of one infinitely large tile.
        voxels_read: of the whole ROI; what two blocks need is read twice.
        read_overhead: voxels read over voxels written.
        memory_bytes: estimated peak of one worker.
        seconds: expected time, at nominal speeds until `at_speed` knows better.
    """

    block_shape: Coordinate
    tile_shape: Coordinate
    num_blocks: int
    flops: float
    flop_overhead: float
    voxels_read: int
    read_overhead: float
    memory_bytes: int
    seconds: float

    def describe(self) -> str:
        """Return the plan as one line for the terminal."""
        several = any(t < b for t, b in zip(self.tile_shape, self.block_shape, strict=True))
        tiles = f" in tiles of {_times(self.tile_shape)}" if several else ""
        return (
            f"{count_of(self.num_blocks, 'block')} of {_times(self.block_shape)} voxels{tiles}: "
            f"{self.flops / 1e12:.3g} TFLOP ({self.flop_overhead:.2f}× the ideal), "
            f"reads {self.read_overhead:.2f}× the volume, about {self.memory_bytes / 1e9:.1f} GB a worker, "
            f"about {format_seconds(self.seconds)}"
        )

    def at_speed(self, flops_per_second: float) -> "PredictionPlan":
        """Return the plan with the time that it takes when all workers together do so many operations."""
        seconds = self.flops / flops_per_second + self.num_blocks * _SECONDS_A_BLOCK
        return replace(self, seconds=max(seconds, self.voxels_read / _READ_BYTES_PER_SECOND))


@dataclass(frozen=True)
class BlockBuffers:
    """What a worker holds of each block besides the network's tensors.

    Attributes:
        read_bytes: a voxel that is read.
        written_bytes: a voxel that is written, of all arrays together.
        blocks: blocks in its hands at a time.
    """

    read_bytes: int = 1
    written_bytes: int = 3
    blocks: int = 1

    def memory(self, voxels_read: int, voxels_written: int) -> int:
        """Return the bytes for blocks of this size."""
        return self.blocks * (self.read_bytes * voxels_read + self.written_bytes * voxels_written)


@dataclass(frozen=True)
class Device:
    """What the plan must know of a device: kind, bytes a number, memory and cores of one worker, backend."""

    kind: str
    bytes_per_element: int
    memory_bytes: int
    cores: int = 1
    backend: Backend = "torch"

    @classmethod
    def of(
        cls, device: torch.device, precision: torch.dtype, num_workers: int = 1, backend: Backend = "torch"
    ) -> "Device":
        """Return the description of ``device`` when ``num_workers`` share it."""
        if device.type == "cuda":
            memory = int(torch.cuda.get_device_properties(device).total_memory)
        else:
            memory = total_memory()
        cores = max(1, (os.cpu_count() or 1) // num_workers) if device.type == "cpu" else 1
        return cls(device.type, precision.itemsize, memory // num_workers, cores, backend)

    @property
    def flops_per_second(self) -> float:
        """Nominal speed of the network."""
        speeds = _FLOPS_PER_SECOND.get(self.kind, _FLOPS_PER_SECOND["cpu"])
        return speeds[2 if self.bytes_per_element <= 2 else 4] * self.cores


class Planner:
    """Plans for one network on one device.

    Args:
        network: gives geometry and cost.
        device: see `Device`.
        roi_voxels: what will be predicted, absolute voxels.
        write_shape: smallest unit of the output that one writer must own (z, y, x, voxels).
        fixed: a tiling whose tiles have one size, or None for aligned tiles.
        views: passes of the network over each tile (test-time augmentation).
        margin: voxels that a tile emits beyond what is kept of it, see `AlignedTiling`.
        buffers: what a worker holds of a block.
    """

    def __init__(
        self,
        network: ValidNetwork,
        device: Device,
        roi_voxels: Roi,
        write_shape: Sequence[int],
        fixed: PublishedTiling | FixedTiling | None = None,
        *,
        views: int = 1,
        margin: Margin = NO_MARGIN,
        buffers: BlockBuffers | None = None,
    ) -> None:
        self._network, self._device, self._roi = network, device, roi_voxels
        self._unit = Coordinate(write_shape)
        self._fixed = fixed
        self._views, self._margin, self._buffers = views, margin, buffers or BlockBuffers()
        self._cost = NetworkCost(network, device.kind, device.backend)

    def plan(self, block_shape: Sequence[int] | None = None, num_workers: int = 1) -> PredictionPlan:
        """Return the plan with the least estimated time.

        Args:
            block_shape: `prediction.block_size_voxels`; taken as it is (at most the ROI), cut into tiles
                where it does not fit into memory.
            num_workers: workers that share the blocks.

        Raises:
            ConfigError: ``block_shape`` is not a multiple of the write unit, or there is too little memory
                for the smallest tile.
        """
        if block_shape is not None:
            block = self._checked(block_shape)
            return (self._evaluate(block, num_workers) or self._in_tiles(block, num_workers))[1]
        best: tuple[float, PredictionPlan] | None = None
        for block in self._about_cubic_blocks():
            found = self._evaluate(block, num_workers)
            if found is None:
                # Larger ones do not fit either. A block of several tiles saves nothing over smaller blocks:
                # it is the last resort.
                best = best or self._in_tiles(block, num_workers)
                break
            if best is None or found[0] < best[0]:
                best = found
        assert best is not None, "there is at least one block"
        return self._grown(best, num_workers)[1]

    def _grown(self, best: tuple[float, PredictionPlan], num_workers: int) -> tuple[float, PredictionPlan]:
        """Return the best that enlarging one axis after the other leads to: memory may hold 128×256×256."""
        while True:
            larger = [self._enlarged(best[1].block_shape, axis) for axis in range(3)]
            found = [self._evaluate(block, num_workers) for block in larger if block is not None]
            better = [candidate for candidate in found if candidate is not None and candidate[0] < best[0]]
            if not better:
                return best
            best = min(better, key=lambda candidate: candidate[0])

    def _enlarged(self, block_shape: Coordinate, axis: int) -> Coordinate | None:
        """Return the block with the fewest more voxels along ``axis`` that shares the ROI evenly."""
        whole, unit, edge = self._whole()[axis], self._unit[axis], block_shape[axis]
        for count in range(-(-whole // edge) - 1, 0, -1):
            larger = -(-whole // (count * unit)) * unit
            if larger > edge:
                return Coordinate(larger if a == axis else e for a, e in enumerate(block_shape))
        return None

    def _checked(self, block_shape: Sequence[int]) -> Coordinate:
        limited = Coordinate(min(b, s) for b, s in zip(block_shape, self._whole(), strict=True))
        if ceil_to_multiple(limited, self._unit) != limited:
            raise ConfigError(
                explain(
                    "prediction.block_size_voxels",
                    tuple(block_shape),
                    f"multiples of the output's chunks {tuple(self._unit)}, which one worker must own whole",
                    f"Take {tuple(ceil_to_multiple(limited, self._unit))}",
                )
            )
        return limited

    def _whole(self) -> Coordinate:
        return ceil_to_multiple(self._roi.shape, self._unit)

    def _about_cubic_blocks(self) -> Iterator[Coordinate]:
        """Yield about cubic blocks, smallest first, with the ROI shared evenly among them."""
        whole, seen = self._whole(), set()
        for edge in range(min(self._unit), max(_LARGEST_EDGE, *self._unit) + 1, min(self._unit)):
            limit = [
                min(ceil_to_multiple((edge,), (u,))[0], w) for u, w in zip(self._unit, whole, strict=True)
            ]
            even = [-(-w // -(-w // m)) for w, m in zip(whole, limit, strict=True)]
            shape = ceil_to_multiple(even, self._unit)
            if shape not in seen:
                seen.add(shape)
                yield shape

    def _whole_tile(self, block_shape: Coordinate) -> Coordinate:
        """Return the tile limit with which a block is one tile, wherever it lies on the stride grid."""
        stride = self._network.stride
        return ceil_to_multiple(block_shape + stride - Coordinate(1, 1, 1), stride)

    def _in_tiles(self, block_shape: Coordinate, num_workers: int) -> tuple[float, PredictionPlan]:
        tile, stride = self._whole_tile(block_shape), self._network.stride
        while True:
            smaller = Coordinate(max(t * 7 // 8 // s * s, s) for t, s in zip(tile, stride, strict=True))
            if self._fixed is not None:
                raise self._too_little_memory(block_shape, self._fixed.output_shape)
            if smaller == tile:
                raise self._too_little_memory(block_shape, tile)
            tile = smaller
            found = self._evaluate(block_shape, num_workers, tile)
            if found is not None:
                return found

    def _too_little_memory(self, block_shape: Coordinate, tile: Coordinate) -> ConfigError:
        buffers = self._buffers.memory(math.prod(block_shape), math.prod(block_shape))
        emitted = tile + self._margin[0] + self._margin[1]
        needed = (self._memory(self._network.input_shape_for(emitted)) + buffers) / _MEMORY_SHARE
        # A tile of a fixed size is part of the result: it is the user's to make it smaller.
        size = "block_size_voxels" if self._fixed is None else "output_size_voxels and input_size_voxels"
        return ConfigError(
            explain(
                "memory of one worker",
                f"{self._device.memory_bytes / 1e9:.1f} GB",
                f"at least {needed / 1e9:.1f} GB for this network"
                + ("" if self._fixed is None else f" and its tiles of {_times(tile)} voxels"),
                f"Use fewer workers, a smaller prediction.{size}, or a machine with more memory",
            )
        )

    def _memory(self, input_shape: Coordinate) -> int:
        elements = self._cost.call(input_shape).peak_elements
        sums = 0  # of the probabilities of all views, and those of one, in float32
        if self._views > 1:
            sums = 2 * 4 * self._network.num_fmaps_out * math.prod(input_shape)
        return _MEMORY_BASE + sums + int(elements * self._device.bytes_per_element * _MEMORY_FACTOR)

    def _fits(self, input_shape: Coordinate, buffers: int) -> bool:
        small_enough = self._cost.call(input_shape).largest_tensor < _TENSOR_LIMIT
        memory = self._memory(input_shape) + buffers
        return small_enough and memory <= self._device.memory_bytes * _MEMORY_SHARE

    def _evaluate(
        self, block_shape: Coordinate, num_workers: int, tile_shape: Coordinate | None = None
    ) -> tuple[float, PredictionPlan] | None:
        """Return estimated seconds and plan, or None where a tile does not fit into the memory.

        ``tile_shape`` None: one tile a block.
        """
        if tile_shape is None:
            tile_shape = self._whole_tile(block_shape)
        tiling: Tiling = self._fixed or AlignedTiling(self._network, tile_shape, self._margin)
        axes = [self._along(tiling, axis, block_shape[axis]) for axis in range(3)]
        read, largest_read = (math.prod(numbers) for numbers in list(zip(*axes, strict=True))[1:])
        buffers = self._buffers.memory(largest_read, math.prod(block_shape))
        flops, memory = 0, _MEMORY_BASE
        for combination in product(*(sizes.items() for sizes, _, _ in axes)):
            shape = Coordinate(size for size, _ in combination)
            if not self._fits(shape, buffers):
                return None
            calls = math.prod(count for _, count in combination) * self._views
            flops += calls * self._cost.call(shape).flops
            memory = max(memory, self._memory(shape) + buffers)
        blocks = math.prod(-(-s // b) for s, b in zip(self._roi.shape, block_shape, strict=True))
        seconds = (
            flops / self._device.flops_per_second + read / _READ_BYTES_PER_SECOND + blocks * _SECONDS_A_BLOCK
        )
        rounds = -(-blocks // num_workers)  # the last round leaves workers idle
        voxels = math.prod(self._roi.shape)
        plan = PredictionPlan(
            block_shape=block_shape,
            tile_shape=self._fixed.output_shape if self._fixed else tile_shape,
            num_blocks=blocks,
            flops=float(flops),
            flop_overhead=flops / (self._cost.flops_per_voxel() * voxels * self._views),
            voxels_read=read,
            read_overhead=read / voxels,
            memory_bytes=memory,
            seconds=seconds * rounds / blocks,
        )
        return plan.seconds, plan

    def _along(self, tiling: Tiling, axis: int, edge: int) -> tuple[Counter[int], int, int]:
        """Return, of the blocks along one axis: tiles of each input size, voxels read in all and at most."""
        begin, end = self._roi.begin[axis], self._roi.end[axis]
        sizes: Counter[int] = Counter()
        read = []
        for start in range(begin, end, edge):
            tiles = tiling.axis_tiles(axis, start, min(start + edge, end))
            sizes.update(tile.input_size for tile in tiles)
            if tiles:
                read.append(
                    max(tile.input_begin + tile.input_size for tile in tiles)
                    - min(tile.input_begin for tile in tiles)
                )
        return sizes, sum(read), max(read, default=0)


def largest_tile(
    network: ValidNetwork, device: Device, views: int = 1, margin: Margin = NO_MARGIN
) -> Coordinate:
    """Return the largest cube (multiples of the stride, voxels) to ask of one call of the network.

    Args:
        network: gives geometry and cost.
        device: where it runs.
        views: passes over each tile.
        margin: voxels that a tile emits beyond what is kept of it, see `AlignedTiling`.

    Raises:
        ConfigError: the memory does not hold the smallest one.
    """
    unlimited = Coordinate((_LARGEST_EDGE,) * 3)
    buffers = BlockBuffers(0, 0)  # the caller's business: it is not known how much the caller will ask for
    roi = Roi((0, 0, 0), unlimited)
    planner = Planner(network, device, roi, unlimited, views=views, margin=margin, buffers=buffers)
    return planner.plan().tile_shape


def total_memory(root: Path = Path("/")) -> int:
    """Return the memory (bytes) that this machine, container or cluster job has in all.

    Args:
        root: of the file system, for tests.
    """
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in _memory_limits(root):
        if limit.is_file() and (text := limit.read_text().strip()).isdigit():
            total = min(total, int(text))
    return total


def _memory_limits(root: Path) -> Iterator[Path]:
    """Yield the files that may limit this process: those of its control group and of all groups above."""
    groups = root / "sys/fs/cgroup"
    yield groups / "memory/memory.limit_in_bytes"
    own = root / "proc/self/cgroup"
    for line in own.read_text().splitlines() if own.is_file() else ():
        _, controllers, path = line.split(":", 2)
        base = groups / "memory" if controllers == "memory" else groups
        name = "memory.limit_in_bytes" if controllers == "memory" else "memory.max"
        group = base / path.strip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(base):
                yield folder / name


def _times(shape: Sequence[int]) -> str:
    return "×".join(str(size) for size in shape)
