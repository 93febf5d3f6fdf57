"""Where a training keeps its files, from its recorded settings."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def checkpoint_folder(runs: Path, settings: Mapping[str, Any], run_id: int) -> Path:
    """Return the folder of a training's checkpoints: a continued run writes to that of its first part.

    Args:
        runs: `directories.runs`.
        settings: of the training, see `find_training_settings`.
        run_id: of the training.
    """
    first = settings.get("training", {}).get("continue_id") or run_id
    return runs / "models" / f"{int(first):04d}"
