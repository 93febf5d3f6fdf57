"""What the block engine costs: blocks a second whose work is nothing, against daisy alone.

All mark each finished block on disk and have the same number of workers. Two sizes of job are timed and
subtracted, so that neither the start of Python nor that of daisy's scheduler counts. daisy is timed with
workers that ask where their block lies, as every block function must, and with workers that do not: making
the ROI is the dearest thing that happens between two empty blocks.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.table import Row, as_markdown
from incasem.blockwise import Block, Grid, Job, run_job
from incasem.geometry import Coordinate, Roi

_EDGE = 16  # voxels; the number of blocks is what counts


def main(blocks: int = 40_000, workers: int = 2, repeats: int = 5) -> list[Row]:
    """Time all in turns, and compare their medians.

    Args:
        blocks: of the large job; the small one has a tenth.
        workers: worker processes.
        repeats: of each.
    """
    rates: dict[str, list[float]] = {name: [] for name in _WAYS}
    for _ in range(repeats):
        for name, run in _WAYS.items():
            rates[name].append(_rate(run, blocks, workers))
    ours, *others = ((name, statistics.median(values)) for name, values in rates.items())
    what = f"{ours[0]}, {blocks} empty blocks, {workers} workers, median of {repeats}"
    return [Row(what, ours[1], "blocks/s", rate, name) for name, rate in others]


def _rate(run: Callable[[Path, int, int], None], blocks: int, workers: int) -> float:
    """Return blocks per second between a tenth of the blocks and all of them."""
    seconds = []
    for count in (blocks // 10, blocks):
        with tempfile.TemporaryDirectory() as directory:
            began = time.perf_counter()
            run(Path(directory), count, workers)
            seconds.append(time.perf_counter() - began)
    taken = seconds[1] - seconds[0]
    assert taken > 0, f"{blocks} blocks are lost in what starting takes: measure more of them"
    return (blocks - blocks // 10) / taken


def _start_nothing() -> Callable[[Block], None]:
    return _do_nothing


def _do_nothing(block: Block) -> None:
    pass


def _run_ours(directory: Path, blocks: int, workers: int) -> None:
    grid = Grid(Roi((0, 0, 0), (blocks * _EDGE, _EDGE, _EDGE)), Coordinate((_EDGE,) * 3))
    job = Job("nothing", grid, _start_nothing, identity={}, state_dir=directory / "state")
    run_job(job, num_workers=workers, progress=False)


def _run_daisy(directory: Path, blocks: int, workers: int, *, places: bool) -> None:
    import daisy.v2 as daisy
    from daisy.logging import set_log_basedir

    def work() -> None:
        client = daisy.Client()
        while True:
            with client.acquire_block() as block:
                if block is None:
                    return
                if places:
                    _ = block.write_roi

    set_log_basedir(directory / "logs")
    roi = daisy.Roi([0] * 3, [_EDGE] * 3)
    task = daisy.Task(
        task_id="nothing",
        total_roi=daisy.Roi([0] * 3, [blocks * _EDGE, _EDGE, _EDGE]),
        read_roi=roi,
        write_roi=roi,
        process_function=work,
        read_write_conflict=False,
        max_workers=workers,
        tracking_path=str(directory / "marks"),
    )
    daisy.Server().run_blockwise(task, progress=False, host="127.0.0.1", summary=False)


_WAYS: dict[str, Callable[[Path, int, int], None]] = {
    "block engine": _run_ours,
    "daisy alone": partial(_run_daisy, places=True),
    "daisy alone, blocks without a place": partial(_run_daisy, places=False),
}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=40_000, help="of the large job (default 40000)")
    parser.add_argument("--workers", type=int, default=2, help="worker processes (default 2)")
    parser.add_argument("--repeats", type=int, default=5, help="of each (default 5)")
    options = parser.parse_args()
    print(as_markdown(main(options.blocks, options.workers, options.repeats)))
