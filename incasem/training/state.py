"""Where a training begins: the network and all that changes with it, anew or on top of another run."""

import copy
import logging
from dataclasses import dataclass

import torch

from incasem.config import TrainingConfig
from incasem.errors import CheckpointError
from incasem.networks import (
    Checkpoint,
    ValidNetwork,
    initialise,
    load_into,
    load_optimizer,
    standardise,
)
from incasem.training.optimization import WeightAverage, make_optimizer, weight_average

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingState:
    """What a training changes from step to step, on its device; see `Stepper` and `Trainer`."""

    network: ValidNetwork
    optimizer: torch.optim.Optimizer
    result: ValidNetwork
    average: WeightAverage | None
    scaler: torch.amp.GradScaler


def initial_state(
    config: TrainingConfig,
    network: ValidNetwork,
    checkpoint: Checkpoint | None,
    device: torch.device,
    precision: torch.dtype,
    *,
    continues: bool,
) -> TrainingState:
    """Return the state of a new run, of one that fine-tunes, or of one that goes on.

    Args:
        config: its `seed` gives the weights of a new run.
        network: of `config.model`; it becomes the network in training.
        checkpoint: what the run builds on, None for new weights.
        device: of the training.
        precision: of the training; only the gradients of float16 need scaling.
        continues: the run goes on where the checkpoint was written, rather than begin anew with its weights.

    Raises:
        CheckpointError: a checkpoint of another network.
        ConfigError: `training.weight_standardization` of a network that was trained without it.
    """
    settings = config.training
    torch.manual_seed(config.seed if config.seed is not None else 0)
    initialise(network, centred=settings.weight_standardization)
    if checkpoint is not None:
        load_into(network, checkpoint)
    result = copy.deepcopy(network)
    if settings.weight_standardization:
        standardise(network)
    # The result, the average of the run so far, has its weights already; the network has others behind it.
    if continues and checkpoint is not None:
        load_into(network, checkpoint, for_training=True)
    for module in (network, result):
        module.to(device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    optimizer = make_optimizer(network, settings.optimizer)
    if checkpoint is not None:
        _restore_optimizer(optimizer, checkpoint, continues=continues)
    # Small gradients would be 0 in float16 (Micikevicius et al., "Mixed precision training", ICLR 2018).
    scaler = torch.amp.GradScaler(device.type, enabled=precision == torch.float16)
    if continues and checkpoint is not None and checkpoint.scaler_state is not None:
        scaler.load_state_dict(checkpoint.scaler_state)
    return TrainingState(network, optimizer, result, weight_average(result, settings), scaler)


def _restore_optimizer(optimizer: torch.optim.Optimizer, checkpoint: Checkpoint, *, continues: bool) -> None:
    """Take over the optimizer's moments; fine-tuning does without where they are of other parameters."""
    if continues:
        load_optimizer(optimizer, checkpoint)
    elif checkpoint.optimizer_state is not None:
        try:
            load_optimizer(optimizer, checkpoint)
        except CheckpointError as error:
            logger.warning("The optimizer begins anew: %s", error)
