"""A small input and what our own prediction says of it: the test that travels with a shared model."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from incasem.geometry import Roi
from incasem.networks import InferenceNetwork, ValidNetwork, choose_precision
from incasem.sharing.model import SharedModel
from incasem.tasks.grey_values import full_scale, normalise
from incasem.volumes import check_spatial, open_volume

_LEAST_OUTPUT = (8, 64, 64)  # voxels: enough to show one section, quick to compute on a laptop
_SEED = 1841


@dataclass(frozen=True)
class Sample:
    """An input of a legal size and its outputs.

    Attributes:
        raw_NCZYX: grey values as stored, uint8, uint16 or floats in [0, 1]; (1, 1, z, y, x).
        logits_NCZYX: float32, (1, C, z - 2 * context, …).
        source: what it was cut from, for the documentation.
    """

    raw_NCZYX: NDArray[Any]
    logits_NCZYX: NDArray[np.float32]
    source: str

    @property
    def gain(self) -> float:
        """Factor of the normalisation ``raw * gain - 1``."""
        return 2.0 / full_scale(self.raw_NCZYX.dtype)

    @property
    def normalised_NCZYX(self) -> NDArray[np.float32]:
        """What the network reads."""
        return normalise(self.raw_NCZYX)


def make_sample(model: SharedModel, dataset: str | None) -> Sample:
    """Cut out a small input and predict it in float32 as `incasem predict` does.

    Args:
        model: what is shared.
        dataset: grey values to cut the middle out of; None: generated tissue of the model's voxel size.

    Raises:
        DataError: the dataset cannot be read, or is not of grey values without channels.
    """
    shape = model.fixed_input or model.network.input_shape_for(_LEAST_OUTPUT)
    if dataset is None:
        raw_ZYX: NDArray[Any] = model.outputs.phantom(shape, _SEED, model.voxel_size)
        source = "generated tissue"
    else:
        raw_ZYX, source = _middle(dataset, shape), f"the middle of {dataset.rstrip('/').rpartition('/')[2]}"
    return predict_sample(model.network, raw_ZYX[None, None], source)


def predict_sample(network: ValidNetwork, raw_NCZYX: NDArray[Any], source: str) -> Sample:
    """Return an input with its logits, computed in float32 on the CPU."""
    own = InferenceNetwork(network, "cpu", choose_precision("fp32", "cpu"))
    logits: NDArray[np.float32] = own(normalise(raw_NCZYX)).numpy()
    return Sample(np.ascontiguousarray(raw_NCZYX), logits, source)


def _middle(dataset: str, shape: tuple[int, ...]) -> NDArray[Any]:
    volume = open_volume(dataset)
    full_scale(volume.dtype)
    check_spatial(volume)
    whole = volume.roi_voxels
    begin = [b + (w - s) // 2 for b, w, s in zip(whole.begin, whole.shape, shape, strict=True)]
    return volume.read_voxels(Roi(begin, shape), beyond="reflect")
