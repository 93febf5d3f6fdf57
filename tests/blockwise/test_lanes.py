"""Stages of different blocks overlap, and an error stays with its own block."""

import threading
import time

import pytest

from incasem.blockwise import Grid, StagedFunction
from incasem.blockwise._lanes import work_in_lanes
from incasem.geometry import Coordinate, Roi

GRID = Grid(Roi((0, 0, 0), (12, 1, 1)), Coordinate(1, 1, 1))


class Recorded(StagedFunction):
    """Notes when each stage of each block begins and ends, and in which thread."""

    def __init__(self, seconds=0.0, fault=None):
        self.seconds, self.fault = seconds, fault
        self.events, self.threads = [], set()
        self.lock = threading.Lock()

    def stage(self, name, block):
        with self.lock:
            self.events.append((name, block.index, "begin"))
        time.sleep(self.seconds)
        if self.fault == (name, block.index):
            raise ValueError(f"{name} of {block.index}")
        with self.lock:
            self.events.append((name, block.index, "end"))

    def read(self, block):
        self.stage("read", block)
        return block.index

    def compute(self, block, given):
        assert given == block.index
        self.threads.add(threading.current_thread())
        self.stage("compute", block)
        return given * 10

    def write(self, block, result):
        assert result == block.index * 10
        self.stage("write", block)


class Server:
    """Hands out the blocks to all lanes, as daisy does; counts those in flight."""

    def __init__(self, grid=GRID):
        self.blocks, self.lock = grid.blocks(), threading.Lock()
        self.done, self.failed, self.in_flight, self.most = [], {}, 0, 0

    def __call__(self, one_block):
        while True:
            with self.lock:
                block = next(self.blocks, None)
                if block is None:
                    return
                self.in_flight += 1
                self.most = max(self.most, self.in_flight)
            try:
                one_block(block)
                self.done.append(block.index)
            except ValueError as error:
                self.failed[block.index] = str(error)
            with self.lock:
                self.in_flight -= 1


@pytest.mark.parametrize("lanes", [1, 2, 3, 20])
def test_every_block_goes_through_all_stages(lanes):
    staged, server = Recorded(), Server()
    work_in_lanes(staged, lanes, server)

    assert sorted(server.done) == list(range(12))
    assert len(staged.events) == 12 * 6
    assert server.most <= lanes
    assert staged.threads == {threading.current_thread()}


def test_reading_and_writing_go_on_while_another_block_is_computed():
    staged = Recorded(seconds=0.02)
    began = time.monotonic()
    work_in_lanes(staged, 3, Server())
    seconds = time.monotonic() - began

    running, overlaps = set(), 0
    for name, index, what in staged.events:
        if what == "end":
            running.remove((name, index))
            continue
        running.add((name, index))
        overlaps += len({stage for stage, _ in running}) > 1
    assert overlaps >= 12
    assert seconds < 12 * 3 * 0.02 * 0.75, "one stage after the other takes 0.72 s"


@pytest.mark.parametrize("stage", ["read", "compute", "write"])
def test_an_error_belongs_to_its_block_and_the_others_go_on(stage):
    server = Server()
    work_in_lanes(Recorded(fault=(stage, 4)), 3, server)

    assert server.failed == {4: f"{stage} of 4"}
    assert sorted(server.done) == [i for i in range(12) if i != 4]


@pytest.mark.timeout(20)
def test_a_lane_that_breaks_down_ends_the_work_with_its_error():
    def serve(one_block):
        raise ConnectionError("the scheduler is gone")

    with pytest.raises(ConnectionError, match="scheduler is gone"):
        work_in_lanes(Recorded(), 3, serve)


@pytest.mark.timeout(20)
def test_an_exit_in_the_middle_of_computing_does_not_hang():
    class Exits(Recorded):
        def compute(self, block, given):
            if block.index == 3:
                raise SystemExit(4)
            return super().compute(block, given)

    with pytest.raises(SystemExit):
        work_in_lanes(Exits(), 2, Server())


def test_called_as_a_plain_function_it_does_one_stage_after_the_other():
    staged = Recorded()
    staged(GRID.block(7))
    assert [event[:2] for event in staged.events[::2]] == [("read", 7), ("compute", 7), ("write", 7)]
