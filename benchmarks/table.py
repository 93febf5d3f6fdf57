"""Rows of the benchmark table, and how they are shown."""

import datetime
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """One figure beside its baseline.

    Attributes:
        what: what was measured, with its size.
        value: ours.
        unit: of both figures; larger is better unless it is a time or an amount.
        baseline: the plain version's figure from the same run; None if there is none.
        baseline_name: what the plain version is.
        less_is_better: whether the ratio is baseline / ours.
    """

    what: str
    value: float
    unit: str
    baseline: float | None = None
    baseline_name: str = ""
    less_is_better: bool = False

    @property
    def ratio(self) -> float | None:
        """How many times better than the baseline."""
        if not self.baseline or not self.value:
            return None
        return self.baseline / self.value if self.less_is_better else self.value / self.baseline


def machine() -> str:
    """Return processor, cores and Python of this machine in one line."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        name = models[0].partition(":")[2].strip() if models else name
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"{name}, {os.cpu_count()} cores{load}, {platform.system()}, Python {platform.python_version()}"


def as_markdown(rows: Sequence[Row]) -> str:
    """Return a table with date and machine above it."""
    lines = [
        f"{datetime.datetime.now():%Y-%m-%d %H:%M}; {machine()}",
        "",
        "| what | ours | baseline | unit | ratio |",
        "|---|---:|---:|---|---:|",
    ]
    for row in rows:
        baseline = "" if row.baseline is None else f"{row.baseline:.3g} ({row.baseline_name})"
        ratio = "" if row.ratio is None else f"{row.ratio:.3g}"
        lines.append(f"| {row.what} | {row.value:.3g} | {baseline} | {row.unit} | {ratio} |")
    return "\n".join(lines) + "\n"
