"""The one line that a running job shows on the terminal."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, TextIO

from tqdm import tqdm

from incasem.blockwise.job import count_of, format_seconds

__all__ = ["ProgressLine"]

_PLAIN_EVERY_S = 10.0


class ProgressLine:
    """Blocks, per cent, Mvoxel/s and remaining time of a job, on standard error.

    On a terminal this is one line that changes. Elsewhere (a log file, a batch system) it is a plain line
    every ten seconds and one at the end, without control characters.

    Args:
        name: the job's name.
        blocks: blocks of the whole job, without the skipped ones.
        done: blocks that an earlier run had done.
        mean_voxels: voxels of an average block, for the throughput.
        show: False is silent.
    """

    def __init__(self, name: str, blocks: int, done: int, mean_voxels: float, *, show: bool = True) -> None:
        """Show the line with its first count."""
        self._name, self._blocks, self._first, self._done = name, blocks, done, done
        self._failed = 0
        self._mean_voxels = mean_voxels
        self._stream: TextIO = sys.stderr
        self._began = self._printed = time.monotonic()
        self._bar: tqdm[Any] | None = None
        self._plain = show and not self._stream.isatty()
        if show and not self._plain:
            self._bar = tqdm(
                total=blocks,
                initial=done,
                desc=name,
                unit="block",
                file=self._stream,
                dynamic_ncols=True,
                bar_format="{desc}: {percentage:3.0f}% |{bar}| {n_fmt}/"
                + count_of(blocks, "block")
                + "{postfix}"
                " [{elapsed}, {remaining} left]",
            )

    def __enter__(self) -> ProgressLine:
        """Return the line."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the last state standing."""
        if self._bar is not None:
            self._bar.close()
        elif self._plain:
            self._print()

    def update(self, done: int, failed: int) -> None:
        """Show new counts (blocks of the whole job)."""
        self._failed = failed
        self._done = done
        if self._bar is not None:
            self._bar.set_postfix_str(self._rate(), refresh=False)
            self._bar.n = done
            self._bar.refresh()
        elif self._plain and time.monotonic() - self._printed >= _PLAIN_EVERY_S:
            self._print()

    def _rate(self) -> str:
        seconds = max(time.monotonic() - self._began, 1e-9)
        rate = f"{(self._done - self._first) * self._mean_voxels / seconds / 1e6:.3g} Mvoxel/s"
        return f"{rate}, {self._failed} failed" if self._failed else rate

    def _print(self) -> None:
        self._printed = time.monotonic()
        new, seconds = self._done - self._first, self._printed - self._began
        left = ""
        if new and self._done < self._blocks:
            left = f", {format_seconds(seconds / new * (self._blocks - self._done))} left"
        percent = 100 * self._done // max(self._blocks, 1)
        self._stream.write(
            f"{self._name}: {percent}% {self._done}/{count_of(self._blocks, 'block')}, {self._rate()}"
            f" [{format_seconds(seconds)}{left}]\n"
        )
        self._stream.flush()
