"""What is learnt: targets, losses, and the network."""

import math
from typing import Any

from incasem.errors import ConfigError, explain
from incasem.sharing.connectomics.listing import Listing

_NEAREST = [[-1, 0, 0], [0, -1, 0], [0, 0, -1]]
_TARGETS = {
    "1": "synaptic polarity", "3": "small objects", "4": "contours", "5": "distance of instances",
    "6": "distance of classes", "7": "flows", "8": "skeletons", "9": "several classes",
}  # fmt: skip
_NORMS = {"gn": "group", "none": "none", "bn": "channel", "sync_bn": "channel", "in": "channel"}
_ACTIVATIONS = {"elu": "elu", "relu": "relu"}
_ARCHITECTURES = ("unet_3d", "unet_residual_3d")
_BALANCE = {"clipmin": 0.05, "clipmax": 0.95}
"""Of the weight option "1" there: what is rarer weighs at most 19 times as much."""


def map_task(listing: Listing) -> dict[str, Any]:
    """Return the sections `task`, `data` and `loss` of the targets that we have.

    Raises:
        ConfigError: there are none among them.
    """
    targets = [str(target) for target in _list(listing, "MODEL.TARGET_OPT")]
    affinities = [k for k, target in enumerate(targets) if target[:1] == "2"]
    chosen = affinities or [k for k, target in enumerate(targets) if target == "0"][:1]
    if not chosen:
        allowed = "a target 2 (affinities) or 0 (foreground)"
        raise ConfigError(
            explain("MODEL.TARGET_OPT", targets, allowed, "The others have no counterpart here")
        )
    for k, target in enumerate(targets):
        if k not in chosen:
            what = _TARGETS.get(target[:1], "foreground")
            listing.lose(f"MODEL.TARGET_OPT {target} ({what})", "there is one kind of target here")
    loss = _map_loss(listing, chosen[0])
    if not affinities:
        listing.take("task.type = semantic", "MODEL.TARGET_OPT")
        return {
            "task": {"type": "semantic"},
            "data": {"num_classes": 2},
            "loss": {"weight": [1.0, 1.0], **loss, "balance_labels": dict(_BALANCE)},
        }
    if any(_map_loss(listing, k) != loss for k in chosen):
        listing.lose("MODEL.LOSS_OPTION of the further targets", "all offsets have the loss of the first")
    offsets = [offset for k in chosen for offset in offsets_of(targets[k])]
    if not any(sum(map(abs, offset)) == 1 for offset in offsets):
        raise ConfigError(
            explain(
                "MODEL.TARGET_OPT", targets, "among them the nearest edges, 2", "Fragments need them: add 2"
            )
        )
    listing.take(
        "task.offsets", "MODEL.TARGET_OPT", but="edges that leave the volume do not count (there they are 1)"
    )
    erosion = listing.settings["MODEL.LABEL_EROSION"]
    steps = _whole(listing, "MODEL.LABEL_EROSION") if erosion is not None else 0
    listing.take("task.border_erosion", "MODEL.LABEL_EROSION")
    unique = [list(offset) for offset in dict.fromkeys(map(tuple, offsets))]
    return {
        "task": {"type": "affinities", "offsets": unique, "border_erosion": steps},
        "data": {},
        "loss": {**loss, "balance_labels": dict(_BALANCE)},
    }


def offsets_of(target: str) -> list[list[int]]:
    """Return the offsets of a target ``2`` or ``2-z-y-x`` or ``2-z-y-x-version``.

    ``v0`` and ``v1`` compare a voxel with the one before it, channels z, y, x; ``pni`` has them x, y, z;
    ``v2`` compares the two voxels around it, for which there is no offset.

    Raises:
        ConfigError: another form, or ``v2``.
    """
    parts = target.split("-")
    if len(parts) == 1:
        return [list(offset) for offset in _NEAREST]
    version = parts[4] if len(parts) == 5 else "v1"
    well_formed = len(parts) in (4, 5) and all(part.isdigit() and int(part) > 0 for part in parts[1:4])
    if not well_formed or version not in ("v0", "v1", "pni"):
        raise ConfigError(
            explain(
                "MODEL.TARGET_OPT", target, "2, 2-z-y-x or 2-z-y-x-version with version v0, v1 or pni",
                "Of version v2 an edge lies around a voxel, which is no offset from it",
            )
        )  # fmt: skip
    z, y, x = [1, 1, 1] if version == "v0" else map(int, parts[1:4])
    made = [[-z, 0, 0], [0, -y, 0], [0, 0, -x]]
    return made[::-1] if version == "pni" else made


def _map_loss(listing: Listing, target: int) -> dict[str, float]:
    names, weights, balances = (
        _of_target(listing, key, target)
        for key in ("MODEL.LOSS_OPTION", "MODEL.LOSS_WEIGHT", "MODEL.WEIGHT_OPT")
    )
    if not len(names) == len(weights) == len(balances):
        raise ConfigError(
            explain(
                "MODEL.LOSS_OPTION, LOSS_WEIGHT and WEIGHT_OPT", f"{names}, {weights}, {balances}",
                "lists of the same length for each target", "Correct them",
            )
        )  # fmt: skip
    loss = {"cross_entropy_weight": 0.0, "bce_weight": 0.0, "dice_weight": 0.0}
    for name, weight, balance in zip(names, weights, balances, strict=True):
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
            raise ConfigError(
                explain("MODEL.LOSS_WEIGHT", weights, "a number of at least 0 for each loss", "Correct it")
            )
        key = _loss_key(str(name), str(balance))
        if key is None:
            listing.lose(f"MODEL.LOSS_OPTION {name}", "losses are binary cross-entropy and Dice")
            continue
        loss[key] += float(weight)
        if str(balance) not in ("0", "1"):
            listing.lose(
                f"MODEL.WEIGHT_OPT {balance}", "edges are balanced by their share (1) or not at all (0)"
            )
    if not any(loss.values()):
        raise ConfigError(
            explain(
                "MODEL.LOSS_OPTION",
                names,
                "at least one of WeightedBCEWithLogitsLoss and DiceLoss",
                "Choose one",
            )
        )
    listing.take(
        "loss." + ", loss.".join(key for key, value in loss.items() if value),
        "MODEL.LOSS_OPTION", "MODEL.LOSS_WEIGHT", "MODEL.WEIGHT_OPT",
    )  # fmt: skip
    return loss


def _loss_key(name: str, balance: str) -> str | None:
    if name.lower().startswith("dice"):
        return "dice_weight"
    if name.lower().startswith(("weightedbce", "bce")) and "focal" not in name.lower():
        return "bce_weight" if balance == "0" else "cross_entropy_weight"
    return None


def _of_target(listing: Listing, key: str, target: int) -> list[Any]:
    values = _list(listing, key)
    if len(values) <= target or not isinstance(values[target], list):
        raise ConfigError(explain(key, values, "a list of lists, one for each target", "Correct it"))
    return list(values[target])


def map_network(listing: Listing, channels: int) -> dict[str, Any]:
    """Return the section `model`: a residual U-Net of the same levels.

    Raises:
        ConfigError: levels that do not fit each other.
    """
    settings = listing.settings
    filters, isotropy = _list(listing, "MODEL.FILTERS"), _list(listing, "MODEL.ISOTROPY")
    whole = filters and all(type(f) is int and f > 0 for f in filters)
    if not whole or len(filters) > len(isotropy) or not all(isinstance(i, bool) for i in isotropy):
        raise ConfigError(
            explain(
                "MODEL.FILTERS and MODEL.ISOTROPY", f"{filters} and {isotropy}",
                "as many whole numbers as levels, and for each true or false", "Correct them",
            )
        )  # fmt: skip
    if settings["MODEL.IN_PLANES"] == 1:
        listing.take("so here anyhow", "MODEL.IN_PLANES")
    else:
        listing.lose("MODEL.IN_PLANES", "raw data have one channel")
    architecture, block = settings["MODEL.ARCHITECTURE"], settings["MODEL.BLOCK_TYPE"]
    if architecture in _ARCHITECTURES:
        listing.take(
            "model.type = ResidualUnet", "MODEL.ARCHITECTURE",
            but="without padding, with pooling and nearest upsampling: weights cannot be exchanged",
        )  # fmt: skip
    else:
        listing.lose("MODEL.ARCHITECTURE", "the network is a ResidualUnet of the same filters")
    if block != "residual":
        listing.lose("MODEL.BLOCK_TYPE", "blocks are plain residual ones")
    else:
        listing.take("model.type = ResidualUnet", "MODEL.BLOCK_TYPE")
    levels = isotropy[: len(filters)]
    listing.take("model.filters", "MODEL.FILTERS")
    listing.take("model.kernel_sizes, model.downsample_factors, model.io_kernel_size", "MODEL.ISOTROPY")
    return {
        "type": "ResidualUnet",
        "num_fmaps_out": channels,
        "filters": list(filters),
        "kernel_sizes": [[3 if flat else 1, 3, 3] for flat in levels],
        "downsample_factors": [[2 if flat else 1, 2, 2] for flat in levels[1:]],
        "io_kernel_size": [5 if levels[0] else 1, 5, 5],
        "norm": _named(listing, "MODEL.NORM_MODE", _NORMS, "channel"),
        "activation": _named(listing, "MODEL.ACT_MODE", _ACTIVATIONS, "relu"),
        "constant_upsample": True,
    }


def _named(listing: Listing, key: str, names: dict[str, str], otherwise: str) -> str:
    value = str(listing.settings[key]).lower()
    ours = names.get(value, otherwise)
    setting = f"model.{'norm' if names is _NORMS else 'activation'} = {ours}"
    if value in names and (names is not _NORMS or value in ("gn", "none")):
        tiles = "statistics are those of the whole tile, as there" if ours == "group" else ""
        listing.take(f"{setting}{f' ({tiles})' if tiles else ''}", key)
    elif names is _NORMS:
        listing.take(
            setting,
            key,
            but="of each voxel by itself: statistics of batches or whole tiles make results depend on tiles",
        )
    else:
        listing.take(setting, key, but="there are elu and relu")
    return ours


def _list(listing: Listing, key: str) -> list[Any]:
    value = listing.settings[key]
    if not isinstance(value, list | tuple) or not value:
        raise ConfigError(explain(key, value, "a list", "Correct it"))
    return list(value)


def _whole(listing: Listing, key: str, least: int = 0) -> int:
    value = listing.settings[key]
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or value != math.floor(value)
        or value < least
    ):
        raise ConfigError(explain(key, value, f"a whole number of at least {least}", "Correct it"))
    return int(value)
