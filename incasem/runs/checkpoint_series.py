"""Which checkpoints of a training are meant: all, a range as published, or those of given iterations."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from incasem.errors import CheckpointError, ConfigError, explain


@dataclass(frozen=True)
class CheckpointSeries:
    """What the command line says of the checkpoints.

    Attributes:
        directory: where they lie; None: the training's folder.
        basename: what stands before the iteration in their names.
        start, stop: first and last iteration, both included; None: no bound.
        step: takes start, start + step, … and each of them must be there; None: all that are there.
        iterations: these instead, and each of them must be there.
    """

    directory: Path | None = None
    basename: str = "model_checkpoint_"
    start: int | None = None
    stop: int | None = None
    step: int | None = None
    iterations: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse what contradicts itself (ConfigError)."""
        if self.iterations is not None and (self.start, self.stop, self.step) != (None, None, None):
            raise ConfigError(
                "--iterations is given with --start, --stop or --step; allowed: one way to name the "
                "checkpoints. Leave one out."
            )
        if self.step is not None and self.step < 1:
            raise ConfigError(explain("--step", self.step, "1 or more", "Correct it"))

    def as_asked(self) -> dict[str, Any]:
        """Return the series as it is recorded, JSON-able."""
        iterations = None if self.iterations is None else list(self.iterations)
        directory = None if self.directory is None else str(self.directory)
        return asdict(self) | {"directory": directory, "iterations": iterations}

    def find(self, models: Path) -> list[tuple[int, Path]]:
        """Return (iteration, checkpoint), the first iteration first.

        Args:
            models: the training's folder.

        Raises:
            CheckpointError: there is none, or one that was asked for is missing.
        """
        folder = models if self.directory is None else self.directory
        found = self._in(folder)
        wanted = self._wanted(sorted(found))
        missing = [iteration for iteration in wanted if iteration not in found]
        if missing or not wanted:
            what = ", ".join(f"{self.basename}{iteration}" for iteration in missing) or "not there"
            raise CheckpointError(
                explain(
                    f"a checkpoint {self.basename}… in {folder}",
                    f"missing: {what}" if missing else what,
                    f"the iterations that are there: {', '.join(map(str, sorted(found))) or 'none'}",
                    "Correct --checkpoint_dir, --checkpoint_basename or the iterations",
                )
            )
        return [(iteration, found[iteration]) for iteration in wanted]

    def _in(self, folder: Path) -> dict[int, Path]:
        # A published file may end in .pt; sidecars end in .json.
        name = re.compile(re.escape(self.basename) + r"(\d+)(\.pt)?")
        files = folder.iterdir() if folder.is_dir() else ()
        return {int(match[1]): path for path in sorted(files) if (match := name.fullmatch(path.name))}

    def _wanted(self, there: Sequence[int]) -> list[int]:
        if self.iterations is not None:
            return sorted(set(self.iterations))
        start = self.start if self.start is not None else (there[0] if there else 0)
        stop = self.stop if self.stop is not None else (there[-1] if there else -1)
        if self.step is not None:
            return list(range(start, stop + 1, self.step))
        return [iteration for iteration in there if start <= iteration <= stop]
