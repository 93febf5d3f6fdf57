"""What one call of a network costs: arithmetic and memory, found without running it.

The network is run on torch's `meta` device, where tensors have sizes but no data: the operations are the real
ones, so the figures hold for any network, and a call takes milliseconds whatever its size.
"""

import copy
import math
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from incasem.networks import Backend, ValidNetwork, rearranged


@dataclass(frozen=True)
class CallCost:
    """One call of the network.

    Attributes:
        flops: floating-point operations of the convolutions; a multiply-add counts as two.
        peak_elements: most elements of all tensors that live at the same time.
        largest_tensor: elements of the largest single tensor.
    """

    flops: int
    peak_elements: int
    largest_tensor: int


class NetworkCost:
    """Costs of one network for any input size; each size is worked out once.

    Args:
        network: as it was trained.
        device: kind of device; what `InferenceNetwork` makes of the network for it is counted. None: the
            network as it is.
        backend: what runs it there.
    """

    def __init__(self, network: ValidNetwork, device: str | None = None, backend: Backend = "torch") -> None:
        first_weight = next(network.parameters())
        self._channels, self._dtype = int(first_weight.shape[1]), first_weight.dtype
        runs = network if device is None else rearranged(network, device, backend)
        self._network = copy.deepcopy(runs).eval().requires_grad_(False).to("meta")
        self._known: dict[tuple[int, ...], CallCost] = {}
        # Without the slabs of one device, whose overlaps are no polynomial of the size.
        self._ideal = self if device in (None, "meta") else NetworkCost(network, "meta")

    def call(self, input_shape: Sequence[int]) -> CallCost:
        """Return the cost of one input of ``input_shape`` (z, y, x, voxels).

        Raises:
            ConfigError: the network cannot take this size.
        """
        key = tuple(input_shape)
        if key not in self._known:
            self._known[key] = self._trace(key)
        return self._known[key]

    def flops_per_voxel(self) -> float:
        """Return the operations per output voxel that remain for an infinitely large tile.

        The operations of a call are a cubic polynomial of k for the inputs smallest + k · stride; its leading
        coefficient, from the third difference, is what a voxel without any context costs.
        """
        stride, smallest = self._network.stride, self._network.smallest_input
        f0, f1, f2, f3 = (self._ideal.call(smallest + stride * (8 + k)).flops for k in range(4))
        voxels = math.prod(stride)
        return (f3 - 3 * f2 + 3 * f1 - f0) / (6 * voxels)

    def _trace(self, input_shape: tuple[int, ...]) -> CallCost:
        # The input tensor is made inside, so that it counts as living memory.
        with torch.no_grad(), _Trace() as trace:
            raw = torch.empty((1, self._channels, *input_shape), device="meta", dtype=self._dtype)
            self._network(raw)
        return trace.cost


def training_cost(network: ValidNetwork, input_shape: Sequence[int]) -> CallCost:
    """Return the cost of one training step with a sample of ``input_shape`` (z, y, x, voxels).

    The tensors are those of the forward pass, which the backward pass needs, and the gradients; not counted
    are the optimizer's.
    """
    module = copy.deepcopy(network).train().to("meta")
    first_weight = next(module.parameters())
    with _Trace() as trace:
        raw = torch.empty(
            (1, int(first_weight.shape[1]), *input_shape), device="meta", dtype=first_weight.dtype
        )
        module(raw).sum().backward()
    return trace.cost


class _Trace(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operations; follows which tensors live, from their creation to the death of their storage."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._living: dict[int, int] = {}
        self._serial = 0
        self._seen: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()
        self._flops = self._peak = self._largest = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Spare torch the loading of its compiler, which would take longer than all that is traced here."""
        return False

    @property
    def cost(self) -> CallCost:
        """What was found up to now."""
        return CallCost(int(self._flops), self._peak, self._largest)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        count = flop_registry.get(func.overloadpacket)
        if count is not None:
            self._flops += count(*args, **(kwargs or {}), out_val=result)
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._follow(tensor)
        return result

    def _follow(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage in self._seen:
            return
        self._seen.add(storage)
        elements = storage.nbytes() // tensor.element_size()
        self._serial += 1
        self._living[self._serial] = elements
        weakref.finalize(storage, self._living.pop, self._serial)
        self._largest = max(self._largest, elements)
        self._peak = max(self._peak, sum(self._living.values()))
