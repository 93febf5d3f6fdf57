"""The settings of a prediction and their published defaults."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError

from incasem.config.fields import (
    Device,
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
    not_allowed,
)
from incasem.config.sections import DataSettings, ModelSettings, NetworkSizes
from incasem.config.task import TaskSettings

_DEVICE = TypeAdapter(Device)
_DEVICES = "cpu, auto, cuda, all, the number of a GPU, or a list of these such as [0, 1], one worker each"


def _devices(value: Any) -> int | str | tuple[int | str, ...]:
    if isinstance(value, str) and value.strip().lower() == "all":
        return "all"
    try:
        if isinstance(value, list | tuple) and value:
            return tuple(_DEVICE.validate_python(device) for device in value)
        return _DEVICE.validate_python(value)
    except ValidationError:
        raise not_allowed(_DEVICES) from None


def _views(value: Any) -> Any:
    # On the command line `none` is the empty value, here it also is a choice; YAML may quote numbers.
    if value is None:
        return "none"
    return int(value) if value in ("8", "16") else value


class PredictionTorch(Section):
    """Where the network runs."""

    device: Annotated[int | str | tuple[int | str, ...], BeforeValidator(_devices)] = 0
    """A list, or `all` GPUs: one worker process each; they share the blocks."""


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
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Of the arithmetic; auto: what the device is fast at."""
    backend: Literal["torch", "compiled", "openvino"] = "torch"
    """What runs the network: torch, what `torch.compile` makes of it, or OpenVINO (an extra)."""
    output_dtype: Literal["uint8", "float32"] = "uint8"
    """Of the probabilities: uint8 holds round(255 p) of the foreground, float32 all classes as published."""
    tiling: Literal["aligned", "published"] = "aligned"
    """aligned: the same result for any blocks; published: the grid of old predictions, with its seams."""
    block_size_voxels: OptionalPositiveTriple = None
    """Voxels written at a time; None: what the planner finds fastest."""
    tta: Annotated[Literal["none", 8, 16], BeforeValidator(_views)] = "none"
    """Views whose probabilities are averaged: 8 mirror images, or 16 with y and x exchanged too."""
    torch: PredictionTorch = PredictionTorch()


class PredictionConfig(Section):
    """Every setting of a prediction; attribute names are the keys of `config_prediction.yaml`.

    `task`, `data` and `model` describe the trained network and come from the training run.
    """

    directories: PredictionDirectories = Field(default_factory=PredictionDirectories)
    prediction: Prediction = Prediction()
    task: TaskSettings = TaskSettings()
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
