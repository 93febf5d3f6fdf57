"""How quick a device really is: a short run of the network, so that a plan can say how long it takes."""

import time

import torch

from incasem.geometry import Coordinate
from incasem.networks import Backend, InferenceNetwork, ValidNetwork, choose_precision
from incasem.prediction.cost import NetworkCost
from incasem.prediction.memory import is_out_of_memory

_PROBE_FLOPS = {"cpu": 2e11, "cuda": 2e13}
"""About a second and a tenth of one, on hardware of today."""


def measured_speed(
    network: ValidNetwork, device: torch.device, precision: str, backend: Backend, tile_shape: Coordinate
) -> float | None:
    """Return operations per second of ``network`` on ``device``, as `NetworkCost` counts them.

    Args:
        network: a copy of it runs.
        device: where.
        precision: setting of `choose_precision`.
        backend: of `InferenceNetwork`.
        tile_shape: the tile of the plan; the probe is no larger.

    Returns:
        None where the memory did not suffice: the plan's own estimate has to do then.
    """
    cost = NetworkCost(network, device.type, backend)
    shape = network.smallest_input
    largest = network.input_shape_for(tile_shape)
    while cost.call(shape).flops < _PROBE_FLOPS.get(device.type, _PROBE_FLOPS["cpu"]) and shape != largest:
        wanted = [
            min(2 * (s - 2 * c), t) for s, c, t in zip(shape, network.context_voxels, tile_shape, strict=True)
        ]
        larger = network.input_shape_for(wanted)
        if larger == shape:
            break
        shape = larger
    try:
        dtype = choose_precision(precision, device)
        runner = InferenceNetwork(network, device, dtype, backend=backend)
        raw = torch.zeros((1, next(network.parameters()).shape[1], *shape))
        z, y, x = network.smallest_input if backend == "torch" else shape  # the others compile for a size
        runner(raw[..., :z, :y, :x])
        began = time.perf_counter()
        runner(raw).cpu()
        return cost.call(shape).flops / (time.perf_counter() - began)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return None
