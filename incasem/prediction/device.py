"""From the setting `torch.device` to a device that is there."""

import logging
from collections.abc import Sequence

import torch

from incasem.errors import ConfigError, explain

logger = logging.getLogger(__name__)


def choose_devices(setting: int | str | Sequence[int | str]) -> tuple[torch.device, ...]:
    """Return the devices for ``prediction.torch.device``, one a worker.

    Args:
        setting: what `choose_device` takes, a list of that, or "all": every GPU, else the processor. A
            device that stands in the list twice gets two workers.

    Raises:
        ConfigError: one is unknown, or not there.
    """
    if setting == "all":
        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
        return tuple(torch.device("cuda", index) for index in range(gpus)) or (torch.device("cpu"),)
    if isinstance(setting, int | str):
        return (choose_device(setting),)
    # Whoever lists numbers means GPUs; only the published default, a single 0, must work without any.
    return tuple(choose_device(f"cuda:{one}" if isinstance(one, int) else one) for one in setting)


def choose_device(setting: int | str, name: str = "torch.device") -> torch.device:
    """Return the device for ``torch.device``.

    Args:
        setting: a GPU's number; "cpu"; "cuda" (the first GPU) or "cuda:N"; "auto" (a GPU if there is one).
            Without any GPU a number means the processor, with a warning: 0 is the published default, and its
            commands must work on a laptop.
        name: of the setting, for messages.

    Raises:
        ConfigError: unknown, or a GPU that this machine does not have.
    """
    text = str(setting)
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if text == "auto":
        return torch.device("cuda", 0) if gpus else torch.device("cpu")
    if text == "cpu":
        return torch.device("cpu")
    number = text.removeprefix("cuda").removeprefix(":") or "0"
    if number.isdigit():
        if int(number) < gpus:
            return torch.device("cuda", int(number))
        if not gpus and text.isdigit():
            logger.warning("%s is %s, but no GPU is available: the processor is used.", name, text)
            return torch.device("cpu")
    here = ", ".join(f"{i} ({torch.cuda.get_device_name(i)})" for i in range(gpus)) or "no GPU"
    raise ConfigError(
        explain(name, setting, f"cpu, auto, or the number of a GPU; here: {here}", "Correct it")
    )
