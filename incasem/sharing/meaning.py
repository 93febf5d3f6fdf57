"""What a shared network was trained for, as its files say it, and the network that is left to share."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from incasem.config import TaskSettings
from incasem.errors import CheckpointError, ConfigError, explain
from incasem.networks import ValidNetwork, build_network
from incasem.sharing.outputs import AffinityOutputs, ClassOutputs, Outputs


def task_settings(described: Mapping[str, Any], checkpoint: Path) -> TaskSettings:
    """Return the section `task` of the training from a checkpoint's JSON file or the settings of a run.

    Raises:
        CheckpointError: what is said of it cannot be read, or the offsets of affinities are not said.
    """
    task = described.get("task") or "semantic"
    section = described.get("task_settings") or {"type": task} if isinstance(task, str) else task
    said = section.get("type") if isinstance(section, Mapping) else section
    allowed = "semantic, or affinities with their offsets"
    hint = "Add --run_id of its training, or restore the JSON file beside the checkpoint"
    if said == "affinities" and "offsets" not in section:
        raise CheckpointError(
            explain(f"the task of {checkpoint}", "affinities without offsets", allowed, hint)
        )
    try:
        return TaskSettings.model_validate(section)
    except ValidationError:
        raise CheckpointError(explain(f"the task of {checkpoint}", section, allowed, hint)) from None


def outputs_of(
    task: TaskSettings, network: ValidNetwork, names: Sequence[str], recorded: Sequence[str]
) -> Outputs:
    """Return what the channels mean.

    Args:
        task: of the training.
        network: as it was trained.
        names: `--classes`.
        recorded: names of the classes in the checkpoint's JSON file, perhaps none.

    Raises:
        ConfigError: more or fewer names than there are classes.
        CheckpointError: the task has another number of channels.
    """
    if task.type == "semantic":
        return ClassOutputs(_classes(names or recorded, network.num_fmaps_out))
    if names:
        raise ConfigError(
            explain(
                "--classes", " ".join(names), "no names: channels of affinities are called by their offsets",
                "Leave it out",
            )
        )  # fmt: skip
    if network.num_fmaps_out != task.affinity_channels:
        raise CheckpointError(
            explain(
                "model.num_fmaps_out", network.num_fmaps_out,
                f"{task.affinity_channels}, one for each of task.offsets and ten more with task.descriptors",
                "Restore the JSON file beside the checkpoint",
            )
        )  # fmt: skip
    return AffinityOutputs(task.offsets, task.descriptors)


def first_channels(network: ValidNetwork, model: Mapping[str, Any], channels: int) -> ValidNetwork:
    """Return a network that gives the first ``channels`` of the output only, with the same numbers.

    Args:
        network: of the section ``model``.
        model: its settings.
        channels: at most those that it has.
    """
    if channels == network.num_fmaps_out:
        return network
    smaller = build_network({**model, "num_fmaps_out": channels})
    whole = network.state_dict()
    # Only the last convolution has another shape, and its filters come one an output channel.
    state = {
        name: whole[name][: len(own)] if own.ndim else whole[name]
        for name, own in smaller.state_dict().items()
    }
    smaller.load_state_dict(state)
    return smaller


def _classes(names: Sequence[str], channels: int) -> tuple[str, ...]:
    if names and len(names) != channels - 1:
        raise ConfigError(
            explain(
                "--classes",
                " ".join(names),
                f"{channels - 1} names, one for each class but the background",
                "Correct the names",
            )
        )
    return ("background", *(names or [f"class_{number}" for number in range(1, channels)]))
