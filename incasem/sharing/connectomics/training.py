"""How it is learnt: iterations, optimizer, samples, augmentation."""

import math
from typing import Any

from incasem.errors import ConfigError, explain
from incasem.sharing.connectomics.listing import Listing

_ADAM_LR = 1e-4
"""Taken where the rate given is one for SGD."""


def number(listing: Listing, key: str, *, whole: bool = False, least: float = 0) -> Any:
    """Return a number of the settings; probabilities and shares are at most 1.

    Raises:
        ConfigError: it is none, too small, or too large.
    """
    value = listing.settings[key]
    most = 1.0 if key.endswith((".P", "_RATIO")) else math.inf
    good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not good or not least <= value <= most or (whole and value != math.floor(value)):
        kind = "a whole number" if whole else "a number"
        range_ = f"of at least {least:g}" if math.isinf(most) else f"from {least:g} to {most:g}"
        raise ConfigError(explain(key, value, f"{kind} {range_}", "Correct it"))
    return int(value) if whole else float(value)


def map_training(listing: Listing) -> dict[str, Any]:
    """Return the section `training`, without sizes and data."""
    made: dict[str, Any] = {}
    for key, ours, least in (
        ("SOLVER.ITERATION_TOTAL", "iterations", 1),
        ("SOLVER.SAMPLES_PER_BATCH", "batch_size", 1),
        ("SOLVER.ITERATION_STEP", "accumulate", 1),
        ("SOLVER.ITERATION_SAVE", "save_every", 1),
    ):
        made[ours] = number(listing, key, whole=True, least=least)
        listing.take(f"training.{ours}", key)
    made["precache"] = {"num_workers": number(listing, "SYSTEM.NUM_CPUS", whole=True)}
    listing.take("training.precache.num_workers", "SYSTEM.NUM_CPUS")
    mixed = listing.settings["MODEL.MIXED_PRECESION"]
    if mixed is not None:
        made["precision"] = "auto" if mixed else "fp32"
        listing.take(f"training.precision = {made['precision']}", "MODEL.MIXED_PRECESION")
    made["optimizer"] = _optimizer(listing)
    made |= _clipping(listing) | _averaging(listing)
    made["reject"] = _reject(listing)
    made["augmentation"] = _augmentation(listing)
    return made


def _optimizer(listing: Listing) -> dict[str, Any]:
    name, rate = str(listing.settings["SOLVER.NAME"]), number(listing, "SOLVER.BASE_LR", least=1e-12)
    made: dict[str, Any] = {"type": "adam", "lr": rate}
    if name == "Adam":
        listing.take("training.optimizer.type = adam", "SOLVER.NAME")
        listing.take("training.optimizer.lr", "SOLVER.BASE_LR")
    elif name == "AdamW":
        listing.take(
            "training.optimizer.type = adam", "SOLVER.NAME", but="the decay is added to the gradient (L2)"
        )
        listing.take("training.optimizer.lr", "SOLVER.BASE_LR")
    else:
        made["lr"] = _ADAM_LR
        listing.lose("SOLVER.NAME", "the optimizer is Adam")
        listing.lose("SOLVER.BASE_LR", f"it is a rate for {name}; training.optimizer.lr is set to {_ADAM_LR}")
    made["weight_decay"] = number(listing, "SOLVER.WEIGHT_DECAY")
    listing.take("training.optimizer.weight_decay", "SOLVER.WEIGHT_DECAY")
    scheduler = str(listing.settings["SOLVER.LR_SCHEDULER_NAME"])
    made["schedule"] = "cosine" if "cosine" in scheduler.lower() else "none"
    if made["schedule"] == "cosine":
        warmed = "there is no warm-up" if "warmup" in scheduler.lower() else ""
        listing.take("training.optimizer.schedule = cosine", "SOLVER.LR_SCHEDULER_NAME", but=warmed)
    else:
        listing.lose("SOLVER.LR_SCHEDULER_NAME", "the rate stays the same; schedules are cosine and poly")
    return made


def _clipping(listing: Listing) -> dict[str, Any]:
    if not listing.settings["SOLVER.CLIP_GRADIENTS.ENABLED"]:
        return {}
    if listing.settings["SOLVER.CLIP_GRADIENTS.CLIP_TYPE"] != "norm":
        listing.lose(
            "SOLVER.CLIP_GRADIENTS.CLIP_TYPE",
            "not single values are clipped, but the norm: training.gradient_clip",
        )
        return {}
    listing.take(
        "training.gradient_clip", "SOLVER.CLIP_GRADIENTS.ENABLED", "SOLVER.CLIP_GRADIENTS.CLIP_TYPE",
        "SOLVER.CLIP_GRADIENTS.CLIP_VALUE", but="it is the norm of all parameters together",
    )  # fmt: skip
    return {"gradient_clip": number(listing, "SOLVER.CLIP_GRADIENTS.CLIP_VALUE")}


def _averaging(listing: Listing) -> dict[str, Any]:
    if not listing.settings["SOLVER.SWA.ENABLED"]:
        return {}
    listing.take("training.swa_start", "SOLVER.SWA.ENABLED", "SOLVER.SWA.START_ITER")
    return {"swa_start": number(listing, "SOLVER.SWA.START_ITER", whole=True)}


def _reject(listing: Listing) -> dict[str, Any]:
    threshold = number(listing, "DATASET.REJECT_SAMPLING.SIZE_THRES", least=-1)
    voxels = math.prod(sizes(listing, "MODEL.OUTPUT_SIZE"))
    listing.take("training.reject.min_masked", "DATASET.REJECT_SAMPLING.SIZE_THRES")
    listing.take("training.reject.reject_probability", "DATASET.REJECT_SAMPLING.P")
    listing.take("training.reject.min_mask", "DATASET.VALID_RATIO")
    return {
        "min_masked": round(min(1.0, threshold / voxels), 6) if threshold > 0 else 0.0,
        "reject_probability": number(listing, "DATASET.REJECT_SAMPLING.P"),
        "min_mask": number(listing, "DATASET.VALID_RATIO"),
    }


def sizes(listing: Listing, key: str) -> list[int]:
    """Return three sizes in voxels.

    Raises:
        ConfigError: they are not three positive whole numbers.
    """
    value = listing.settings[key]
    good = (
        isinstance(value, list | tuple) and len(value) == 3 and all(type(n) is int and n > 0 for n in value)
    )
    if not good:
        raise ConfigError(explain(key, value, "three whole numbers z, y, x", "Correct it"))
    return list(value)


def _augmentation(listing: Listing) -> dict[str, Any]:
    """Return the section `training.augmentation`."""
    settings = listing.settings
    everything = settings["AUGMENTOR.ENABLED"]
    listing.take("training.augmentation", "AUGMENTOR.ENABLED")

    def on(kind: str) -> bool:
        key = f"AUGMENTOR.{kind}.ENABLED"
        listing.take("training.augmentation", key)
        return bool(everything and settings[key])

    made: dict[str, Any] = {"simple": None, "elastic": None, "intensity": None}
    rotates, flips = on("ROTATE"), on("FLIP")
    quarter_turns = rotates and bool(settings["AUGMENTOR.ROTATE.ROT90"])
    if flips or quarter_turns:
        exchanged = [0, 1, 2] if settings["AUGMENTOR.FLIP.DO_ZTRANS"] else [1, 2]
        made["simple"] = {"transpose_only": exchanged}
        listing.take("training.augmentation.simple", "AUGMENTOR.FLIP.DO_ZTRANS", "AUGMENTOR.ROTATE.ROT90")
    if rotates and not quarter_turns:
        made["rotation"] = {"probability": number(listing, "AUGMENTOR.ROTATE.P"), "degrees_z": [-180, 180]}
        listing.take("training.augmentation.rotation", "AUGMENTOR.ROTATE.P", "AUGMENTOR.ROTATE.ROT90")
    if on("RESCALE"):
        low, high = (number(listing, f"AUGMENTOR.RESCALE.{end}") for end in ("LOW", "HIGH"))
        made["scaling"] = {"probability": number(listing, "AUGMENTOR.RESCALE.P"), "factor": [low, high]}
        keys = (f"AUGMENTOR.RESCALE.{name}" for name in ("P", "LOW", "HIGH"))
        listing.take("training.augmentation.scaling", *keys, but="z is scaled too")
    if on("ELASTIC"):
        made["elastic"] = _elastic(listing)
    if on("GRAYSCALE"):
        made["intensity"] = {"scale": 0.15, "shift": 0.15}
        made["gamma"] = {"probability": number(listing, "AUGMENTOR.GRAYSCALE.P"), "exponent": [0.5, 2.0]}
        listing.take(
            "training.augmentation.intensity and gamma",
            "AUGMENTOR.GRAYSCALE.P",
            but="contrast and brightness change in every sample, and not section by section",
        )
    return made | _sections(listing, on("MISSINGSECTION"), on("MISALIGNMENT"), on("MOTIONBLUR"))


def _elastic(listing: Listing) -> dict[str, Any]:
    """Noise of ±alpha, smoothed by sigma, has this deviation, and is about the same over twice sigma."""
    alpha, sigma = (number(listing, f"AUGMENTOR.ELASTIC.{name}", least=0.01) for name in ("ALPHA", "SIGMA"))
    deviation = round(alpha / math.sqrt(3) / (2 * sigma * math.sqrt(math.pi)), 3)
    spacing = max(2, round(2 * sigma))
    listing.take(
        "training.augmentation.elastic", "AUGMENTOR.ELASTIC.ALPHA", "AUGMENTOR.ELASTIC.SIGMA",
        but="the field is one of control points, of the same size and smoothness",
    )  # fmt: skip
    return {
        "control_point_spacing": [32, spacing, spacing], "jitter_sigma": [0.0, deviation, deviation],
        "rotation_degrees": [0.0, 0.0], "shift_probability": 0.0,
    }  # fmt: skip


def _sections(listing: Listing, missing: bool, misaligned: bool, blurred: bool) -> dict[str, Any]:
    """Return what happens to sections. Where a sample has a probability there and sections here: as many."""
    depth = sizes(listing, "MODEL.INPUT_SIZE")[0]
    made: dict[str, Any] = {}

    def share(kind: str, sections: str) -> float:
        group = f"AUGMENTOR.{kind}"
        expected = number(listing, f"{group}.P") * number(listing, f"{group}.{sections}")
        return round(min(1.0, expected / depth), 4)

    if missing:
        made["missing_sections"] = {"probability": share("MISSINGSECTION", "NUM_SECTION"), "axis": 0}
        listing.take(
            "training.augmentation.missing_sections", "AUGMENTOR.MISSINGSECTION.P",
            "AUGMENTOR.MISSINGSECTION.NUM_SECTION",
            but="sections become black (there they are cut out), as many on average",
        )  # fmt: skip
    if misaligned:
        made["misalignment"] = {
            "probability": number(listing, "AUGMENTOR.MISALIGNMENT.P"), "axis": 0,
            "max_voxels": number(listing, "AUGMENTOR.MISALIGNMENT.DISPLACEMENT", whole=True, least=1),
            "rotations": number(listing, "AUGMENTOR.MISALIGNMENT.ROTATE_RATIO"),
        }  # fmt: skip
        keys = (f"AUGMENTOR.MISALIGNMENT.{name}" for name in ("P", "DISPLACEMENT", "ROTATE_RATIO"))
        listing.take("training.augmentation.misalignment", *keys)
    if blurred:
        window = number(listing, "AUGMENTOR.MOTIONBLUR.KERNEL_SIZE", whole=True, least=3)
        made["motion_blur"] = {
            "probability": share("MOTIONBLUR", "SECTIONS"), "axis": 0, "reach": [1, window // 2],
        }  # fmt: skip
        keys = (f"AUGMENTOR.MOTIONBLUR.{name}" for name in ("P", "SECTIONS", "KERNEL_SIZE"))
        listing.take("training.augmentation.motion_blur", *keys, but="as many sections on average")
    return made
