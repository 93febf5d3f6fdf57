"""What the demo makes and how it trains: small enough for two cores and a few minutes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

STRUCTURE = "mito"
VOXEL_NM = 10
EXCLUSION_VOXELS = 2
MITO_FRACTION = 0.2  # a cell rich in mitochondria, as of liver or heart
CELL = "cell.zarr"
RAW = "volumes/raw"
EQUALIZED = "volumes/raw_equalized_0.02"
LABELS = f"volumes/labels/{STRUCTURE}"
METRIC_MASK = f"volumes/metric_masks/{STRUCTURE}"

DEFAULT_SIZE = (112, 144, 288)
DEFAULT_ITERATIONS = 380
SMALLEST_SIZE = (32, 32, 96)  # so that each part holds something to learn or to score
# The cell is cut along x: the network learns in the first part, checkpoints are compared in the second,
# and the last one it never meets before it is scored there.
PARTS = {"training": (0.0, 0.5), "validation": (0.5, 0.67), "held_out": (0.67, 1.0)}


@dataclass(frozen=True)
class Places:
    """The folders of a demo."""

    root: Path

    @property
    def stacks(self) -> Path:
        """The generated images, one folder a stack."""
        return self.root / "tiff"

    @property
    def data(self) -> Path:
        """`directories.data`."""
        return self.root / "data"

    @property
    def cell(self) -> Path:
        """The Zarr container."""
        return self.data / CELL

    @property
    def runs(self) -> Path:
        """`directories.runs`."""
        return self.root / "training_runs"

    @property
    def export(self) -> Path:
        """The predicted stack."""
        return self.root / "predicted_tiff"

    @property
    def report(self) -> Path:
        """The page to look at."""
        return self.root / "report"

    def settings(self, name: str) -> Path:
        """A file of settings: ``config_training.yaml``, ``held_out.json``, …"""
        return self.root / "settings" / name


def data_config(part: str, size: tuple[int, int, int]) -> dict[str, Any]:
    """Return the data configuration of a part of the cell."""
    begin, end = (round(fraction * size[2]) for fraction in PARTS[part])
    return {
        f"demo_{part}": {
            "file": CELL,
            "offset": [0, 0, begin],
            "shape": [size[0], size[1], end - begin],
            "voxel_size": [VOXEL_NM] * 3,
            "raw": EQUALIZED,
            "labels": {LABELS: 1},
            "metric_masks": [METRIC_MASK],
        }
    }


def training_settings(places: Places, iterations: int, seed: int) -> dict[str, Any]:
    """Return the settings that differ from the published ones: a small network and a short training."""
    every = max(iterations // 4, 1)
    sizes = {"input_size_voxels": [140, 140, 140], "output_size_voxels": [46, 46, 46]}
    return {
        "seed": seed,
        "directories": {"runs": str(places.runs), "data": str(places.data)},
        "data": {"voxel_size": [VOXEL_NM] * 3},
        "model": {"num_fmaps": 12},
        "training": {
            "data": str(places.settings("training.json")),
            "iterations": iterations,
            "save_every": every,
            "ema_decay": 0.98,
            "gradient_clip": 1,
            "optimizer": {"lr": 1.5e-3, "weight_decay": 0, "schedule": "cosine"},
            "augmentation": {"elastic": None, "intensity": {"scale": 0.08, "shift": 0.08}},
            "precache": {"num_workers": 1, "cache_size": 8},
            "snapshot": {"every": max(iterations, 1)},
            **sizes,
        },
        "validation": {
            "data": str(places.settings("validation.json")),
            "validate_every": every,
            **sizes,
        },
        "loss": {"balance_labels": {"clipmin": 0.2, "clipmax": 0.8}},
        "torch": {"device": "auto"},
        "sacred": {"log_every": 5},
    }


def prediction_settings(places: Places) -> dict[str, Any]:
    """Return the settings of the prediction of the held-out part."""
    return {
        "directories": {"runs": str(places.runs), "data": str(places.data)},
        "prediction": {
            "data": str(places.settings("held_out.json")),
            "log_metrics": True,
            "torch": {"device": "auto"},
        },
    }
