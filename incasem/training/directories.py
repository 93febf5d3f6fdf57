"""Where a training run keeps its files, below `directories.runs`, as published."""

from dataclasses import dataclass
from pathlib import Path

CHECKPOINT_PREFIX = "model_checkpoint_"


@dataclass(frozen=True)
class RunDirectories:
    """The folders of one run: ``models/%04d``, ``tensorboard/%04d``, ``snapshots/%04d``, ``logs/%04d``."""

    runs: Path
    run_id: int

    @property
    def models(self) -> Path:
        """Checkpoints with their sidecars."""
        return self._of("models")

    @property
    def tensorboard(self) -> Path:
        """Event files, one folder for training and one for each validation dataset."""
        return self._of("tensorboard")

    @property
    def snapshots(self) -> Path:
        """Batches as Zarr, to look at what the network saw."""
        return self._of("snapshots")

    @property
    def report(self) -> Path:
        """The page with curves and slices."""
        return self._of("reports")

    @property
    def log(self) -> Path:
        """The run's own log file."""
        return self._of("logs") / "train.log"

    def checkpoint(self, iteration: int) -> Path:
        """The checkpoint of an iteration."""
        return self.models / f"{CHECKPOINT_PREFIX}{iteration}"

    def _of(self, kind: str) -> Path:
        return self.runs / kind / f"{self.run_id:04d}"
