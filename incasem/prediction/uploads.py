"""Raw data on their way to the device, beside its computing.

On a GPU a copy overlaps with computing only out of pinned memory and in a stream of its own; it is uint8 as
on the disk, a quarter of the bytes of floats, and the device makes the numbers of it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from incasem.tasks.grey_values import full_scale


def new_stream(device: torch.device) -> torch.cuda.Stream:
    """Return a stream of its own on a GPU."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


class Uploads:
    """Copies arrays to one device; may be used by several threads."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = new_stream(device) if device.type == "cuda" else None

    def start(self, array: NDArray[Any]) -> "Uploaded":
        """Begin the copy of ``array`` (uint8, uint16 or float) and return at once."""
        native = np.require(array, array.dtype.newbyteorder("="), ["C", "W"])
        tensor, scale = torch.from_numpy(native), full_scale(native.dtype)
        if self._stream is None:
            return Uploaded(tensor, scale, None)
        with torch.cuda.stream(self._stream):
            on_device = tensor.pin_memory().to(self._device, non_blocking=True)
            return Uploaded(on_device, scale, self._stream.record_event())


@dataclass(frozen=True)
class Uploaded:
    """Grey values on their way: ``tensor`` is there once ``ready`` has happened; ``scale`` means white."""

    tensor: Tensor
    scale: float
    ready: torch.cuda.Event | None

    def normalised(self, place: tuple[slice, ...]) -> Tensor:
        """Return the part at ``place`` (z, y, x) as float32 in [-1, 1], the numbers of `tasks.normalise`."""
        if self.ready is not None:
            stream = torch.cuda.current_stream(self.tensor.device)
            stream.wait_event(self.ready)
            self.tensor.record_stream(stream)
        z, y, x = place
        values = self.tensor[..., z, y, x].to(torch.float32)
        # Of floats, `to` gives the raw data themselves, which other tiles need as well.
        values = values.mul(float(np.float32(2.0 / self.scale)))
        return values.sub_(1.0)
