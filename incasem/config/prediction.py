"""The settings of a prediction and their published defaults."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from incasem.config.fields import (
    Directory,
    Flag,
    OptionalInteger,
    OptionalPath,
    OptionalPositiveTriple,
    OptionalSeed,
    PathText,
    Positive,
    Section,
    Text,
)
from incasem.config.sections import DataSettings, ModelSettings, NetworkSizes, Precision
from incasem.config.training import Torch


class PredictionDirectories(Section):
    """Where trainings (for checkpoints and the run store) and data lie; absolute, `~` expanded."""

    runs: Directory = Path("~/incasem/training_runs")
    data: Directory = Path("~/incasem/data")


class PredictionOutput(Section):
    """Where predictions go."""

    prefix: OptionalPath = None
    """Folder below which `FILE/volumes/predictions/…` is made; None: `directories.data`."""


class Prediction(NetworkSizes):
    """The block-wise prediction."""

    pipeline: Text = "baseline"
    data: PathText = None
    """Path of the data configuration (JSON)."""
    run_id_training: OptionalInteger = None
    checkpoint: OptionalPath = None
    """None: the best validated checkpoint of the training run."""
    directories: PredictionOutput = PredictionOutput()
    num_workers: Positive = 8
    log_metrics: Flag = False
    precision: Precision = "auto"
    output_dtype: Literal["uint8", "float32"] = "uint8"
    """Of the probabilities; uint8 holds round(255 p)."""
    tiling: Literal["aligned", "published"] = "aligned"
    block_size_voxels: OptionalPositiveTriple = None
    """Voxels kept of one pass; None: what the planner finds fastest."""
    torch: Torch = Torch()


class PredictionConfig(Section):
    """Every setting of a prediction; attribute names are the keys of `config_prediction.yaml`.

    `data` and `model` describe the trained network and come from the training run.
    """

    directories: PredictionDirectories = Field(default_factory=PredictionDirectories)
    prediction: Prediction = Prediction()
    data: DataSettings = DataSettings()
    model: ModelSettings = ModelSettings()
    seed: OptionalSeed = None

    @property
    def output_directory(self) -> Path:
        """Folder of the predictions: `prediction.directories.prefix`, else `directories.data`."""
        return self.prediction.directories.prefix or self.directories.data

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON-able nested dictionaries with the keys of the YAML file."""
        return self.model_dump(mode="json", by_alias=True)
