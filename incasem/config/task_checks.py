"""Checks of what is learnt: the network's channels, the labels and the losses must belong to the task."""

from collections.abc import Callable, Mapping, Sequence

from incasem.config.data_config import DataEntry
from incasem.config.layers import report
from incasem.config.prediction import PredictionConfig
from incasem.config.training import TrainingConfig
from incasem.errors import ConfigError, explain

Config = TrainingConfig | PredictionConfig


def check_classes(config: Config, entries: Sequence[DataEntry] = ()) -> None:
    """Check that channels of the network and labels are those of the task.

    Semantic segmentation: the number of classes is the same wherever it is written. These agree:
    `data.num_classes`, `model.num_fmaps_out`, the length of `loss.weight` (trainings), and, for entries with
    labels, their number of label datasets + 1 for the background.

    Affinities: `model.num_fmaps_out` is the number of `task.offsets` (+ 10 for the descriptors), and each
    entry with labels has one dataset, of object ids. `data.num_classes` and `loss.weight` are not looked at.

    Raises:
        ConfigError: they are not.
    """
    _CHECKS[config.task.type](config, entries)


def _check_semantic(config: Config, entries: Sequence[DataEntry]) -> None:
    wanted = config.data.num_classes
    counts = {"data.num_classes": wanted, "model.num_fmaps_out": config.model.num_fmaps_out}
    if isinstance(config, TrainingConfig):
        counts["len(loss.weight)"] = len(config.loss.weight)
    if len(set(counts.values())) > 1:
        found = ", ".join(f"{name} = {count}" for name, count in counts.items())
        weights = ", ".join(["1."] * wanted)
        raise ConfigError(
            f"the numbers of classes disagree: {found}; allowed: the same number, one for the "
            f"background and one for each label. For {wanted} classes set "
            f"data.num_classes={wanted} model.num_fmaps_out={wanted} loss.weight='[{weights}]'."
        )
    problems = [
        explain(
            f"{entry.nickname}.labels", f"{len(entry.labels)} dataset(s)",
            f"{wanted - 1}, one for each class of data.num_classes = {wanted} but the background",
            f"Correct the labels, or set data.num_classes={len(entry.labels) + 1} and with it "
            "model.num_fmaps_out and loss.weight",
        )
        for entry in entries if entry.labels and len(entry.labels) != wanted - 1
    ]  # fmt: skip
    if problems:
        raise ConfigError(report(problems, "entries do not fit data.num_classes"))


def _check_affinities(config: Config, entries: Sequence[DataEntry]) -> None:
    task, channels = config.task, config.model.num_fmaps_out
    if channels != task.affinity_channels:
        descriptors = " and 10 for task.descriptors" if task.descriptors else ""
        raise ConfigError(
            explain(
                "model.num_fmaps_out", channels,
                f"{task.affinity_channels} with task.type=affinities: one for each of the "
                f"{len(task.offsets)} task.offsets{descriptors}",
                f"Set model.num_fmaps_out={task.affinity_channels}",
            )
        )  # fmt: skip
    problems = [
        explain(
            f"{entry.nickname}.labels", f"{len(entry.labels)} datasets",
            "one dataset of object ids, since task.type is affinities",
            'Name it as "labels": {"volumes/labels/neuron_ids": 1}',
        )
        for entry in entries if len(entry.labels) > 1
    ]  # fmt: skip
    if problems:
        raise ConfigError(report(problems, "entries have more than one label dataset"))


_CHECKS: Mapping[str, Callable[[Config, Sequence[DataEntry]], None]] = {
    "semantic": _check_semantic,
    "affinities": _check_affinities,
}
