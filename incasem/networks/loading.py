"""Putting a checkpoint into a network, and saying why where it does not fit."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from incasem.errors import CheckpointError
from incasem.networks.checkpoint import Checkpoint

_SHOWN = 5
_RESIDUAL = "conv_in.conv.weight"
"""Its first filters; no other network has a parameter of this name."""


def load_into(network: nn.Module, checkpoint: Checkpoint, *, for_training: bool = False) -> None:
    """Copy the checkpoint's weights into ``network``; every parameter must be there and fit.

    Args:
        network: changed in place.
        checkpoint: of the same architecture.
        for_training: take the state of the training, where the checkpoint has it besides the weights.

    Raises:
        CheckpointError: names differ or shapes differ; says which, and the setting that is the likely cause.
    """
    state = checkpoint.model_state
    if for_training and checkpoint.training_state is not None:
        state = checkpoint.training_state
    own = network.state_dict()
    problems = [
        _list("missing", own.keys() - state.keys()),
        _list("unexpected", state.keys() - own.keys()),
        _list(
            "of another shape",
            [
                f"{name} ({_times(state[name])} in the checkpoint, {_times(own[name])} in the network)"
                for name in own.keys() & state.keys()
                if state[name].shape != own[name].shape
            ],
        ),
    ]
    if any(problems):
        raise CheckpointError(
            f"checkpoint {checkpoint.path} does not fit the network: "
            + "; ".join(problem for problem in problems if problem)
            + f". {_likely_cause(state, own)}"
        )
    network.load_state_dict(state, strict=True)


def load_optimizer(
    optimizer: torch.optim.Optimizer, checkpoint: Checkpoint, *, keep_settings: bool = True
) -> None:
    """Restore the optimizer's moments (and step count) from a checkpoint.

    Args:
        optimizer: changed in place; its parameters must be the network's, in registration order.
        checkpoint: with an optimizer state.
        keep_settings: keep learning rate, weight decay and the like of ``optimizer`` rather than taking the
            checkpoint's. The published code took the checkpoint's, so that fine-tuning ignored the config.

    Raises:
        CheckpointError: the checkpoint has no optimizer state, or one of other parameters.
    """
    if checkpoint.optimizer_state is None:
        raise CheckpointError(
            f"checkpoint {checkpoint.path} has no 'optimizer_state_dict', so a training cannot continue "
            "from it. Start a new one from its weights (--start_from)."
        )
    settings = [
        {key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups
    ]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    moments = checkpoint.optimizer_state.get("state", {})
    for index, parameter in enumerate(parameters):
        moment = moments.get(index, {}).get("exp_avg")
        if moment is not None and moment.shape != parameter.shape:
            raise CheckpointError(
                f"optimizer state of checkpoint {checkpoint.path} does not fit the network: parameter "
                f"{index} is {_times(moment)} there, {_times(parameter)} here. Use the model settings "
                "that the checkpoint was trained with."
            )
    try:
        optimizer.load_state_dict(checkpoint.optimizer_state)
    except (ValueError, KeyError) as error:
        raise CheckpointError(
            f"optimizer state of checkpoint {checkpoint.path} does not fit: {error}. Use the model settings "
            "that the checkpoint was trained with."
        ) from error
    if keep_settings:
        for group, kept in zip(optimizer.param_groups, settings, strict=True):
            group.update(kept)


def infer_model_settings(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the `model` settings that the names and shapes of a U-Net's parameters reveal.

    Empty where the parameters are not those of a U-Net. The pooling factors show only in a learnt
    upsampling; otherwise `downsample_factors` is given as its length, under `depth`.
    """
    first = state.get("unet.l_conv.0.conv_pass.0.weight")
    last = state.get("final_conv_pass.conv_pass.0.weight")
    depth = len({name.split(".")[2] for name in state if name.startswith("unet.l_conv.")}) - 1
    below = state.get("unet.l_conv.1.conv_pass.0.weight")
    if first is None or last is None or below is None:
        return {}
    upsampling = [state.get(f"unet.r_up.0.{level}.up.weight") for level in range(depth)]
    settings: dict[str, Any] = {
        "num_fmaps": first.shape[0],
        "in_channels": first.shape[1],
        "num_fmaps_out": last.shape[0],
        "fmap_inc_factor": below.shape[0] // below.shape[1],
        "constant_upsample": upsampling[0] is None,
    }
    if any(weight is None for weight in upsampling):
        settings["depth"] = depth
    else:
        settings["downsample_factors"] = [list(w.shape[2:]) for w in upsampling if w is not None]
    return settings


def _likely_cause(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    if _RESIDUAL in state or _RESIDUAL in own:
        if _RESIDUAL not in state:
            return "It holds no ResidualUnet. Use another checkpoint or model.type."
        if _RESIDUAL not in own:
            return "It holds a ResidualUnet. Set model.type to ResidualUnet."
        return _of_residual(state, own)
    theirs, ours = infer_model_settings(state), infer_model_settings(own)
    if not theirs:
        return "It holds no U-Net of incasem. Use another checkpoint or model.type."
    if not ours:
        return "It holds a U-Net. Set model.type to Unet."
    names = {"depth": "model.downsample_factors (their number)"}
    differing = [
        f"{names.get(name, 'model.' + name)} is {value} in the checkpoint, {ours[name]} in the settings"
        for name, value in theirs.items()
        if name in ours and value != ours[name]
    ]
    if not differing:
        return "Use the model settings that the checkpoint was trained with."
    return f"Likely cause: {'; '.join(differing)}. Use the checkpoint's."


def _of_residual(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """Return which settings of a `ResidualUnet` differ, as far as names and shapes reveal them."""
    levels = [len({n.split(".")[1] for n in names if n.startswith("down.")}) for names in (state, own)]
    if levels[0] != levels[1]:
        return (
            f"Likely cause: {levels[0]} levels in the checkpoint, {levels[1]} in the settings "
            "(model.downsample_factors has one less). Use the checkpoint's."
        )
    theirs, ours = ([_first_filters(names, level) for level in range(levels[0])] for names in (state, own))
    settings = {
        "model.filters": tuple([w.shape[0] for w in filters] for filters in (theirs, ours)),
        "model.kernel_sizes": tuple([list(w.shape[2:]) for w in filters] for filters in (theirs, ours)),
        "model.io_kernel_size": tuple(list(names[_RESIDUAL].shape[2:]) for names in (state, own)),
        "model.norm": tuple("conv_in.norm.weight" in names for names in (state, own)),
        "model.num_fmaps_out": tuple(names["conv_out.weight"].shape[0] for names in (state, own)),
    }
    said = [
        f"{name} is {a} in the checkpoint, {b} in the settings"
        if name != "model.norm"
        else f"model.norm is {'group or channel' if a else 'none'} in the checkpoint"
        for name, (a, b) in settings.items()
        if a != b
    ]
    cause = f"Likely cause: {'; '.join(said)}. " if said else ""
    return f"{cause}Use the model settings that the checkpoint was trained with."


def _first_filters(state: Mapping[str, Tensor], level: int) -> Tensor:
    return state[f"down.{level}.0.conv.weight"]


def _list(what: str, names: Iterable[str]) -> str:
    ordered = sorted(names)
    if not ordered:
        return ""
    more = f" and {len(ordered) - _SHOWN} more" if len(ordered) > _SHOWN else ""
    return f"{len(ordered)} parameters {what}: {', '.join(ordered[:_SHOWN])}{more}"


def _times(tensor: Tensor) -> str:
    return "×".join(str(size) for size in tensor.shape)
