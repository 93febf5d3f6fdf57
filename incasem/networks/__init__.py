"""Networks, losses, checkpoints, and running a network fast; `torch` only, knows nothing of volumes."""

from incasem.networks.build import OneConv3d, build_network
from incasem.networks.channel_losses import channel_bce, channel_dice, channel_mse
from incasem.networks.checkpoint import (
    Checkpoint,
    latest_checkpoint,
    load_checkpoint,
    read_sidecar,
    save_checkpoint,
    write_sidecar,
)
from incasem.networks.inference import (
    Backend,
    InferenceNetwork,
    check_backend,
    choose_precision,
    rearranged,
)
from incasem.networks.initialisation import initialise
from incasem.networks.loading import infer_model_settings, load_into, load_optimizer
from incasem.networks.losses import balanced_cross_entropy, dice_of_sums, soft_dice, weighted_bce
from incasem.networks.portable import Crop, PortableResidualUnet, PortableUnet, portable
from incasem.networks.residual_unet import ResidualUnet
from incasem.networks.selection import (
    ScoredCheckpoint,
    best_checkpoint,
    best_scored_checkpoint,
    mean_f1,
    mean_score,
    remove_old_checkpoints,
)
from incasem.networks.unet import Unet
from incasem.networks.valid import ValidNetwork
from incasem.networks.weight_standardization import learnt_filters, plain_state, standardise

__all__ = [
    "Backend",
    "Checkpoint",
    "Crop",
    "InferenceNetwork",
    "OneConv3d",
    "PortableResidualUnet",
    "PortableUnet",
    "ResidualUnet",
    "ScoredCheckpoint",
    "Unet",
    "ValidNetwork",
    "balanced_cross_entropy",
    "best_checkpoint",
    "best_scored_checkpoint",
    "build_network",
    "channel_bce",
    "channel_dice",
    "channel_mse",
    "check_backend",
    "choose_precision",
    "dice_of_sums",
    "infer_model_settings",
    "initialise",
    "latest_checkpoint",
    "learnt_filters",
    "load_checkpoint",
    "load_into",
    "load_optimizer",
    "mean_f1",
    "mean_score",
    "plain_state",
    "portable",
    "read_sidecar",
    "rearranged",
    "remove_old_checkpoints",
    "save_checkpoint",
    "soft_dice",
    "standardise",
    "weighted_bce",
    "write_sidecar",
]
