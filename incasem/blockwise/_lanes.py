"""Stages of different blocks, overlapping in one process: the whole pipeline of a worker.

A *lane* is a thread that takes one block after the other through all stages: it reads, has the main thread
compute, and writes. Several lanes make the overlap, and their number is the bound of every queue. A block
keeps its lane from its acquisition to its release, so an error belongs to exactly one block, and stopping
is what it always was.

The main thread computes because it is the one thread in which accelerators and the C library's memory
are used without detours (one CUDA stream, one OpenMP team, one malloc arena).
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

from incasem.blockwise.grid import Block
from incasem.blockwise.job import BlockFunction, StagedFunction

__all__ = ["work_in_lanes"]


def work_in_lanes(
    staged: StagedFunction[Any, Any], lanes: int, serve: Callable[[BlockFunction], None]
) -> None:
    """Call ``serve`` in ``lanes`` threads, each with the function of one block; return when all returned.

    Args:
        staged: its `compute` is called in this thread only.
        lanes: 1 or more.
        serve: acquires blocks, calls the function it is given, and releases them, to the end of all blocks.

    Raises:
        whatever a call of ``serve`` raised, after the other lanes have ended.
    """
    requests: SimpleQueue[tuple[Future[Any], Block, Any] | None] = SimpleQueue()

    def one_block(block: Block) -> None:
        answer: Future[Any] = Future()
        requests.put((answer, block, staged.read(block)))
        staged.write(block, answer.result())

    with ThreadPoolExecutor(lanes, thread_name_prefix="lane") as pool:
        running = [pool.submit(serve, one_block) for _ in range(lanes)]
        for future in running:
            future.add_done_callback(lambda _: requests.put(None))
        while lanes:
            request = requests.get()
            if request is None:
                lanes -= 1
                continue
            _compute(staged, *request)
            del request  # what was read is not kept while we wait for the next
    for future in running:
        future.result()


def _compute(staged: StagedFunction[Any, Any], answer: Future[Any], block: Block, given: Any) -> None:
    try:
        result = staged.compute(block, given)
    except BaseException as error:  # noqa: BLE001 - its lane raises it again, and must not wait for ever
        answer.set_exception(error)
    else:
        answer.set_result(result)
