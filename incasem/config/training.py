"""The settings of a training and their published defaults."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from incasem.config.augmentation import Augmentation
from incasem.config.fields import (
    Device,
    Directory,
    Flag,
    Fraction,
    NotNegative,
    NotNegativeNumber,
    OptionalDevice,
    OptionalFraction,
    OptionalInteger,
    OptionalPositive,
    OptionalPositiveNumber,
    OptionalPositiveTriple,
    OptionalSeed,
    PathText,
    Positive,
    PositiveNumber,
    Section,
    Text,
    not_allowed,
)
from incasem.config.sections import DataSettings, ModelSettings, NetworkSizes, Precision
from incasem.config.task import TaskSettings


class TrainingDirectories(Section):
    """Where trainings and data lie; absolute, `~` expanded."""

    runs: Directory = Path("~/incasem/training_runs")
    data: Directory = Path("~/incasem/data")


def _schedule(value: Any) -> Any:
    # On the command line `none` is the empty value, here it also is the name of a schedule.
    return "none" if value is None else value


class Optimizer(Section):
    """How the weights move."""

    type: Literal["adam", "muon"] = "adam"
    """Muon moves the filters of hidden layers evenly in all directions, and learns faster from scratch."""
    lr: PositiveNumber = 3e-5
    """Learning rate."""
    weight_decay: NotNegativeNumber = 3e-5
    """Added to the gradient (L2), as published."""
    schedule: Annotated[Literal["none", "cosine", "poly"], BeforeValidator(_schedule)] = "none"
    """How the learning rate falls until the last iteration."""


class Reject(Section):
    """Which random locations are drawn again."""

    min_masked: Fraction = 0.05
    """Foreground fraction of a sample below which it is rejected …"""
    reject_probability: Fraction = 0.9
    """… with this probability."""
    min_mask: Fraction = 0.75
    """Fraction of a sample inside the data configuration's `mask` below which it is rejected …"""
    mask_reject_probability: Fraction = 0.95
    """… with this probability."""


class Sampling(Section):
    """Where samples are drawn."""

    foreground: OptionalFraction = None
    """Fraction of samples placed around a random foreground voxel; None: uniform locations and rejection."""


class Precache(Section):
    """Samples prepared ahead of the network."""

    cache_size: Positive = 20
    num_workers: NotNegative = 8


class Checkpoints(Section):
    """Which checkpoints stay on the disk."""

    keep: OptionalPositive = None
    """The newest ones, besides the best validated one; None: all of them."""


class Every(Section):
    """How often something is written, in iterations."""

    every: Positive = 1000


class ValidationSnapshot(Section):
    """How often a validation is stored as Zarr, in validations."""

    every: Positive = 10


def _start_from(value: Any) -> tuple[int, str] | None:
    if value is None:
        return None
    well_formed = isinstance(value, list | tuple) and len(value) == 2 and type(value[0]) is int
    if not well_formed or not isinstance(value[1], str):
        raise not_allowed("a run id and the path of a checkpoint, as --start_from sets them")
    return (value[0], value[1])


class Training(NetworkSizes):
    """The training loop and what feeds it."""

    pipeline: Text = "baseline_with_context"
    data: PathText = None
    """Path of the data configuration (JSON)."""
    iterations: NotNegative = 200_000
    """Number of the last one; the first is 0."""
    batch_size: Positive = 1
    """Samples of one pass of the network."""
    save_every: Positive = 1000
    log_every: Positive = 1
    precision: Precision = "auto"
    """Of the arithmetic; auto: bf16 where the device is fast at it."""
    num_threads: OptionalPositive = None
    gradient_clip: OptionalPositiveNumber = None
    """Largest norm of the gradient; None: not clipped."""
    weight_standardization: Flag = False
    """Learn filters of mean zero: faster from scratch. The result is the same kind of network."""
    ema_decay: OptionalFraction = None
    """Decay of the moving average of the weights, which is validated and saved too; None: no average."""
    swa_start: OptionalInteger = None
    """First iteration whose weights go into an equal average; instead of `ema_decay`; None: no average."""
    accumulate: Positive = 1
    """Batches of one iteration, that is, of one step of the optimizer."""
    compile: Flag = False
    """Let `torch.compile` make the kernels of the network in training."""
    checkpoints: Checkpoints = Checkpoints()
    optimizer: Optimizer = Optimizer()
    reject: Reject = Reject()
    sampling: Sampling = Sampling()
    precache: Precache = Precache()
    augmentation: Augmentation = Augmentation()
    snapshot: Every = Every()
    profiling_stats: Every = Every()
    start_from: Annotated[tuple[int, str] | None, BeforeValidator(_start_from)] = None
    """Set by `--start_from`."""
    continue_id: OptionalPositive = None
    """Set by `--continue_run`."""


class Validation(NetworkSizes):
    """The periodic prediction and scoring of whole regions."""

    pipeline: Text = "baseline_with_context"
    data: PathText = None
    """Path of the data configuration (JSON)."""
    validate_every: Positive = 1000
    precision: Precision = "auto"
    """As `training.precision`."""
    block_size_voxels: OptionalPositiveTriple = None
    """Voxels kept of one pass; None: `output_size_voxels` or what the planner finds faster."""
    device: OptionalDevice = None
    """Where it runs while the training goes on; None: a second GPU that is free, else the training waits."""
    snapshot: ValidationSnapshot = ValidationSnapshot()


class Sources(Section):
    """Kept for published files; nothing reads it."""

    class_: Text = Field(default="DataSourcesSemantic", alias="class")


class BalanceLabels(Section):
    """Bounds of a class's voxel fraction before its inverse becomes the loss weight."""

    clipmin: Fraction = 0.01
    """The lower one."""
    clipmax: Fraction = 0.99
    """The upper one."""


def _weights(value: Any) -> tuple[float, ...]:
    allowed = "a list of one number of at least 0 for each class, not all 0"
    if not isinstance(value, list | tuple) or any(
        isinstance(v, bool) or not isinstance(v, int | float) or not 0 <= v < float("inf") for v in value
    ):
        raise not_allowed(allowed)
    if not any(value):
        raise not_allowed(allowed)
    return tuple(float(v) for v in value)


class Loss(Section):
    """The loss function."""

    type: Literal["cross_entropy_scaling"] = "cross_entropy_scaling"
    """The published name; the weights below say which losses are summed."""
    weight: Annotated[tuple[float, ...], BeforeValidator(_weights)] = (1.0, 1.0)
    """One for each class, background first; not used by affinities."""
    balance_labels: BalanceLabels = BalanceLabels()
    cross_entropy_weight: NotNegativeNumber = 1.0
    """Of the balanced cross-entropy, which is the published loss, in the sum that is minimised; of affinities
    the binary one, balanced between edges of 0 and of 1 in each channel."""
    bce_weight: NotNegativeNumber = 0.0
    """Of the binary cross-entropy with the class weights alone; of affinities that in which all edges weigh
    the same."""
    dice_weight: NotNegativeNumber = 0.0
    """Of the soft Dice loss."""
    descriptor_weight: NotNegativeNumber = 1.0
    """Of the mean squared error of the local shape descriptors (`task.descriptors`)."""


class Torch(Section):
    """Where the network runs."""

    device: Device = 0


class SacredSettings(Section):
    """What is written to the run store."""

    log_every: Positive = 1000


class TrainingConfig(Section):
    """Every setting of a training; attribute names are the keys of `config_training.yaml`."""

    directories: TrainingDirectories = Field(default_factory=TrainingDirectories)
    training: Training = Training()
    validation: Validation = Validation()
    sources: Sources = Sources()
    task: TaskSettings = TaskSettings()
    data: DataSettings = DataSettings()
    model: ModelSettings = ModelSettings()
    loss: Loss = Loss()
    torch: Torch = Torch()
    sacred: SacredSettings = SacredSettings()
    seed: OptionalSeed = None
    """Of weights, samples and augmentation; None: drawn for each run and recorded."""

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON-able nested dictionaries with the keys of the YAML file."""
        return self.model_dump(mode="json", by_alias=True)
