"""Where a training begins: network, optimizer and average, of a new run or of one that builds on another."""

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
from incasem.training.optimization import WeightAverage, make_optimizer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingState:
    """Network, optimizer and average on the device of the training; see `Trainer`."""

    network: ValidNetwork
    optimizer: torch.optim.Optimizer
    result: ValidNetwork
    average: WeightAverage | None


def initial_state(
    config: TrainingConfig,
    network: ValidNetwork,
    checkpoint: Checkpoint | None,
    device: torch.device,
    *,
    continues: bool,
) -> TrainingState:
    """Return the state of a new run, of one that fine-tunes, or of one that goes on.

    Args:
        config: its `seed` gives the weights of a new run.
        network: of `config.model`; it becomes the network in training.
        checkpoint: what the run builds on, None for new weights.
        device: of the training.
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
    optimizer = make_optimizer(network, settings.optimizer.lr, settings.optimizer.weight_decay)
    if checkpoint is not None:
        _restore_optimizer(optimizer, checkpoint, continues=continues)
    average = None if settings.ema_decay is None else WeightAverage(result, settings.ema_decay)
    return TrainingState(network, optimizer, result, average)


def _restore_optimizer(optimizer: torch.optim.Optimizer, checkpoint: Checkpoint, *, continues: bool) -> None:
    """Take over the optimizer's moments; fine-tuning does without where they are of other parameters."""
    if continues:
        load_optimizer(optimizer, checkpoint)
    elif checkpoint.optimizer_state is not None:
        try:
            load_optimizer(optimizer, checkpoint)
        except CheckpointError as error:
            logger.warning("The optimizer begins anew: %s", error)
