"""Checks of settings against one another, run before anything is opened or written."""

from collections.abc import Callable, Sequence
from functools import partial

from incasem.config.data_config import DataEntry
from incasem.config.layers import report
from incasem.config.prediction import PredictionConfig
from incasem.config.sections import NetworkSizes
from incasem.config.task_checks import check_classes
from incasem.config.training import TrainingConfig
from incasem.errors import ConfigError, IncasemError, explain

Shape = tuple[int, int, int]


def check_voxel_sizes(
    entries: Sequence[DataEntry], voxel_size: Sequence[float], setting: str = "data.voxel_size"
) -> None:
    """Check that every entry has the voxel size (nm; z, y, x) that the network is trained for.

    Raises:
        ConfigError: an entry differs by more than a millionth.
    """
    problems = [
        explain(
            f"{entry.nickname}.voxel_size", f"{_numbers(entry.voxel_size)} nm",
            f"{_numbers(voxel_size)} nm, as {setting} says",
            f"If the data has this voxel size, set {setting}='{_numbers(entry.voxel_size)}' (a network "
            "only fits the voxel size that it was trained for); else correct the entry",
        )
        for entry in entries
        if any(abs(a - b) > 1e-6 * b for a, b in zip(entry.voxel_size, voxel_size, strict=True))
    ]  # fmt: skip
    if problems:
        raise ConfigError(report(problems, "entries have another voxel size"))


def check_training_data(
    config: TrainingConfig, training: Sequence[DataEntry], validation: Sequence[DataEntry]
) -> None:
    """Run the checks of a training that need no volume, to the first that fails.

    Raises:
        ConfigError: no entries, numbers of classes or voxel sizes that disagree, or nothing is labelled.
    """
    for check in training_checks(config, training, validation):
        check()


def training_checks(
    config: TrainingConfig, training: Sequence[DataEntry], validation: Sequence[DataEntry]
) -> list[Callable[[], None]]:
    """Return the checks of a training that need no volume; each raises a ConfigError of its own."""
    return [
        partial(_check_any_entry, config, training),
        partial(_check_not_downsampled, config),
        partial(check_loop, config),
        partial(check_classes, config, [*training, *validation]),
        partial(check_voxel_sizes, [*training, *validation], config.data.voxel_size),
        partial(_check_labelled, training),
    ]


def _check_any_entry(config: TrainingConfig, training: Sequence[DataEntry]) -> None:
    if not training:
        raise ConfigError(
            explain("training.data", config.training.data or "not set",
                    "a data configuration with at least one entry",
                    "Name a JSON file with regions to train on")
        )  # fmt: skip


def _check_not_downsampled(config: TrainingConfig) -> None:
    if config.data.downsample_factor != 1:
        raise ConfigError(
            explain("data.downsample_factor", config.data.downsample_factor, "1",
                    "Downsample the volume first and give its own voxel size")
        )  # fmt: skip


def _check_labelled(training: Sequence[DataEntry]) -> None:
    if not any(entry.labels for entry in training):
        raise ConfigError(
            explain("labels of the training data", "not set in any entry", "at least one entry with labels",
                    'Add "labels": {"volumes/labels/er": 1} to an entry')
        )  # fmt: skip


def check_loop(config: TrainingConfig) -> None:
    """Check the settings of the training loop that only make sense together.

    Raises:
        ConfigError: two averages of the weights, or one that never begins; a loss without any term.
    """
    training, loss = config.training, config.loss
    if training.ema_decay is not None and training.swa_start is not None:
        raise ConfigError(
            explain("training.swa_start", f"{training.swa_start} beside ema_decay = {training.ema_decay}",
                    "one of the two, since one average of the weights is saved", "Set the other one to none")
        )  # fmt: skip
    if training.swa_start is not None and training.swa_start > training.iterations:
        raise ConfigError(
            explain("training.swa_start", training.swa_start,
                    f"an iteration up to the last one, training.iterations = {training.iterations}",
                    "Begin earlier: the last quarter is usual")
        )  # fmt: skip
    if not any((loss.cross_entropy_weight, loss.bce_weight, loss.dice_weight)):
        raise ConfigError(
            explain("loss.cross_entropy_weight", "0, as bce_weight and dice_weight are",
                    "at least one of the three above 0", "Leave it out for the published loss")
        )  # fmt: skip


def check_prediction_data(config: PredictionConfig, entries: Sequence[DataEntry]) -> None:
    """Run the checks of a prediction that need no volume, to the first that fails.

    Raises:
        ConfigError: numbers of classes or voxel sizes disagree.
    """
    for check in prediction_checks(config, entries):
        check()


def prediction_checks(config: PredictionConfig, entries: Sequence[DataEntry]) -> list[Callable[[], None]]:
    """Return the checks of a prediction that need no volume; each raises a ConfigError of its own."""
    return [
        partial(check_classes, config, entries),
        partial(check_voxel_sizes, entries, config.data.voxel_size),
    ]


def check_network_sizes(
    section: str,
    sizes: NetworkSizes,
    output_shape: Callable[[Shape], Sequence[int]],
    input_shape_for: Callable[[Shape], Sequence[int]],
) -> None:
    """Check `input_size_voxels` and `output_size_voxels` of a section against the network.

    Args:
        section: `training`, `validation` or `prediction`, for the message.
        sizes: the section.
        output_shape: the network's output shape of an input shape; may raise an IncasemError.
        input_shape_for: the smallest input shape of the network for an output shape.

    Raises:
        ConfigError: the network turns the input size into another output size, or cannot take it.
    """
    input_size_voxels, output_size_voxels = sizes.input_size_voxels, sizes.output_size_voxels
    try:
        actual: Shape | None = _shape(output_shape(input_size_voxels))
    except IncasemError:
        actual = None
    if actual == tuple(output_size_voxels):
        return
    # The smallest input may emit more than was asked for, so the pair that is named is the network's own.
    fitting_input = _shape(input_shape_for(output_size_voxels))
    fitting_output = _shape(output_shape(fitting_input))
    emits = "an input that this network cannot take" if actual is None else f"an output of {list(actual)}"
    raise ConfigError(
        f"{section}.input_size_voxels is {list(input_size_voxels)}, {emits}, "
        f"but {section}.output_size_voxels is {list(output_size_voxels)}; allowed: sizes that belong "
        f"together. Nearest: {section}.input_size_voxels='{list(fitting_input)}' "
        f"{section}.output_size_voxels='{list(fitting_output)}'."
    )


def _shape(values: Sequence[int]) -> Shape:
    z, y, x = (int(v) for v in values)
    return (z, y, x)


def _numbers(values: Sequence[float]) -> str:
    return "[" + ", ".join(f"{v:g}" for v in values) + "]"
